"""The one mechanism: values with cursors. No stage of the vocabulary, and no thread."""

"""Where the time goes, and what a batch looks like. Reports get records and plain rows; nothing here opens a pipeline."""

"""Rows of many files: the source that names them in index arithmetic, and the readers that load them.
No stages and no batches: a reader is a sample function, and what it opens belongs to the thread that opened it."""

"""Where the time goes, and what a batch looks like, from records and plain rows. Nothing here opens a pipeline."""

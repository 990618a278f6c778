"""Where the time goes, and what a batch looks like. Nothing here runs a pipeline."""

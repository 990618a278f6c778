"""How values are printed, compared and checked. Nothing here runs a pipeline."""

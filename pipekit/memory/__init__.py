"""Memory that is used again, and shared. Nothing here knows what a batch is."""

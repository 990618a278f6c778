"""Memory that is reused, and shared between processes. Nothing here knows what a batch is."""

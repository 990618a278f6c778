"""Where functions run, when that is not the calling thread."""

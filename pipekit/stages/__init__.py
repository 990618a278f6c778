"""What a pipeline is made of, and how it is run. No threads, no epochs."""

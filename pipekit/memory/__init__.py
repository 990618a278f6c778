"""Memory that is reused, or shared between processes, and what a fork sees of it.
What knows of batches or of pickles does not belong here.
"""

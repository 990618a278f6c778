"""The vocabulary: sources, stages, sample functions and combiners, each made of operations.
How operations are planned and run does not belong here, and neither do threads and epochs.
"""

"""The one mechanism: values with cursors, randomness keyed by them, and calls of functions on them.
Stages with a name of their own, and threads, do not belong here.
"""

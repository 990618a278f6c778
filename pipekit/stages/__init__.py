"""Sources, stages and sample functions, and how a pipeline of them is planned and run.
Threads and epochs do not belong here.
"""

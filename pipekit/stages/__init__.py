"""What a pipeline is made of, and how it is run: sources, stages, functions, plans and tasks.
Threads and epochs do not belong here.
"""

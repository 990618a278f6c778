"""What pipelines and stages are, and how the operations of one are planned and run.
The vocabulary of stages does not belong here: everything works on map, chunk and custom operations.
"""

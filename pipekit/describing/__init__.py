"""Values as text and as arguments: how they are printed, compared, checked, and shown in tracebacks.
What runs a pipeline does not belong here.
"""

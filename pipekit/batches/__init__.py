"""How batches are handed over: epochs, the thread that makes batches ahead, saved states, and warnings about stalls.
Code that makes batches does not belong here.
"""

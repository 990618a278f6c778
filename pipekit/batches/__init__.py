"""How batches are handed over: epochs, the thread that makes them ahead, states, and stalls.
What a batch is made of does not belong here.
"""

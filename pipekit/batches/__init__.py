"""Epochs, and the thread that makes batches ahead. What a batch is made of is not known here."""

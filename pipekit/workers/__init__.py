"""Where functions run outside the calling thread: in threads, in processes, or in a borrowed executor.
Stages, streams and reports do not belong here.
"""

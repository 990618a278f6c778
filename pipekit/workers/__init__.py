"""Where functions run outside the calling thread: in threads, in processes, or in a borrowed executor.

Imports ``errors``, ``describing`` and ``memory`` only: nothing here knows stages, streams or reports.
"""

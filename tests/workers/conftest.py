collect_ignore = ['programs']  # which run when they are imported

"""
What operators do to a running Collector and find out about it, apart from how they ask for it.
"""

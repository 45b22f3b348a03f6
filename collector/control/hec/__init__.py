"""
What an operator finds out about Splunk's HTTP Event Collector: how large the buffer has to be, and how many endpoints.
"""

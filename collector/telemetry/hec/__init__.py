"""
Log lines to Splunk's HTTP Event Collector (HEC), without ever waiting for it, and with an account of every line.

A process has one `handler`. It alone brings `requests` and `splunk_handler`: 0.2 s of a start, which those who send
nothing to Splunk do not pay.
"""

"""
Wire protocols: what a device's SDK sends, and what it wants to hear.

`base` is the one shape of an adapter. `encoding` undoes Content-Encoding within bounds. `split` cuts JSON into
events without parsing them. `native` and `clevertap` (with
`clevertap_rules`) are the adapters.
"""

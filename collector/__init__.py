"""
Collector: the front door for device events.

Importing this package does nothing. `collector.bootstrap` wires the parts, `collector.cli` is the operator's
door, and `collector.receiver.worker` is what gunicorn runs.
"""

"""
Measures Collector against an empty bare WSGI app on stock gunicorn, in one run: `make bench`, or `python -m bench`.

It stands on Linux: on /proc for what a process used, on /dev/shm for the spool and the sink, on core affinity.
"""

"""
The first process: owns the listening sockets, and runs generations of gunicorn behind them.

`task.run` is the whole of it; `life` decides, and the other modules act on the world for it. Nothing here imports
gevent, gunicorn or Flask, and there is one thread.
"""

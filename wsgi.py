"""The WSGI application, for `gunicorn -c gunicorn.conf.py wsgi:app`."""

from collector.bootstrap import create_app

app = create_app()

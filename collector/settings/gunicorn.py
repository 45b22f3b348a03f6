"""
gunicorn's settings, from ours. Sources: gunicorn 27.0.1's documentation, and measurements where it is silent.
"""

from __future__ import annotations

import math
from typing import Any

from collector.settings.model import Settings
from collector.settings.places import file_system_type, nearest_existing

#: A worker whose loop stands still for so long is killed and replaced, in seconds. gunicorn's own default.
_HEARTBEAT_TIMEOUT_S = 30
#: One line of a head, and how many: both within the head's own limit, which the worker holds.
_MAX_FIELDS = 100
#: How many connections may wait to be accepted; the kernel takes the lesser of this and net.core.somaxconn.
_BACKLOG = 2048


def gunicorn_settings(settings: Settings) -> dict[str, Any]:
    """Return what `gunicorn.conf.py` sets. Nothing in it writes a file outside `worker_tmp_dir`."""
    return {
        "bind": [settings.bind, settings.admin_bind],
        "workers": settings.workers,
        "worker_class": "collector.receiver.worker.Worker",
        "worker_connections": settings.worker_connections,
        "keepalive": math.ceil(settings.keepalive_s),
        "graceful_timeout": settings.graceful_timeout_s,
        "timeout": _HEARTBEAT_TIMEOUT_S,
        "backlog": _BACKLOG,
        # The parser in C. It fails at the first request, not at the start, when it is missing: the worker looks.
        "http_parser": "fast",
        # Browsers' GET uploads carry an event in the line.
        "limit_request_line": min(settings.max_header_bytes, 8190),
        "limit_request_fields": _MAX_FIELDS,
        "limit_request_field_size": settings.max_header_bytes,
        # The peer is believed nothing: what a proxy says of a device is read from X-Forwarded-For by us.
        "forwarded_allow_ips": "*",
        "secure_scheme_headers": {},
        "forwarder_headers": "",
        # A heartbeat file a worker, the only file that gunicorn makes.
        "worker_tmp_dir": heartbeat_dir(settings),
        "control_socket_disable": True,
        "dirty_workers": 0,
        # Each of these loses requests or breaks gevent: see docs/decisions.
        "preload_app": False,
        "reuse_port": False,
        "daemon": False,
        "accesslog": None,
        "errorlog": "-",
        "loglevel": "warning" if settings.log_level in ("warning", "error") else "info",
        "proc_name": "collector",
    }


def heartbeat_dir(settings: Settings, *, temporary: str = "/tmp") -> str:  # noqa: S108 - judged before it is used
    """Return where gunicorn's heartbeat files go: the temporary directory if it is a tmpfs, else beside the spool."""
    if file_system_type(temporary) == "tmpfs":
        return temporary
    return str(nearest_existing(settings.spool_dir))

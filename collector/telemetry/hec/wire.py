"""
What a session does on its connections: whether a request has begun to leave, and a way to leave them to a parent.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class Wire:
    """A session that keeps one connection, and takes nothing from the environment: no proxy, no .netrc."""

    def __init__(self) -> None:
        #: Whether anything of the last request has left. What fails before that, whatever it is, nobody has received.
        self.has_left = False
        self._connections: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers.clear()
        self.session.headers.update(
            {"User-Agent": "collector", "Accept-Encoding": "identity", "Connection": "keep-alive"}
        )
        adapter = HTTPAdapter(max_retries=0, pool_connections=1, pool_maxsize=1)
        adapter.poolmanager.pool_classes_by_scheme = self._pools()
        self.session.mount("http://", adapter)
        self.session.mount("https://", adapter)

    def disown(self) -> None:
        """
        Let go of all connections in a forked child, without a word to the other side.

        A greenlet that waited for an answer is copied by the fork, and would take it from its parent: it finds the end
        of a file in its place.
        """
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for connection in list(self._connections):
            if connection.sock is not None and connection.sock.fileno() >= 0:
                os.dup2(nothing, connection.sock.fileno(), inheritable=False)
        os.close(nothing)

    def _pools(self) -> dict[str, Any]:
        wire = self

        class Watched(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                wire._connections.add(self)

            def send(self, data: Any) -> None:  # noqa: ANN401 -- as the base class has it
                if self.sock is None:
                    self.connect()
                wire.has_left = True
                super().send(data)

        class WatchedTls(Watched, HTTPSConnection):
            pass

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Watched

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = WatchedTls

        return {"http": PlainPool, "https": SecurePool}

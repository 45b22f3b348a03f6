"""
A listener as its connections see it.
"""

from __future__ import annotations

from typing import Any

from collector.receiver.hot import HotDoor, head_limits
from collector.receiver.lobby import Lobby
from collector.receiver.outbox import Outbox
from collector.receiver.roster import Roster
from collector.receiver.shed import Shedder
from collector.receiver.turns import Turns


class Door:
    """
    A listener, and what all its connections share.

    `name` is what gunicorn calls it, asked once (it is gone while a worker stops); `role` is "device" or "admin".
    Without `turns` and `shedder` its requests are served at once, whatever the load; without `hot` all of them go
    through gunicorn's parser.
    """

    def __init__(
        self,
        name: Any,
        role: str,
        worker: Any,
        roster: Roster,
        outbox: Outbox,
        *,
        turns: Turns | None = None,
        shedder: Shedder | None = None,
        hot: HotDoor | None = None,
    ) -> None:
        self.name = name
        self.role = role
        self.worker = worker
        self.roster = roster
        self.outbox = outbox
        self.turns = turns
        self.shedder = shedder
        self.hot = hot
        self.head_limits = head_limits(worker.cfg)
        self.times = worker.wsgi.runtime.times
        #: Where its connections wait for their requests, if it has all that is needed to serve them together.
        self.lobby: Lobby | None = None
        if turns is not None and shedder is not None and hot is not None:
            self.lobby = Lobby(worker, roster, turns, hot, shedder, self.head_limits, self.times.max_header_bytes)

"""
gunicorn's gevent worker, made lossless: what the stock one gets wrong is put right here and in `connection`.

The stock worker waits for ever on a body that stalls, hands over a body that broke off as if it were whole, serves one
connection many times while others wait, closes its listener on a full accept queue, and writes a 500 to idle
connections when it stops. This one bounds what a client may take, lets requests take turns, and when told to stop
answers all that arrived before it goes.

gunicorn's master imports this module before anything is patched, so it must import nothing else of Collector at
its head.
"""

from __future__ import annotations

import os
import resource
import time
from importlib import metadata
from typing import Any

import gevent
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

#: The listeners, in the order of `bind`.
ROLES = ("device", "admin")
#: Connections that are accepted between two looks at the sockets. All that wait would be too many: the first worker to
#: wake would have them all, and a health check would wait for each. One would be too few for a connection an upload.
_ACCEPTED_AT_ONCE = 8
#: How long a worker that has accepted lets the others do so, in seconds. The one that is awake would else have all that
#: come: of 64 connections made one after the other a second worker got none (measured). A choice; to wake takes 0.1 ms.
_PAUSE_S = 0.0005
#: Connections that are let in above the limit, so that others can be sent away for them; and files beside connections.
_SPARE_CONNECTIONS, _SPARE_FILES = 64, 512
#: The parts of the drain budget in which idle connections may still ask, and after which busy ones are cut off.
_IDLE_PART, _BUSY_PART = 0.25, 0.5
#: What is left of the drain budget when there is no time for anybody who is silent, in seconds.
_QUICK_DRAIN_S = 2.0
#: How long a worker that has drained waits for answers that are on their way, in seconds. A guess, ample: an upload
#: that waits for its sink looks four times a second.
_LAST_WORDS_S = 0.75
_POLL_S = 0.05
_HEARTBEAT_S = 1.0


class SharedServer(StreamServer):  # type: ignore[misc]  # gevent's are not typed
    """A listener that other workers have, too; who has accepted pauses."""

    _has_accepted = False

    def do_handle(self, *args: Any) -> None:
        """Hand a connection over, and remember that there was one."""
        self._has_accepted = True
        super().do_handle(*args)

    def _do_read(self) -> None:
        self._has_accepted = False
        super()._do_read()
        # Without a watcher it has paused already, or stopped.
        if self._has_accepted and self._watcher is not None:
            self.stop_accepting()
            self._timer = self.loop.timer(_PAUSE_S)
            self._timer.start(self._start_accepting_if_started)


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn ships no types
    """One worker process: its listeners and its life."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._doors: list[Any] = []
        self._is_quick = False
        self._is_orphan = False
        self._is_stopping = False

    # -- life ----------------------------------------------------------------------------------------------

    def patch(self) -> None:
        """
        Let gevent patch, with one look at the packages that are installed.

        It looks for plugins that want to be told of each patch, 25 times at all metadata: 75 ms with 40 packages.
        """
        look = metadata.entry_points
        installed = look()
        metadata.entry_points = installed.select
        try:
            super().patch()
        finally:
            metadata.entry_points = look

    def run(self) -> None:
        """Serve until told to stop, then drain."""
        # Here and not at the head: by now everything is patched, and what is on the disk is what this generation runs.
        from collector.receiver import notice
        from collector.receiver.outbox import Outbox
        from collector.receiver.turns import Turns

        runtime = self.wsgi.runtime
        self._raise_file_limit()
        # gunicorn looks up a setting 23 times a request, each time by a method call (27.0.1).
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        turns, outbox = Turns(), Outbox()
        servers = [self._listen(sock, role, turns, outbox) for sock, role in zip(self.sockets, ROLES, strict=False)]
        runtime.watch(lambda: self._gauges(turns))
        beats = [gevent.spawn(self._beat), gevent.spawn(self._measure_lag, turns)]
        notice.tell_ready()
        while self.alive:
            if notice.read().leaving:
                runtime.begin_drain()
            gevent.sleep(_POLL_S)
        runtime.begin_drain()
        if not notice.has_launcher():
            # Under a launcher the lame-duck time is over, or others serve already.
            self._be_lame_duck(time.monotonic() + runtime.times.lame_duck_s)
        deadline = time.monotonic() + (_QUICK_DRAIN_S if self._is_quick else runtime.times.drain_s)
        self._stop_accepting(servers)
        self._see_off(deadline)

        def is_last() -> bool:
            # At a reload the next generation goes on with the spool: nothing has to leave the task.
            return not notice.has_launcher() or notice.read().leaving

        runtime.finish(max(0.0, deadline - time.monotonic()), to_rescue=is_last)
        # Uploads that have waited for their sink in vain are told so.
        until = time.monotonic() + _LAST_WORDS_S
        while any(door.roster.is_working for door in self._doors) and time.monotonic() < until:
            gevent.sleep(_POLL_S)
        gevent.killall(beats)

    def _raise_file_limit(self) -> None:
        """Ask for as many open files as there may be connections; a soft limit of 1,024 is common."""
        wanted = len(ROLES) * (self.worker_connections + _SPARE_CONNECTIONS) + _SPARE_FILES
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < allowed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))

    def _listen(self, sock: Any, role: str, turns: Any, outbox: Any) -> StreamServer:
        from collector.receiver.connection import Connection
        from collector.receiver.door import Door
        from collector.receiver.roster import Roster

        sock.setblocking(True)
        paced = role == "device"
        door = Door(
            sock.getsockname(),
            role,
            self,
            Roster(self.worker_connections, lambda place: self.wsgi.runtime.connection_evicted(place.name.lower())),
            outbox,
            turns=turns if paced else None,
            shedder=self.wsgi.shedder if paced else None,
            hot=self.wsgi.hot if paced else None,
        )
        self._doors.append(door)
        server = (SharedServer if paced and self.cfg.workers > 1 else StreamServer)(
            sock,
            handle=lambda client, addr: Connection(door, client, addr).run(),
            spawn=Pool(self.worker_connections + _SPARE_CONNECTIONS),
        )
        server.max_accept = _ACCEPTED_AT_ONCE
        server.start()
        return server

    def _beat(self) -> None:
        while True:
            self.tmp.notify()
            for door in self._doors:
                door.roster.sweep(self.cfg.keepalive)
            if self.ppid != os.getppid():
                # The master is gone: nobody restarts us, and nobody will tell us to stop.
                self._is_orphan = True
                self.alive = False
            gevent.sleep(_HEARTBEAT_S)

    def _measure_lag(self, turns: Any) -> None:
        while True:
            due = time.monotonic() + _POLL_S
            gevent.sleep(_POLL_S)
            turns.note_loop_lag(time.monotonic() - due)

    def _gauges(self, turns: Any) -> dict[str, float]:
        return {
            "collector_lag_seconds": turns.take_worst_s(),
            "collector_connections": sum(len(door.roster) for door in self._doors),
        }

    def _be_lame_duck(self, until: float) -> None:
        """Answer on, unready, so that whoever sends traffic here notices before it meets a closed door."""
        while time.monotonic() < until and not self._is_quick and not self._is_orphan:
            gevent.sleep(_POLL_S)

    def _stop_accepting(self, servers: list[StreamServer]) -> None:
        self._is_stopping = True
        for server in servers:
            server.stop_accepting()
            # A connection whose handshake is done would be reset by the close: serve it first.
            while (waiting := server.do_read()) is not None:
                server.do_handle(*waiting)
            server.close()
        # Connections that were accepted a moment ago have not begun: they are in no roster yet.
        gevent.sleep(0)

    def _see_off(self, deadline: float) -> None:
        """Answer what is under way or still asks, close what stays silent, and cut off what does not end."""
        from collector.receiver.roster import Place, hang_up

        budget = deadline - time.monotonic()
        idle_until = deadline - budget * (1 - _IDLE_PART)
        busy_until = deadline - budget * (1 - _BUSY_PART)
        rosters = [door.roster for door in self._doors]

        def works() -> bool:
            return any(roster.is_working for roster in rosters) and time.monotonic() < busy_until

        def may_ask() -> bool:
            return any(map(len, rosters)) and time.monotonic() < idle_until and not self._is_quick

        while may_ask() or works():
            gevent.sleep(_POLL_S)
        self.wsgi.runtime.refuse_uploads()
        for roster in rosters:
            for client in roster.waiting(Place.IDLE):
                hang_up(client)
        while works():
            gevent.sleep(_POLL_S)

    def handle_quit(self, _signal: int, _frame: Any) -> None:
        """Stop soon: as for TERM, but wait for nobody who is silent."""
        self._is_quick = True
        self.alive = False

    # -- what connections ask ------------------------------------------------------------------------------

    @property
    def is_leaving(self) -> bool:
        """Tell whether answers should end their connections."""
        return self._is_stopping or not self.alive or self.wsgi.runtime.is_leaving

    def count_request(self) -> None:
        """Count one; gunicorn's `max_requests` ends the worker by it."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False

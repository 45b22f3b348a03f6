"""
The tenants in force, reloaded from the settings file without a restart, at one instant in all workers.

Each worker has a `TenantBook` and ticks it. When the file has changed and then rested, one worker, the holder of a
lock, reads it and publishes the tenants on the board that all share, with the instant from which they hold. That
lies far enough ahead for every worker to have seen it. A file that is broken publishes its problems instead, and
the tenants stay as they are.

    config file -> (rests, lock) -> current   tenants, and from when      -> table of every worker
                                 -> problem   what is wrong with the file -> problems of every worker

Of two readings of one file the later is right. A worker is started with a reading of its own, the settings; it
takes what is published if that was read later, and publishes its own otherwise.
"""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from itertools import count
from pathlib import Path

import msgspec

from collector.admission.auth import TenantTable
from collector.admission.board import UNSEEN, Board, Problem, Published, Stamp, stamp_of
from collector.clock import Clock
from collector.errors import SettingsError
from collector.settings import DEV_TENANT, parse_tenants
from collector.telemetry.signals import Signals
from collector.tenant import Tenant

#: How long a changed file must rest before it is read: an editor may write it in several steps (a guess).
REST_S = 0.5
#: How far ahead the tenants' start is set: four ticks at four a second, so that a late one is no loss.
LEAD_S = 1.0


class TenantBook:
    """
    One worker's view of the tenants. `start` it once; `tick` it about four times a second, from one thread.

    `config_path` None: there is no file, and `initial` holds for good. `shared_dir` is the same in all workers, on
    tmpfs. `routes` are the names a tenant may send to. `read_at_s` is CLOCK_MONOTONIC when `initial` was read,
    None for the moment of the start.
    """

    def __init__(
        self,
        config_path: str | Path | None,
        shared_dir: Path,
        *,
        initial: tuple[Tenant, ...],
        routes: Collection[str],
        clock: Clock,
        signals: Signals,
        read_at_s: float | None = None,
    ) -> None:
        self._config = None if config_path is None else Path(config_path)
        self._board = Board(shared_dir)
        self._initial = initial
        self._routes = frozenset(routes)
        self._clock = clock
        self._signals = signals
        self._read_at_s = read_at_s
        self._table = TenantTable(initial)
        self._next: tuple[float, TenantTable] | None = None
        self._slots = {tenant.id: slot for slot, tenant in enumerate(initial)}
        self._judged = self._seen = UNSEEN
        self._seen_at_s = 0.0
        self._current_stamp = self._problem_stamp = UNSEEN
        self._in_file: list[str] = []
        self._in_routes: list[str] = []
        self._in_board: list[str] = []

    @property
    def table(self) -> TenantTable:
        """The tenants in force at this instant."""
        staged = self._next
        if staged is not None and self._clock.monotonic() >= staged[0]:
            return staged[1]
        return self._table

    @property
    def problems(self) -> list[str]:
        """What keeps the file's tenants from being in force here, in sentences; empty when nothing does."""
        return [*self._in_file, *self._in_routes, *self._in_board]

    def slot(self, tenant_id: str) -> int:
        """Return the tenant's number, the same in all workers and over all reloads of the task."""
        return self._slots[tenant_id]

    def start(self) -> None:
        """Agree with the other workers on the tenants; while the tmpfs refuses, `initial` holds and `tick` tries on."""
        now = self._clock.monotonic()
        self._read_at_s = now if self._read_at_s is None else min(self._read_at_s, now)
        try:
            self._board.open()
            with self._board.locked(wait=True):
                self._agree(self._read_at_s, self._clock.monotonic())
        except OSError as error:
            self._board.close()
            self._in_board = [f"the tenants can't be shared in {self._board.directory}: {error.strerror}"]

    def tick(self) -> None:
        """Take over what was published, and look after the file; never raises for the state of either."""
        if not self._board.is_open:
            self.start()
            return
        now = self._clock.monotonic()
        if self._next is not None and now >= self._next[0]:
            # In this order: who reads the table between the two finds the same tenants in both.
            self._table = self._next[1]
            self._next = None
        try:
            if self._config is not None:
                self._watch(self._config, now)
            self._poll()
        except OSError as error:
            self._in_board = [f"the tenants can't be shared in {self._board.directory}: {error.strerror}"]
        else:
            self._in_board = []

    def close(self) -> None:
        """Let go of the board; the tenants stay in force. Safe to call twice."""
        self._board.close()

    # -- taking over ---------------------------------------------------------------------------------------

    def _agree(self, read_at_s: float, now: float) -> None:
        """Take what is published, or publish what this worker came with, whichever was read later; under the lock."""
        alone = self._board.join()
        current = self._board.current(self._clock)
        if current is None or (read_at_s > current.read_at_s and current.tenants != self._initial):
            # Tenants whose instant has not come are not in force, and now they never will be.
            previous = self._initial if current is None or alone else _in_force(current, now)
            slots = {} if current is None else current.slots
            current = self._publish("", read_at_s, tenants=self._initial, previous=previous, slots=slots, now=now)
        self._current_stamp = stamp_of(self._board.current_file)
        self._slots = self._slots | current.slots
        if self._can_serve(current):
            # With nobody else there is nobody to wait for.
            self._table = TenantTable(current.tenants if alone else _in_force(current, now))
            self._stage(current)

    def _poll(self) -> None:
        """Look whether something else was published."""
        stamp = stamp_of(self._board.current_file)
        if stamp != self._current_stamp:
            current = self._board.current(self._clock)
            if current is not None and self._can_serve(current):
                self._slots = current.slots
                if self._next is not None and self._next[1].tenants == current.previous:
                    # Its publisher saw the instant come that this tick just missed.
                    self._table = self._next[1]
                self._next = None
                self._stage(current)
            self._current_stamp = stamp
        stamp = stamp_of(self._board.problem_file)
        if stamp != self._problem_stamp:
            problem = self._board.problem()
            self._in_file = [] if problem is None else problem.problems
            self._problem_stamp = stamp

    def _stage(self, current: Published) -> None:
        """Hold tenants ready for their instant, which is never further away than a publisher sets it."""
        if current.tenants != self._table.tenants:
            latest_s = self._clock.monotonic() + LEAD_S
            self._next = min(current.active_from_s, latest_s), TenantTable(current.tenants)

    def _can_serve(self, current: Published) -> bool:
        """Tell whether this worker has the tenants' routes; one of an older generation may lack some."""
        missing = sorted({tenant.route for tenant in current.tenants} - self._routes)
        without = f"newer tenants use routes that this worker was started without: {', '.join(missing)}"
        self._in_routes = [without] if missing else []
        return not missing

    # -- looking after the file ----------------------------------------------------------------------------

    def _watch(self, config: Path, now: float) -> None:
        """Judge the file once it has changed and rested, unless another worker is at it."""
        stamp = stamp_of(config)
        if stamp == self._judged:
            return
        if stamp != self._seen:
            self._seen, self._seen_at_s = stamp, now
        elif now - self._seen_at_s >= REST_S:
            with self._board.locked() as mine:
                if mine and self._judge(config, stamp, now):
                    self._judged = stamp

    def _judge(self, config: Path, stamp: Stamp, now: float) -> bool:
        """Publish the file's tenants or its problems, unless that was done; False: look again; under the lock."""
        current = self._board.current(self._clock)
        try:
            content = config.read_bytes()
        except OSError as error:
            self._reject(f"errno {error.errno}", [f"{config} can't be read: {error.strerror}"])
            return True
        if stamp != stamp_of(config):
            return False
        digest = sha256(content).hexdigest()
        if current is None or digest != current.text_sha256:
            try:
                tenants = self._parse(content)
            except SettingsError as error:
                self._reject(digest, [f"{config.name}: {problem}" for problem in error.problems])
                return True
            if current is None or tenants != current.tenants:
                if current is not None and current.active_from_s > now:
                    # Two changes on their way at once could reach the workers in different orders.
                    return False
                previous = self._table.tenants if current is None else current.tenants
                slots = self._slots if current is None else current.slots
                self._publish(digest, now, tenants=tenants, previous=previous, slots=slots, now=now)
        self._board.clear_problem()
        return True

    def _parse(self, content: bytes) -> tuple[Tenant, ...]:
        try:
            text = content.decode()
        except UnicodeDecodeError:
            raise SettingsError(["the file is not UTF-8; save it as UTF-8 text"]) from None
        # A file that loses its tenants must not bring `dev` to a server that others can reach.
        fallback = self._initial if self._initial == (DEV_TENANT,) else None
        return parse_tenants(text, self._routes, fallback=fallback)

    def _reject(self, digest: str, problems: list[str]) -> None:
        """Tell all workers what is wrong, and say it once for each content of the file; under the lock."""
        known = self._board.problem()
        if known is None or known.text_sha256 != digest:
            self._board.put_problem(Problem(digest, problems))
            self._signals.tenants_rejected(problems)

    def _publish(
        self,
        digest: str,
        read_at_s: float,
        *,
        tenants: tuple[Tenant, ...],
        previous: tuple[Tenant, ...],
        slots: dict[str, int],
        now: float,
    ) -> Published:
        """Tell all workers the tenants, from when they hold, and a slot for each new one; under the lock."""
        free = count(max(slots.values(), default=-1) + 1)
        slots = slots | {tenant.id: next(free) for tenant in tenants if tenant.id not in slots}
        active_from_s = now if previous == tenants else now + LEAD_S
        current = Published(digest, read_at_s, active_from_s, tenants, previous, slots)
        self._board.put_current(current)
        self._signals.tenants_loaded(len(tenants), sha256(msgspec.json.encode(tenants)).hexdigest()[:12])
        return current


def _in_force(current: Published, now: float) -> tuple[Tenant, ...]:
    return current.tenants if now >= current.active_from_s else current.previous

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

from collections.abc import Callable, Collection
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path

import msgspec

from collector.admission.auth import TenantTable
from collector.admission.board import UNSEEN, Board, Problem, Published, Stamp, stamp_of
from collector.admission.tenant_file import Found, read
from collector.clock import Clock
from collector.settings import DEV_TENANT
from collector.telemetry.signals import Signals
from collector.tenant import Tenant

#: How long a changed file must rest before it is read: an editor may write it in several steps (a guess).
REST_S = 0.5
#: How far ahead the tenants' start is set: four ticks at four a second, so that a late one is no loss.
LEAD_S = 1.0

#: What is published, and what the file holds.
Seen = tuple[Published | None, Found]


class TenantBook:
    """
    One worker's view of the tenants. `start` it once; `tick` it about four times a second, from one thread.

    `config_path` None: there is no file, and `initial` holds for good. `shared_dir` is the same in all workers, on
    tmpfs. `routes` are the names a tenant may send to. `read_at_s` is CLOCK_MONOTONIC when `initial` was read,
    None for the moment of the start, and `text_sha256` is of the text that it was read from, if it was.

    `spawn` runs a function beside the caller, and `offload` one that takes long, off the hub, and returns its result.
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
        text_sha256: str = "",
        spawn: Callable[[Callable[[], None]], object] = lambda run: run(),
        offload: Callable[[Callable[[], Seen]], Seen] = lambda run: run(),
    ) -> None:
        self._config = None if config_path is None else Path(config_path)
        self._board = Board(shared_dir)
        self._initial = initial
        self._routes = frozenset(routes)
        self._clock = clock
        self._signals = signals
        self._read_at_s = read_at_s
        self._spawn = spawn
        self._offload = offload
        #: The last text that was read here, and its tenants: whatever is done again, it is not parsed again.
        self._known = Found(text_sha256, initial)
        self._judging = False
        self._table = TenantTable(initial)
        self._next: tuple[float, TenantTable] | None = None
        self._slots = {tenant.id: slot for slot, tenant in enumerate(initial)}
        self._judged = self._seen = UNSEEN
        self._seen_at_s = 0.0
        self._current_stamp = self._problem_stamp = UNSEEN
        self._in_file: list[str] = []
        self._in_routes: list[str] = []
        self._in_board: list[str] = []
        self._in_judging: list[str] = []

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
        return [*self._in_file, *self._in_routes, *(self._in_board or self._in_judging)]

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
            self._in_board = [self._not_shared(error)]

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
            self._in_board = [self._not_shared(error)]
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
            text = self._known.text_sha256
            current = self._publish(text, read_at_s, tenants=self._initial, previous=previous, slots=slots, now=now)
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
        """Judge the file once it has changed and rested; beside the ticks, for that takes longer than one may."""
        stamp = stamp_of(config)
        if self._judging or stamp == self._judged:
            return
        if stamp != self._seen:
            self._seen, self._seen_at_s = stamp, now
        elif now - self._seen_at_s >= REST_S:
            self._judging = True
            self._spawn(partial(self._judge_alone, config, stamp))

    def _judge_alone(self, config: Path, stamp: Stamp) -> None:
        """Judge the file unless another worker is at it; what goes wrong is tried again by a later tick."""
        try:
            with self._board.locked() as mine:
                if mine and self._judge(config, stamp):
                    self._judged = stamp
        except OSError as error:
            self._in_judging = [self._not_shared(error)]
        except Exception as error:  # noqa: BLE001 - nobody waits for it who could tell
            self._signals.internal_error("tenants.judge", error)
        else:
            self._in_judging = []
        finally:
            self._judging = False

    def _judge(self, config: Path, stamp: Stamp) -> bool:
        """Publish the file's tenants or its problems, unless that was done; False: look again; under the lock."""
        read_at_s = self._clock.monotonic()
        current, found = self._offload(lambda: self._look(config))
        now = self._clock.monotonic()
        if not self._board.is_open or stamp != stamp_of(config):
            return False
        if found.problems:
            self._reject(found)
            return True
        self._known = found
        digest, tenants = found.text_sha256, found.tenants
        if current is None or tenants != current.tenants:
            if current is not None and current.active_from_s > now:
                # Two changes on their way at once could reach the workers in different orders.
                return False
            previous = self._table.tenants if current is None else current.tenants
            slots = self._slots if current is None else current.slots
            self._publish(digest, read_at_s, tenants=tenants, previous=previous, slots=slots, now=now)
        elif digest != current.text_sha256 and current.active_from_s <= now:
            # Other text, the same tenants: said to the others, or each of them would parse it to find that out.
            self._board.put_current(msgspec.structs.replace(current, text_sha256=digest, read_at_s=read_at_s))
        self._board.clear_problem()
        return True

    def _look(self, config: Path) -> Seen:
        """Read what is published, and what the file holds; off the hub, and it changes nothing."""
        current, known = self._board.current(self._clock), self._known
        texts = {known.text_sha256: known.tenants} if known.text_sha256 else {}
        if current is not None and current.text_sha256:
            texts[current.text_sha256] = current.tenants
        # A file that loses its tenants must not bring `dev` to a server that others can reach.
        fallback = self._initial if self._initial == (DEV_TENANT,) else None
        return current, read(config, self._routes, fallback=fallback, known=texts)

    def _reject(self, found: Found) -> None:
        """Tell all workers what is wrong, and say it once for each content of the file; under the lock."""
        known = self._board.problem()
        if known is None or known.text_sha256 != found.text_sha256:
            problems = list(found.problems)
            self._board.put_problem(Problem(found.text_sha256, problems))
            self._signals.tenants_rejected(problems)

    def _not_shared(self, error: OSError) -> str:
        return f"the tenants can't be shared in {self._board.directory}: {error.strerror}"

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

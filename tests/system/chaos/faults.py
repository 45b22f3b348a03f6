"""
What is done to a task at full load. Each fault leaves the world as it found it, and the task whole.

A fault is a function of the world and of a source of chance; `FAULTS` names them and says what each needs and allows.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import msgspec

from tests.server import wait_for
from tests.system.chaos.world import World

#: How long the load runs undisturbed before, between and after, in seconds.
CALM_S = 0.7
#: How long a sink misbehaves: past the first retries of a batch, and past the patience of an upload that waits.
SINK_S = 4.0
#: How long a stopped worker stands still.
STOP_S = 10.0
HOUR_US = 3600 * 1_000_000

Act = Callable[[World, random.Random], None]


class Fault(msgspec.Struct, frozen=True):
    """
    One kind of fault: `act` does it once.

    `settings` are those it needs; `is_draining` says that devices may be told `draining`; `needs_launcher` that plain
    gunicorn can't survive it. `hands` is who does it in a mixed run: two faults of one hand never overlap. `padding`
    makes events heavier by so many bytes.
    """

    name: str
    act: Act
    hand: str
    settings: dict[str, object] = {}
    is_draining: bool = False
    needs_launcher: bool = False
    padding: int = 0


def calm() -> None:
    """Let the load run."""
    time.sleep(CALM_S)


# -- processes that die


def kill_worker(world: World, chance: random.Random) -> None:
    """`kill -9` of a worker."""
    victim = chance.choice(world.worker_pids())
    world.kill_these([victim])
    world.await_whole(without=frozenset({victim}))


def kill_master(world: World, _: random.Random) -> None:
    """`kill -9` of gunicorn's master. Its workers see it and drain; a launcher starts another, else we do."""
    workers = world.worker_pids()
    if world.has_launcher:
        world.kill_these([world.master_pid()])
        world.await_whole(without=frozenset(workers))
        return
    with world.nobody_listens(queue_is_lost=True):
        world.kill_these([world.master_pid()])
        world.await_silence(workers)
        world.start_again()


def kill_launcher(world: World, _: random.Random) -> None:
    """`kill -9` of the launcher alone, and a start over the spool at once, while what it left goes by itself."""
    left = [pid for pid in world.family() if pid != world.pid]
    with world.nobody_listens(queue_is_lost=True):
        world.kill_these([world.pid])
        world.end()
        world.start_again()
    world.await_silence(left)


def kill_task(world: World, _: random.Random) -> None:
    """`kill -9` of everything at once, as when PID 1 of a container dies; then the next start over the spool."""
    with world.nobody_listens(queue_is_lost=True):
        world.kill_task()
        world.start_again()


def stop_worker(world: World, chance: random.Random) -> None:
    """A worker stands still for ten seconds, as on a machine that swaps or a process that is traced."""
    victim = chance.choice(world.worker_pids())
    os.kill(victim, signal.SIGSTOP)
    try:
        time.sleep(STOP_S)
    finally:
        os.kill(victim, signal.SIGCONT)


# -- reloads and restarts


def _reload(world: World, old: list[int]) -> None:
    world.signal(signal.SIGHUP)
    world.await_whole(without=frozenset(old))
    world.await_silence(old)


def hup(world: World, _: random.Random) -> None:
    """HUP with good new code; the names of objects show that it is the new code that works on."""
    generation = world.tree.renew()
    _reload(world, world.worker_pids())
    wait_for(partial(world.has_object, f".g{generation}."), f"an object of generation {generation}")


def hup_broken_code(world: World, _: random.Random) -> None:
    """HUP with code that does not load: what runs goes on, and the next HUP, with the code mended, works."""
    old = world.worker_pids()
    world.tree.break_code()
    try:
        _refused_reload(world, old)
    finally:
        world.tree.mend_code()
    _reload(world, old)


def hup_broken_config(world: World, _: random.Random) -> None:
    """HUP with a settings file that does not load: the settings that were in force stay so."""
    sound = world.config.read_text()
    old = world.worker_pids()
    world.config.write_text(sound + "\n[tenants.red\nkeys = 7\n")
    try:
        if world.has_launcher:
            _refused_reload(world, old)
        else:
            # Plain gunicorn starts new workers with the settings of the old ones.
            _reload(world, old)
    finally:
        world.config.write_text(sound)
    _reload(world, world.worker_pids())


def _refused_reload(world: World, old: list[int]) -> None:
    said = world.rejected_reloads()
    world.signal(signal.SIGHUP)
    wait_for(lambda: world.rejected_reloads() > said, "the reload to be refused in the log")
    calm()
    assert set(old) <= set(world.worker_pids()), "a reload that was refused took workers with it"


def hup_and_kill(world: World, chance: random.Random) -> None:
    """`kill -9` of a worker in the middle of a reload, old or new, at a moment that chance names."""
    old = world.worker_pids()
    world.signal(signal.SIGHUP)
    time.sleep(chance.uniform(0.1, 1.5))
    victim = chance.choice(world.worker_pids())
    world.kill_these([victim])
    world.await_whole(without=frozenset({*old, victim}))
    world.await_silence(old)


def term(world: World, _: random.Random) -> None:
    """TERM, an exit with 0, and start again; in between nobody listens."""
    _restart(world)


def _restart(world: World) -> None:
    with world.nobody_listens():
        world.signal(signal.SIGTERM)
        assert 0 == world.end(), f"it ended with another status than 0:\n{world.tail()}"
        world.start_again()


def term_in_hup(world: World, chance: random.Random) -> None:
    """TERM in the middle of a reload."""
    world.signal(signal.SIGHUP)
    time.sleep(chance.uniform(0.05, 1.0))
    _restart(world)


# -- destinations


@contextmanager
def _mode(world: World, mode: str) -> Iterator[None]:
    world.set_mode(mode)
    try:
        yield
    finally:
        world.set_mode("ok")


def sink_down(world: World, _: random.Random) -> None:
    """Every destination refuses, the `file:` sink too, whose directory is gone."""
    with _mode(world, "down"), world.files_away():
        time.sleep(SINK_S)


def sink_slow(world: World, _: random.Random) -> None:
    """Each write takes half a second."""
    with _mode(world, "slow"):
        time.sleep(SINK_S)


def sink_part(world: World, _: random.Random) -> None:
    """A third of each batch is given back."""
    with _mode(world, "part"):
        time.sleep(SINK_S)


def sink_hang(world: World, _: random.Random) -> None:
    """Writes do not come back."""
    with _mode(world, "hang"):
        time.sleep(SINK_S)


def sink_lost(world: World, _: random.Random) -> None:
    """Half of the writes are done and said to have failed."""
    with _mode(world, "lost"):
        time.sleep(SINK_S)


def sink_kill(world: World, chance: random.Random) -> None:
    """A worker dies while destinations give parts of batches back and lose their answers; the task dies likewise."""
    for mode in ("part", "lost"):
        with _mode(world, mode):
            calm()
            victim = chance.choice(world.worker_pids())
            world.kill_these([victim])
            world.await_whole(without=frozenset({victim}))
    with _mode(world, "part"):
        kill_task(world, chance)


def sink_hang_hup(world: World, _: random.Random) -> None:
    """A reload while writes do not come back: uploads that wait for them must be answered before the old ones go."""
    with _mode(world, "hang"):
        calm()
        _reload(world, world.worker_pids())


def rescue(world: World, _: random.Random) -> None:
    """Every destination is away for longer than batches wait, and the task is told to end before they are back."""
    with _mode(world, "down"), world.files_away():
        wait_for(lambda: world.ledger()["rescued"], "events to be rescued")
        _restart(world)
        time.sleep(SINK_S)


# -- the machine


def spool_full(world: World, _: random.Random) -> None:
    """The spool's budget is used up behind destinations that hang; devices are sent away until they go on."""
    with _mode(world, "hang"), world.files_away():
        wait_for(world.is_refusing, "uploads to be refused for want of room")
        time.sleep(SINK_S)


def clock(world: World, chance: random.Random) -> None:
    """The wall clock jumps ahead by hours and days and back before its start, with a death and a reload among it."""
    jumps = [HOUR_US, -2 * HOUR_US, 30 * 24 * HOUR_US, -24 * HOUR_US, 7_000_000, 0]
    for n, us in enumerate(jumps):
        world.tree.shift_clock(us)
        if n == 1:
            victim = chance.choice(world.worker_pids())
            world.kill_these([victim])
            world.await_whole(without=frozenset({victim}))
        elif n == 3:
            _reload(world, world.worker_pids())
        calm()


_RESCUE: dict[str, object] = {"rescue_sink": "file:rescue?fsync=0", "rescue_after_s": 1}
_SMALL_SPOOL: dict[str, object] = {"spool_bytes": 12 << 20, "segment_bytes": 1 << 20}

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("kill-worker", kill_worker, "process"),
        Fault("kill-master", kill_master, "process"),
        Fault("kill-launcher", kill_launcher, "process", needs_launcher=True),
        Fault("kill-task", kill_task, "process"),
        Fault("stop-worker", stop_worker, "process"),
        Fault("hup", hup, "process"),
        Fault("hup-broken-code", hup_broken_code, "process", needs_launcher=True),
        Fault("hup-broken-config", hup_broken_config, "process"),
        Fault("hup-and-kill", hup_and_kill, "process"),
        Fault("term", term, "process", is_draining=True),
        Fault("term-in-hup", term_in_hup, "process", is_draining=True),
        Fault("sink-down", sink_down, "sink"),
        Fault("sink-slow", sink_slow, "sink"),
        Fault("sink-part", sink_part, "sink"),
        Fault("sink-hang", sink_hang, "sink"),
        Fault("sink-lost", sink_lost, "sink"),
        Fault("sink-hang-hup", sink_hang_hup, "process"),
        Fault("sink-kill", sink_kill, "process"),
        Fault("rescue", rescue, "sink", settings=_RESCUE, is_draining=True),
        Fault("spool-full", spool_full, "sink", settings=_SMALL_SPOOL, padding=1000),
        Fault("clock", clock, "process"),
    )
}

"""Work in native threads: its outcome comes back, and what nobody waits for lets others go first."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import gevent
import pytest

from collector.receiver.threads import Backstage, off_hub

#: Only a failure takes so long.
PATIENCE_S = 30.0


def nice() -> int:
    """Return how far the calling thread stands back."""
    return os.getpriority(os.PRIO_PROCESS, 0)


def test_who_works_backstage_stands_back_and_the_loop_does_not() -> None:
    """Where there is one core, a thread that compresses takes it from uploads in slices of milliseconds."""
    mine = nice()
    backstage = Backstage(2)
    theirs = {backstage.run(lambda: (threading.get_native_id(), nice())) for _ in range(5)}
    ids = {native_id for native_id, _ in theirs}

    assert {min(19, mine + 10)} == {standing for _, standing in theirs}
    assert threading.get_native_id() not in ids
    assert mine == nice()


def test_threads_that_somebody_waits_for_do_not_stand_back() -> None:
    """They have threads of their own: once back, a thread may not come forward again."""
    mine = nice()
    backstage = Backstage(1)
    backstage.run(nice)

    assert {mine} == {off_hub(nice) for _ in range(5)}


@pytest.mark.parametrize("run", [Backstage(1).run, off_hub], ids=["backstage", "off the hub"])
def test_what_it_returns_or_raises_comes_back(
    run: Callable[[Callable[[], int]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A sink that refuses says so by what it raises, and gevent would print it and lose it."""

    def fail() -> int:
        raise ValueError("refused")

    assert 7 == run(lambda: 7)
    with pytest.raises(ValueError, match="refused"):
        run(fail)
    assert 8 == run(lambda: 8)
    assert "" == capsys.readouterr().err


def test_a_thread_that_may_not_stand_back_works_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may forbid the call; the events must go out nevertheless."""

    def refuse(*_: int) -> None:
        raise PermissionError("forbidden")

    monkeypatch.setattr(os, "setpriority", refuse)

    assert 7 == Backstage(1).run(lambda: 7)


def test_the_others_go_on_meanwhile() -> None:
    """That is what the thread is for."""
    go = threading.Event()
    worker = gevent.spawn(Backstage(1).run, lambda: go.wait(PATIENCE_S))
    gevent.sleep(0.01)
    before = worker.ready()
    go.set()

    assert not before
    assert worker.get(timeout=PATIENCE_S)


def test_no_more_work_at_once_than_there_are_threads() -> None:
    """Each of them holds a batch."""
    backstage = Backstage(2)
    inside, most, lock, go = 0, 0, threading.Lock(), threading.Event()

    def work() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        go.wait(PATIENCE_S)
        with lock:
            inside -= 1

    workers = [gevent.spawn(backstage.run, work) for _ in range(5)]
    gevent.sleep(0.05)
    go.set()
    gevent.joinall(workers, timeout=PATIENCE_S, raise_error=True)

    assert all(worker.ready() for worker in workers)
    assert 2 == most

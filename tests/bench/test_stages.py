"""Which stage a stack belongs to, and how an upload's cost is spread over the stages."""

from __future__ import annotations

import importlib
import inspect

import pytest

from bench.stages import OTHER, STAGES, Stack, spread, stacks_of, stage_of

RUN = "Connection.run (collector/receiver/connection.py:67)"
NEXT = "Connection._next (collector/receiver/connection.py:101)"
TAKE = "_take (collector/receiver/upload.py:217)"
KNOWN = [(stage, known) for stage in STAGES for known in stage.known]


def stage(*frames: str) -> str:
    return stage_of(frames).short


@pytest.mark.parametrize("known", [known for _, known in KNOWN])
def test_what_a_stage_knows_is_in_the_code(known: str) -> None:
    """A function that gets another name would move its time to another stage, and the picture would lie in silence."""
    module, _, function = known.partition(":")
    found: object = importlib.import_module(module)
    for name in function.split(".") if function else ():
        found = inspect.getattr_static(found, name)

    # A name that is only imported there is another file's in a stack.
    assert module == getattr(inspect.unwrap(getattr(found, "fget", None) or found), "__module__", module)  # type: ignore[arg-type]  # whatever it is


def test_nothing_belongs_to_two_stages() -> None:
    """The shares would depend on the order of a table."""
    names = [known for _, known in KNOWN]

    assert len(names) == len(set(names))
    assert len(STAGES) == len({one.name for one in STAGES}) == len({one.short for one in STAGES})
    assert len(STAGES) == len({one.colour for one in STAGES})


@pytest.mark.parametrize(
    ("expected", "frames"),
    [
        ("parse", [RUN, NEXT]),
        ("parse", [RUN, NEXT, "HotDoor.look (collector/receiver/hot.py:84)"]),
        ("send", [RUN, NEXT, "Out.pay (collector/receiver/outbox.py:60)"]),
        # Another method of the same module, and another function of the same class.
        ("render", [RUN, NEXT, "HotDoor.render (collector/receiver/hot.py:149)"]),
        ("split", [RUN, TAKE, "Native.decode (collector/protocols/native.py:119)"]),
        ("render", [RUN, TAKE, "Native.render (collector/protocols/native.py:131)"]),
        # The clock has no stage, nor has the standard library: who calls them pays.
        ("quota", [TAKE, "Quota.take (collector/admission/quota.py:95)", "SystemClock.now_us (collector/clock.py:30)"]),
        ("each second", ["Runtime.tick (collector/receiver/runtime.py:195)", "Path.read_text (pathlib.py:1059)"]),
        # Two functions of one module.
        ("compress, write", ["_Outcome.__init__ (collector/bootstrap.py:195)", "write (collector/delivery/job.py:60)"]),
        ("flusher: cut", ["Lane.next_job (collector/delivery/lane.py:95)", "gather (collector/delivery/job.py:50)"]),
        ("append", [TAKE, "Segment.append (collector/buffer/segment.py:155)", "parts (collector/buffer/frame.py:65)"]),
        ("flusher: cut", ["Segment.load (collector/buffer/segment.py:198)", "frames (collector/buffer/frame.py:78)"]),
        ("read", ["Hub.run (gevent/hub.py:647)"]),
        ("turns", ["Hub.run (gevent/hub.py:647)", "Turns._slice (collector/receiver/turns.py:90)"]),
    ],
)  # fmt: skip
def test_a_stack_belongs_to_its_innermost_frame_that_is_known(expected: str, frames: list[str]) -> None:
    """Whoever is further out only called it, and whoever is further in works for it."""
    assert expected == stage(*frames)


@pytest.mark.parametrize("frames", [[], ["main (somebody/elses.py:1)"], ["no frame at all"], ["look (hot.py:84)"]])
def test_a_stack_that_nobody_knows_is_told_as_other(frames: list[str]) -> None:
    """Left out, it would make every stage larger than it is."""
    assert OTHER.short == stage(*frames)


def test_threads_that_wait_for_work_are_left_out() -> None:
    """The sampler takes them for busy ones, and an idle pool would be half of the picture."""
    waits = "_WorkerGreenlet.run (gevent/threadpool.py:216);acquire_with_timeout (gevent/_threading.py:36)"
    folded = f"thread (11);{RUN};{NEXT} 7\nthread (12);{waits} 236\nthread (13) 2\n"

    assert [Stack(11, (RUN, NEXT), 7), Stack(13, (), 2)] == stacks_of(folded)


def test_the_stages_add_up_to_what_an_upload_costs() -> None:
    """A bar whose parts are not the whole says nothing."""
    send = (NEXT, "Out.pay (collector/receiver/outbox.py:60)")
    write = ("LocalSink.write (collector/sinks/local.py:127)",)
    stacks = [Stack(1, (NEXT,), 30), Stack(1, send, 10), Stack(2, write, 500)]

    us = spread(stacks, {True: 200.0, False: 50.0}, main=1)

    # However often another thread was met, it is worth what it used.
    expected = {"parse": 150.0, "send": 50.0, "compress, write": 50.0}
    assert expected == {one.short: us[one.name] for one in STAGES if us[one.name]}
    assert list(us) == [one.name for one in STAGES]
    assert 250.0 == pytest.approx(sum(us.values()))


def test_time_of_which_there_is_no_sample_is_told_as_other() -> None:
    """A thread that was never met has used its time all the same."""
    us = spread([Stack(1, (NEXT,), 3)], {True: 90.0, False: 10.0}, main=1)

    assert 10.0 == us[OTHER.name]
    assert 100.0 == pytest.approx(sum(us.values()))

"""`collector replay`: what was rescued arrives once, whoever dies, and what can't is named."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner, Result

from collector import cli
from collector.cli import replay as replay_module
from collector.delivery.replayer import Replayer
from collector.delivery.rescue import replay
from collector.errors import TransientSinkError
from collector.event import Batch
from collector.outcome import Outcome, Reason, Receipt
from collector.settings import Settings
from collector.sinks.base import Limits, Sink
from collector.sinks.local import LocalSink, Options
from collector.sinks.local_source import LocalSource, LocalStored
from collector.sinks.objects import LIMITS
from collector.sinks.registry import open_rescue_sink
from tests.fakes import FakeClock, RecordingSignals, ScriptedSink, batch
from tests.server import Server, wait_for

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLLECTOR_SPOOL_DIR", f"/dev/shm/collector-test-{os.getpid()}")


def run(*arguments: str, **variables: str) -> Result:
    environ = {f"COLLECTOR_{name}": value for name, value in variables.items()}
    return CliRunner().invoke(cli.main, ["replay", *arguments], env=environ)


def rescue(*batches: Batch, route: str = "default", place: str = "file:rescue?fsync=0") -> None:
    sink = open_rescue_sink(place, route=route, writer_id="w1")
    sink.start()
    for one in batches:
        sink.write(one)


def numbered(count: int, *, events: int = 3) -> list[Batch]:
    return [batch(*(b'{"id":"%d-%d"}' % (n, k) for k in range(events)), name=f"w1-{n:08d}") for n in range(count)]


def objects(folder: Path) -> dict[str, list[bytes]]:
    """Return the lines of every object below a folder, by the object's path in it; a replay may empty it meanwhile."""
    found: dict[str, list[bytes]] = {}
    # Unlike `rglob`, it goes on where a folder has vanished.
    for below, _, names in os.walk(folder):
        for path in (Path(below, name) for name in names if name.endswith(".ndjson.zst")):
            with suppress(FileNotFoundError):
                lines = zstandard.ZstdDecompressor().decompress(path.read_bytes()).splitlines()
                found[str(path.relative_to(folder))] = lines
    return found


def arrived(folder: Path) -> Counter[bytes]:
    return Counter(line for lines in objects(folder).values() for line in lines)


# -- the command --------------------------------------------------------------------------------------------------


def test_what_was_rescued_is_sent_to_the_sink_of_its_route_under_its_name(tmp_path: Path) -> None:
    """That is where its consumers look for it."""
    (tmp_path / "c.toml").write_text('[routes.archive]\nsink = "file:archive"\n[routes.other]\nsink = "file:other"\n')
    rescue(*numbered(3))
    rescue(batch(b"a", name="w2-1", tenant_id="acme"), route="archive")

    result = run(CONFIG="c.toml", SINK="file:data", RESCUE_SINK="file:rescue")

    assert (0, "") == (result.exit_code, result.stderr)
    assert "found 10, delivered 10, rejected 0, left 0\n" == result.stdout
    hour = "date=2026-01-02/hour=03"
    assert {f"tenant=dev/{hour}/w1-{n:08d}.ndjson.zst" for n in range(3)} == set(objects(tmp_path / "data"))
    assert {f"tenant=acme/{hour}/w2-1.ndjson.zst": [b"a"]} == objects(tmp_path / "archive")
    assert {} == objects(tmp_path / "rescue")
    assert "found 0, delivered 0, rejected 0, left 0\n" == run(RESCUE_SINK="file:rescue").stdout


def test_a_batch_that_its_sink_kept_before_it_was_rescued_is_there_once(tmp_path: Path) -> None:
    """A timeout is no refusal: an outage often begins with writes that arrived and were not confirmed."""
    kept, *_ = rescued = numbered(2)
    LocalSink(tmp_path / "data", clock=FakeClock()).write(kept)
    rescue(*rescued)

    run("file:rescue")

    assert {1} == set(arrived(tmp_path / "data").values())


def test_without_a_place_to_read_it_says_what_to_write() -> None:
    """It is run in the middle of the night."""
    nowhere, stdout, typo = run(), run("stdout:"), run("file:recsue")

    assert [1, 1, 1] == [one.exit_code for one in (nowhere, stdout, typo)]
    assert "there is no rescue sink: name one, for example file:rescue, or set COLLECTOR_RESCUE_SINK" in nowhere.stderr
    assert "'stdout:' can't be read back" in stdout.stderr
    assert "recsue can't be looked into: No such file or directory" in typo.stderr


def test_a_dry_run_shows_what_there_is_and_sends_nothing(tmp_path: Path) -> None:
    """Before two million events go to a sink that has just come up again, somebody wants to know."""
    rescue(*numbered(3))
    rescue(batch(b"a"), route="gone")
    before = objects(tmp_path / "rescue")

    result = run("file:rescue", "--dry-run")

    assert 0 == result.exit_code
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["default", "3", "9", "117", "B"] in rows
    assert ["gone", "1", "1", "2", "B"] in rows
    assert before == objects(tmp_path / "rescue")
    assert not (tmp_path / "data").exists()


def test_a_route_that_the_settings_no_longer_name_goes_by_the_default_one(tmp_path: Path) -> None:
    """As it does from the spool; and it is said, for the consumers of that route look elsewhere."""
    rescue(batch(b"a", name="n1"), route="gone")

    result = run("file:rescue")

    assert 0 == result.exit_code
    assert "route gone: the settings do not name it; its batches go by the route default" in result.stderr
    assert {b"a": 1} == arrived(tmp_path / "data")


def test_files_that_can_not_be_read_back_are_named_and_left_and_the_others_arrive(tmp_path: Path) -> None:
    """One bad file must not hold up the rest, nor be taken for delivered."""
    rescue(*numbered(3))
    torn = next((tmp_path / "rescue").rglob("w1-00000001.*"))
    torn.write_bytes(torn.read_bytes()[:-3])

    result = run("file:rescue")

    assert 1 == result.exit_code
    assert f"{torn} can't be read back" in result.stderr
    assert "found 6, delivered 6, rejected 0, left 0\n" == result.stdout
    assert torn.exists()
    assert 1 == run("file:rescue", "--dry-run").exit_code


def test_a_sink_that_is_down_leaves_everything_and_is_not_asked_for_each_batch(tmp_path: Path) -> None:
    """The trouble is said once; the count says how much waits."""
    rescue(*numbered(9))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/tenant=dev").write_text("in the way")

    result = run("file:rescue")

    assert 1 == result.exit_code
    assert "found 27, delivered 0, rejected 0, left 27\n" == result.stdout
    said = result.stderr.splitlines()
    assert 4 == len(said)
    assert "a file lies where a directory should be; move it away" in said[0]
    (tmp_path / "data/tenant=dev").unlink()
    assert "found 27, delivered 27, rejected 0, left 0\n" == run("file:rescue").stdout


def test_a_sink_that_does_not_even_start_leaves_everything(tmp_path: Path) -> None:
    """It is told as any other trouble, with the count of what waits."""
    rescue(*numbered(2))
    (tmp_path / "data").write_text("in the way")

    result = run("file:rescue")

    assert (1, "found 6, delivered 0, rejected 0, left 6\n") == (result.exit_code, result.stdout)
    assert "in the way" == (tmp_path / "data").read_text()


@pytest.mark.parametrize(("is_gone", "left"), [(True, 0), (False, 3)])
def test_a_removal_whose_answer_was_lost_is_looked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_gone: bool, left: int
) -> None:
    """A batch that is gone nobody meets again: taken for left, it would be so for ever, in the ledger, too."""
    rescue(*numbered(1))
    keep = LocalStored.keep

    def lose_the_answer(self: LocalStored, rest: Batch | None) -> None:
        if is_gone:
            keep(self, rest)
        raise TransientSinkError("no answer")

    monkeypatch.setattr(LocalStored, "keep", lose_the_answer)

    assert f"found 3, delivered {3 - left}, rejected 0, left {left}\n" == run("file:rescue").stdout


def test_two_replays_at_once_are_kept_apart(tmp_path: Path) -> None:
    """Each event would go twice to a sink that does not name what it writes."""
    rescue(*numbered(2))
    lock = os.open(tmp_path / "rescue/route=default/.replay.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    result = run("file:rescue")
    os.close(lock)

    assert 1 == result.exit_code
    assert "another replay is at work on it" in result.stderr
    assert not (tmp_path / "data").exists()
    assert 0 == run("file:rescue").exit_code


def scripted(monkeypatch: pytest.MonkeyPatch, sink: Sink) -> None:
    monkeypatch.setattr(replay_module, "open_sink", lambda *_, **__: sink)


def test_a_partial_receipt_leaves_exactly_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream throttles record by record: what it took must not go twice, what it did not, not be lost."""
    sink = ScriptedSink()
    scripted(monkeypatch, sink)
    sink.retry(0, 3)
    rescue(batch(b"0", b"1", b"2", b"3", name="n1"), batch(b"4", name="n2"))

    first = run("file:rescue")

    assert (1, "found 5, delivered 3, rejected 0, left 2\n") == (first.exit_code, first.stdout)
    assert {b"0": 1, b"3": 1} == arrived(tmp_path / "rescue")
    second = run("file:rescue")
    assert (0, "found 2, delivered 2, rejected 0, left 0\n") == (second.exit_code, second.stdout)
    assert [b"1", b"2", b"4", b"0", b"3"] == sink.lines


def test_what_its_sink_refuses_for_good_is_told_and_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the spool it would be counted in the ledger; here it is the only copy of an event that was acknowledged."""
    sink = ScriptedSink(limits=Limits(max_events=100, max_bytes=100, max_event_bytes=40, partitioned=True))
    scripted(monkeypatch, sink)
    sink.reject(1)
    rescue(batch(b"0", b"bad", b"2", name="n1"), batch(b"a", b"x" * 50, b"b", name="n2"))

    result = run("file:rescue")

    assert (0, "found 6, delivered 4, rejected 2, left 0\n") == (result.exit_code, result.stdout)
    assert "n1: its sink refuses 1 events for good (sink_invalid); they are now in" in result.stderr
    assert "n2: its sink refuses 1 events for good (sink_too_large)" in result.stderr
    assert [b"0", b"2", b"a", b"b"] == sink.lines
    parked = tmp_path / "rescue/parked"
    assert {b"bad": 1} == arrived(parked / "reason=sink_invalid/route=default")
    assert {b"x" * 50: 1} == arrived(parked / "reason=sink_too_large/route=default")
    # They are out of the way of the next one.
    assert "found 0, delivered 0, rejected 0, left 0\n" == run("file:rescue").stdout


def test_a_batch_larger_than_its_sink_takes_now_goes_in_parts_with_names_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings changed meanwhile. No part may be written over another, in this replay or the next."""
    sink = ScriptedSink(limits=Limits(max_events=2, max_bytes=100, max_event_bytes=40, partitioned=True))
    scripted(monkeypatch, sink)
    lines = [b"%d" % n for n in range(7)]
    rescue(batch(*lines, name="n1"))
    real, calls = sink.write, Counter[str]()

    def third_fails(one: Batch) -> Receipt:
        calls["write"] += 1
        if calls["write"] == 3:
            sink.fail()
        return real(one)

    monkeypatch.setattr(sink, "write", third_fails)
    assert "found 7, delivered 4, rejected 0, left 3\n" == run("file:rescue").stdout
    assert "found 3, delivered 3, rejected 0, left 0\n" == run("file:rescue").stdout

    assert sorted(lines) == sorted(line for kept in sink.objects.values() for line in kept)
    assert lines == sink.lines


def test_the_places_of_what_is_left_are_those_in_the_whole_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part counts its lines from 0; to keep others than those that were not taken is to lose some."""
    sink = ScriptedSink(limits=Limits(max_events=3, max_bytes=100, max_event_bytes=40, partitioned=True))
    scripted(monkeypatch, sink)
    sink.retry()
    sink.retry(1)
    rescue(batch(*(b"%d" % n for n in range(8)), name="n1"))

    assert "found 8, delivered 5, rejected 0, left 3\n" == run("file:rescue").stdout
    assert {b"4": 1, b"6": 1, b"7": 1} == arrived(tmp_path / "rescue")


def test_a_receipt_that_does_not_add_up_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink with a defect is no reason to let go of anything."""
    sink = ScriptedSink()
    scripted(monkeypatch, sink)
    sink.answer(Receipt(7))
    sink.crash(RuntimeError("a defect"))
    rescue(batch(b"1", name="n1"), batch(b"2", name="n2"))

    result = run("file:rescue")

    assert (1, "found 2, delivered 0, rejected 0, left 2\n") == (result.exit_code, result.stdout)
    assert "RuntimeError: a defect" in result.stderr
    assert {b"1": 1, b"2": 1} == arrived(tmp_path / "rescue")


# -- in a worker ----------------------------------------------------------------------------------------------------


class World:
    """A replayer whose passes run at once."""

    def __init__(self, folder: Path, signals: RecordingSignals, **sinks: Sink) -> None:
        self.signals = signals
        self.rested: list[float] = []
        self.replayer = Replayer(
            LocalSource(folder, clock=FakeClock()),
            sinks,
            signals=signals,
            spawn=lambda run: run(),
            rest=self.rest,
            offload=lambda run: run(),
        )

    def rest(self, seconds: float) -> None:
        self.rested.append(seconds)
        if len(self.rested) > 3:
            self.replayer.close()


def test_a_worker_sends_on_what_it_finds_and_says_so_once(tmp_path: Path, signals: RecordingSignals) -> None:
    """Nobody has to remember an outage of last night; nothing to do is nothing to say."""
    sink, other = ScriptedSink(), ScriptedSink()
    rescue(*numbered(2))
    rescue(batch(b"o"), route="other")
    rescue(batch(b"g"), route="gone")
    world = World(tmp_path / "rescue", signals, default=sink, other=other)

    world.replayer.run()

    assert 4 == len(world.rested)
    assert ([b"o"], 7) == (other.lines, len(sink.lines))
    assert {} == arrived(tmp_path / "rescue")
    said = signals.named("replay_done")
    assert [1, 1, 6] == sorted(one["delivered"] for one in said)
    assert [] == signals.named("internal_error")


def test_a_worker_whose_sink_is_down_tries_it_with_few_batches_and_never_loses_one(
    tmp_path: Path, signals: RecordingSignals
) -> None:
    """A timeout each for a million batches would take the thread for days."""
    sink = ScriptedSink()
    sink.fail(3)
    rescue(*numbered(9))
    world = World(tmp_path / "rescue", signals, default=sink)

    world.replayer.tick()
    assert 3 == len(sink.written)
    assert [] == signals.named("replay_done")
    assert 3 == len(signals.named("batch_failed"))
    world.replayer.tick()

    assert {1} == set(Counter(sink.lines).values())
    assert 27 == len(sink.lines)


def test_one_batch_that_its_sink_chokes_on_does_not_keep_those_behind_it(
    tmp_path: Path, signals: RecordingSignals
) -> None:
    """Batches are met in the same order each time."""
    sink = ScriptedSink()
    sink.fail()
    rescue(*numbered(4))
    world = World(tmp_path / "rescue", signals, default=sink)

    world.replayer.tick()

    assert 9 == len(sink.lines)


def test_a_worker_tells_an_unreadable_file_once_and_what_was_refused_by_tenant(
    tmp_path: Path, signals: RecordingSignals
) -> None:
    """Every half minute the same line would hide the others."""
    sink = ScriptedSink()
    sink.reject(0, 2)
    rescue(*numbered(2))
    torn = next((tmp_path / "rescue").rglob("w1-00000000.*"))
    torn.write_bytes(b"torn")
    world = World(tmp_path / "rescue", signals, default=sink)

    world.replayer.tick()
    world.replayer.tick()

    assert [str(torn)] == [one["place"] for one in signals.named("rescue_unreadable")]
    (lost,) = signals.named("events_lost")
    assert ("dev", Outcome.REJECTED_BY_SINK, Reason.SINK_INVALID, 2) == (
        lost["tenant_id"], lost["outcome"], lost["reason"], lost["count"],
    )  # fmt: skip
    assert [(3, 1, 2, 0)] == [tuple(one.values()) for one in signals.named("replay_done")]


def test_a_worker_that_leaves_begins_no_further_batch(tmp_path: Path, signals: RecordingSignals) -> None:
    """Its drain has a deadline, and what is rescued is safe."""
    sink = ScriptedSink()
    rescue(*numbered(5))
    world = World(tmp_path / "rescue", signals, default=sink)
    real = sink.write

    def write(batch: Batch) -> Receipt:
        world.replayer.close()
        return real(batch)

    sink.write = write  # type: ignore[method-assign]
    world.replayer.tick()

    assert 1 == len(sink.written)


def test_workers_do_not_share_a_route(tmp_path: Path, signals: RecordingSignals) -> None:
    """The second finds the lock taken, and comes again later."""
    sink = ScriptedSink()
    rescue(*numbered(2))
    world = World(tmp_path / "rescue", signals, default=sink)
    with LocalSource(tmp_path / "rescue", clock=FakeClock()).exclusive("default"):
        world.replayer.tick()
        assert not sink.written
    world.replayer.tick()

    assert 2 == len(sink.written)


# -- killed -----------------------------------------------------------------------------------------------------------

NURSERY = """
import fcntl, itertools, os, signal, sys
from pathlib import Path
from tests.test_replay import a_part_at_a_time, by_command

def die_at(step):
    count = itertools.count()
    def mortal(call, is_write=False):
        def instead(*args, **kwargs):
            if next(count) == step:
                if is_write:
                    call(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)
        return instead
    for owner, name in ((os, "open"), (os, "fsync"), (os, "ftruncate"), (os, "close"), (fcntl, "flock"),
                        (Path, "rename"), (Path, "mkdir"), (Path, "unlink"), (Path, "rmdir"), (Path, "stat")):
        setattr(owner, name, mortal(getattr(owner, name)))
    os.write = mortal(os.write, is_write=True)

for line in sys.stdin:
    how, directory, step = line.rstrip("\\n").split("\\t")
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.chdir(directory)
            os.dup2(os.open("/dev/null", os.O_RDWR), 1)
            os.dup2(1, 2)
            die_at(int(step))
            code = {"command": by_command, "parts": a_part_at_a_time}[how]()
        finally:
            os._exit(code)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def by_command() -> int:
    """Run the command as the shell does, in this process; return how it ends."""
    try:
        os.environ["COLLECTOR_SINK"] = "file:data?fsync=0"
        cli.main(["replay", "file:rescue?fsync=0"])
    except SystemExit as end:
        return int(str(end.code or 0))
    return 0


class Halving:
    """A sink that refuses lines that say `bad` and takes the first half of the others, down to the last one."""

    limits = LIMITS["tenant"]
    blocking = True

    def __init__(self, directory: Path) -> None:
        self._sink = LocalSink(directory, clock=FakeClock(), fsync=False)

    def start(self) -> None:
        self._sink.start()

    def close(self) -> None:
        pass

    def write(self, one: Batch) -> Receipt:
        bad = [n for n, line in enumerate(one.lines()) if b"bad" in line]
        good = [n for n in range(len(one)) if n not in bad]
        taken, left = good[: (len(good) + 1) // 2], good[(len(good) + 1) // 2 :]
        lines = [one.lines()[n] for n in taken]
        # As a stream does it, each write is a record of its own.
        if lines:
            self._sink.write(batch(*lines, name=f"{one.name}-{os.urandom(8).hex()}"))
        return Receipt(len(taken), retryable=tuple(left), rejected=tuple((n, Reason.SINK_INVALID) for n in bad))


def a_part_at_a_time() -> int:
    """Replay to a sink that takes parts, until nothing is left; return 0."""
    source = LocalSource("rescue", clock=FakeClock(), options=Options(fsync=False))
    sink = Halving(Path("data"))
    with source.exclusive("default") as is_mine:
        while is_mine and sum(one.found for one in replay(source, "default", sink)) > 0:
            pass
    return 0 if is_mine else 1


class Nursery:
    """Forks replays that die at a step of their own, and tells how they ended."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def replay(self, how: str, directory: Path, step: int) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{how}\t{directory}\t{step}\n")
        said = self._process.stdout.readline()
        assert said.startswith("ended "), "the nursery died"
        return int(said.split()[1])

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(name="nursery", scope="module")
def _nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


def killed_at_its_steps(nursery: Nursery, how: str, root: Path, check: Callable[[Path], None], *, each: int) -> int:
    """Kill a replay before each n-th of its steps, let another one finish, check; return the number of kills."""
    for kills, step in enumerate(range(0, 2000, each)):
        folder = root / f"{how}-{step}"
        folder.mkdir()
        rescue(*numbered(2), batch(b"good", b"bad", b"fine", name="w2-1"), place=f"file:{folder}/rescue?fsync=0")
        rescue(batch(b"o", name="w3-1"), place=f"file:{folder}/rescue?fsync=0")
        ended = nursery.replay(how, folder, step)
        finished = nursery.replay(how, folder, -1)
        assert 0 == finished
        check(folder)
        if ended == 0:
            return kills
        assert -signal.SIGKILL == ended
    raise AssertionError("it never ended by itself")


EVERYTHING = {b'{"id":"%d-%d"}' % (n, k) for n in range(2) for k in range(3)} | {b"good", b"bad", b"fine", b"o"}


def test_a_replay_killed_before_any_of_its_steps_loses_nothing_and_sends_nothing_twice(
    nursery: Nursery, root: Path
) -> None:
    """Between its sink's confirmation and the removal it lies in both places: the name makes that one."""

    def check(folder: Path) -> None:
        assert dict.fromkeys(EVERYTHING, 1) == arrived(folder / "data")
        assert {} == arrived(folder / "rescue")

    assert killed_at_its_steps(nursery, "command", root, check, each=1) > 50


def test_a_replay_killed_between_the_parts_of_a_batch_loses_nothing(nursery: Nursery, root: Path) -> None:
    """To a stream one part may go twice, the one that was confirmed and not yet taken away; never none of it."""

    def check(folder: Path) -> None:
        found = arrived(folder / "data")
        assert EVERYTHING - {b"bad"} == set(found)
        assert max(found.values()) <= 2
        assert {b"bad": 1} == arrived(folder / "rescue")
        assert {} == arrived(folder / "rescue/route=default")

    # Its steps are the same for each part, so some of them do.
    assert killed_at_its_steps(nursery, "parts", root, check, each=3) > 25


def test_the_program_killed_at_random_instants_delivers_everything_once_at_last(tmp_path: Path) -> None:
    """The real program, as an operator starts it, twice at once and killed in between."""
    rng = random.Random(7)
    rescue(*numbered(30, events=50))
    expected = {line for one in numbered(30, events=50) for line in one.lines()}
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLLECTOR_SINK": "file:data?fsync=0"}
    command = [sys.executable, "-m", "collector", "replay", "file:rescue?fsync=0"]
    endings = []
    for _ in range(5):
        before = len(list((tmp_path / "data").rglob("*.zst"))) if (tmp_path / "data").exists() else 0
        one = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        goal = before + rng.randrange(1, 5)
        while one.poll() is None and len(list((tmp_path / "data").rglob("*.zst"))) < goal:
            pass
        one.kill()
        endings.append(one.wait())
        if endings[-1] == 0:
            break
    last = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    assert -signal.SIGKILL in endings
    assert (0, "") == (last.returncode, last.stderr)
    assert "left 0\n" in last.stdout
    assert dict.fromkeys(expected, 1) == arrived(tmp_path / "data")
    assert {} == arrived(tmp_path / "rescue")


# -- the whole server -------------------------------------------------------------------------------------------------


def uploaded(server: Server, first: int, last: int) -> list[str]:
    for n in range(first, last):
        assert 200 == server.post([{"id": str(n)}]).status
    return [str(n) for n in range(first, last)]


def test_a_stop_while_the_sink_is_down_rescues_what_is_left_and_a_replay_brings_it_home(tmp_path: Path) -> None:
    """The task's memory goes with the task; the rescue sink does not."""
    with Server(tmp_path, workers=2, rescue_sink=f"file:{tmp_path}/rescue", drain_s=3) as server:
        kept = uploaded(server, 0, 20)
        server.settled()
        (tmp_path / "data").rename(tmp_path / "aside")
        (tmp_path / "data").write_text("in the way")
        kept += uploaded(server, 20, 60)
        # A reload is no end: the next generation goes on with the spool.
        server.signal(signal.SIGHUP)
        wait_for(lambda: len(server.logged("drain.done")) == 2, "the first generation to end")
        assert [0, 0] == [line["rescued"] for line in server.logged("drain.done")]
        assert 0 == server.stop()
        *_, one, other, task = server.logged("drain.done")
        workers = [one, other]
        assert ["worker", "worker", "task"] == [line["scope"] for line in (one, other, task)]
        (tmp_path / "data").unlink()
        (tmp_path / "aside").rename(tmp_path / "data")

        assert {"accepted": 60, "delivered": 20, "rescued": 40, "left": 0}.items() <= task.items()
        # What they took over from the first generation, and settled, is in the task's books and in nobody's own.
        assert [0, 0] == [line["left"] for line in workers]
        assert 40 == arrived(tmp_path / "rescue").total()

        said = subprocess.run(
            [sys.executable, "-m", "collector", "replay"],
            env={**server._env},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (0, "found 40, delivered 40, rejected 0, left 0\n") == (said.returncode, said.stdout)
        assert sorted(kept) == sorted(event["id"] for event in server.events())


def test_a_server_whose_sink_fails_for_long_rescues_and_the_next_start_brings_it_home(tmp_path: Path) -> None:
    """Nobody has to type anything: the next start picks up what it finds."""
    place = tmp_path / "rescue"
    (tmp_path / "data").write_text("in the way")
    with Server(tmp_path, rescue_sink=f"file:{place}?fsync=0", rescue_after_s=0.5) as server:
        kept = uploaded(server, 0, 30)
        wait_for(lambda: server.ledger()["rescued"] == 30, "the rescue")
        confirmed = server.post([{"id": "30"}], "Collector-Ack: sink")
        ledger = server.ledger()
        (tmp_path / "data").unlink()
        assert 0 == server.stop()
        server.start()
        wait_for(lambda: not arrived(place) and server.logged("replay.done"), "the replay")
        (line,) = [one for one in json.loads(json.dumps(server.log)) if one["event"] == "replay.done"]

        assert (200, "sink") == (confirmed.status, confirmed.json["ack"])
        assert (True, 0) == (ledger["balanced"], ledger["pending"])
        assert (31, 31, 0) == (line["found"], line["delivered"], line["left"])
        assert sorted([*kept, "30"]) == sorted(event["id"] for event in server.events())
        # Rescued until they are sent on, in the books of a spool that two starts shared.
        assert (31, 0) == (ledger["rescued"], ledger["delivered"])
        assert {"accepted": 31, "rescued": 0, "delivered": 31, "balanced": True}.items() <= server.settled().items()
        assert b'collector_replayed_events_total{outcome="delivered"} 31' in server.admin("/metrics").body


def test_the_settings_know_when_a_rescue_sink_is_none(tmp_path: Path) -> None:
    """One that fails with the sink of any route, or that nobody can read again, should surprise nobody."""
    (tmp_path / "c.toml").write_text('[routes.archive]\nsink = "file:archive?level=3"\n')

    def check(**variables: str) -> Result:
        environ = {f"COLLECTOR_{name}": value for name, value in variables.items()}
        return CliRunner().invoke(cli.main, ["check"], env=environ)

    same = check(CONFIG="c.toml", RESCUE_SINK="file:archive/")
    unread = check(RESCUE_SINK="stdout:")
    good = check(RESCUE_SINK="file:rescue")

    assert [1, 0, 0] == [same.exit_code, unread.exit_code, good.exit_code]
    assert "COLLECTOR_RESCUE_SINK: is the same as the sink of [routes.archive]" in same.stderr
    assert "COLLECTOR_RESCUE_SINK is stdout:, and no replay can send on what went there" in unread.stdout
    assert "RESCUE_SINK is" not in good.stdout


def test_it_has_the_default_of_the_settings() -> None:
    """A minute of trouble is an outage; less is a restart of something."""
    assert (60.0, None) == (Settings().rescue_after_s, Settings().rescue_sink)

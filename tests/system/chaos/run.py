"""One attack: a task, its load, faults, and the oracle's finding."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import zstandard

from tests.server import ROOT
from tests.system.chaos.diary import Diary
from tests.system.chaos.faults import FAULTS, Fault, calm
from tests.system.chaos.load import Device, Plan
from tests.system.chaos.oracle import Evidence, Finding, Found, judge
from tests.system.chaos.world import CUSTOMERS, HERE, ROUTES, Target, World

#: Devices of each tenant: one opens a connection for each upload, one rests between uploads, the others do not.
DEVICES = 4
REST_S = 0.05
#: How long the devices may take to bring their uploads to an end, in seconds; a little more than they take themselves.
LAST_S = 90.0
#: What the log may not say, whatever is done to the task.
TROUBLE = ("internal.error", "ledger.imbalance", "events.lost")
#: What belongs to a fault and is no trouble: a sink that is away when a worker starts.
EXPECTED = ("sink.start",)


class Row(msgspec.Struct):
    """What became of one attack; `done` says how often each fault was done."""

    name: str
    done: dict[str, int]
    seconds: float
    uploads: int
    finding: Finding
    refusals: dict[str, int]
    acts: list[str]


class Loaders:
    """The load process; `end` returns its diary."""

    def __init__(self, world: World, *, seed: int, padding: int) -> None:
        self._file = world.folder / "diary.json"
        devices = [
            Device(
                name=f"{one.name}-{n}",
                tenant=one.name,
                key=one.key,
                fresh=n % DEVICES == 1,
                pause_s=REST_S if n % DEVICES == 3 else 0.0,
                padding=padding,
                ack_sink=one.ack == "sink",
            )
            for one in CUSTOMERS
            for n in range(DEVICES)
        ]
        plan = Plan(port=world.port, devices=devices, diary=str(self._file), seed=seed)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.chaos.load"],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        self._tell(msgspec.json.encode(plan))

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()

    def end(self) -> Diary:
        """Let the uploads under way come to their end, and return what the devices wrote down."""
        self._tell(b"end")
        assert 0 == self._process.wait(LAST_S), "the load died"
        return msgspec.json.decode(self._file.read_bytes(), type=Diary)

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


@contextmanager
def loaded(world: World, *, seed: int, padding: int) -> Iterator[Loaders]:
    """Load a world."""
    loaders = Loaders(world, seed=seed, padding=padding)
    try:
        yield loaders
    finally:
        loaders.kill()


def alone(fault: Fault, *, seed: int, times: int = 1, target: Target = HERE) -> Row:
    """Do one fault, so many times, to a task of its own at full load."""
    chance = random.Random(f"{seed} {fault.name}")

    def act(world: World) -> Counter[str]:
        for _ in range(times):
            _do(fault, world, chance)
            world.await_whole()
            calm()
        return Counter({fault.name: times})

    return _attack([fault], act, seed=seed, target=target)


def mixed(faults: Sequence[Fault], *, seed: int, seconds: float, target: Target = HERE) -> Row:
    """
    Do faults to one task, one of each hand at a time and all hands at once.

    Each hand goes through all of its own, in an order that the seed gives, and begins anew until the time is over.
    """
    faults = [fault for fault in faults if not fault.settings]
    done: Counter[str] = Counter()
    broken: list[BaseException] = []

    def work(world: World, own: list[Fault], until: float) -> None:
        chance = random.Random(f"{seed} {own[0].hand}")
        try:
            while not broken:
                for fault in chance.sample(own, len(own)):
                    _do(fault, world, chance)
                    done[fault.name] += 1
                if time.monotonic() >= until:
                    break
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            broken.append(error)

    def act(world: World) -> Counter[str]:
        until = time.monotonic() + seconds
        each = [[fault for fault in faults if fault.hand == hand] for hand in {fault.hand: None for fault in faults}]
        hands = [threading.Thread(target=work, args=(world, own, until), daemon=True) for own in each]
        for hand in hands:
            hand.start()
        for hand in hands:
            hand.join()
        if broken:
            raise broken[0]
        return done

    return _attack(faults, act, seed=seed, target=target)


def _do(fault: Fault, world: World, chance: random.Random) -> None:
    world.note(f"{fault.name} begins")
    fault.act(world, chance)
    world.note(f"{fault.name} is over")


def _attack(faults: Sequence[Fault], act: Callable[[World], Counter[str]], *, seed: int, target: Target) -> Row:
    is_alone = len(faults) == 1
    name, padding, settings = (faults[0].name, faults[0].padding, faults[0].settings) if is_alone else ("mixed", 0, {})
    with tempfile.TemporaryDirectory(prefix="collector-chaos-") as folder:
        started = time.monotonic()
        with World(Path(folder), target, workers=2, **settings) as world:
            with loaded(world, seed=seed, padding=padding) as loaders:
                calm()
                done = act(world)
                world.await_whole()
                calm()
                diary = loaders.end()
            ledger = world.settled()
            if "rescue_sink" in settings:
                assert 0 == world.stop(), world.tail()
                world.replay()
        finding = judge(
            Evidence(
                diary=diary,
                found=found(world),
                ledger=ledger,
                kills=world.kills,
                windows=world.windows,
                trouble=trouble(world),
                left=left(world),
                once=frozenset(one.name for one in CUSTOMERS if one.dedupe_window_s),
                draining_is_fine=any(fault.is_draining for fault in faults),
            )
        )
        if finding.broken:
            kept = Path(tempfile.gettempdir(), f"collector-chaos-{name}-{seed}.log")
            shutil.copy(world.folder / "output", kept)
            world.note(f"its log is kept as {kept}")
    uploads = sum(len(device.receipts) for device in diary.devices)
    return Row(name, dict(done), time.monotonic() - started, uploads, finding, diary.refusals, world.acts)


def found(world: World) -> Iterator[Found]:
    """Read every line of every sink."""
    for file in world.files():
        for line in _lines(file):
            yield Found(line)
    skew = time.time() - time.monotonic()
    for route in ROUTES:
        for file in world.objects(route):
            # <batch>.p<writer>.g<generation>.n<number>.<fate>.ndjson.zst
            *_, writer, _generation, _number, fate, _, _ = file.name.split(".")
            at = file.stat().st_mtime - skew
            for line in _lines(file):
                yield Found(line, writer=int(writer[1:]), fate=fate, at=at)


def _lines(file: Path) -> list[bytes]:
    text = zstandard.ZstdDecompressor().decompress(file.read_bytes())
    assert text.endswith(b"\n"), f"{file} does not end with a newline"
    return text[:-1].split(b"\n")


def trouble(world: World) -> list[str]:
    """List what the log should not say; gunicorn's own words too, where it met what it did not expect."""
    return [
        json.dumps(line)[:1500]
        for line in world.log
        if (line.get("event") in TROUBLE and line.get("where") not in EXPECTED)
        or (line.get("event") == "gunicorn" and "traceback" in line)
    ]


def left(world: World) -> dict[int, int]:
    """Tell which workers were out of time before all was delivered, and how many events each left."""
    return {
        int(line["pid"]): int(line["left"])
        for line in world.log
        if line.get("event") == "drain.done" and line.get("scope") == "worker" and line["left"]
    }


def chosen(names: Sequence[str]) -> list[Fault]:
    """Return the faults of these names; KeyError for one that there is not."""
    return [FAULTS[name] for name in names]

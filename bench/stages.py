"""
Where time can go on the way of an upload: a closed list of stages, and which functions belong to each.

A stack belongs to the stage of its innermost frame that is known; what it calls beyond, of Python or of a library, is
on that stage's account. So a name here is a function of ours, of gevent's loop, or of the floor, as the sampler writes
it; a whole module stands for those of its functions that are not named elsewhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec


class Stage(msgspec.Struct, frozen=True):
    """
    One of them: its name in the table, a shorter one for the picture, its colour, and what belongs to it.

    `known` are `module` or `module:function`, the latter with its class as in `Connection._next`.
    """

    name: str
    short: str
    colour: str
    known: tuple[str, ...]


def _names(module: str, functions: str) -> tuple[str, ...]:
    return tuple(f"{module}:{function}" for function in functions.split())


_CONNECTION, _LOBBY, _FLUSHER, _METRICS = (
    "collector.receiver.connection",
    "collector.receiver.lobby",
    "collector.delivery.flusher",
    "collector.telemetry.metrics",
)
_SEGMENT, _HOLDING, _SPOOL = "collector.buffer.segment", "collector.buffer.holding", "collector.buffer.spool"
_UPLOAD, _LEDGER, _SIGNALS = "collector.receiver.upload", "collector.telemetry.ledger", "collector.telemetry.signals"

#: In the order in which an upload meets them. The colours of what serves it are green and blue, those of what comes
#: after its answer brown and grey.
STAGES = (
    Stage("wait for the request and read it: recv, epoll, hub", "read", "#1d4e6f", (
        *_names(_CONNECTION, "Connection._await_request Connection._await_bytes Connection._read_body"),
        *_names(_CONNECTION, "Connection._note_wait"), *_names(_LOBBY, "Lobby._look Lobby.wait Lobby._know"),
        "collector.receiver.roster", "gevent.hub", "gevent.baseserver", "bench.floor:receive",
    )),
    Stage("look at the head and parse it", "parse", "#3f7ba3", (
        *_names(_CONNECTION, "Connection._next Connection._read_head"),
        "collector.receiver.lobby:Lobby._arrival", "collector.receiver.body",
        "collector.receiver.heads", "collector.receiver.shed:Shedder.judge", "collector.receiver.hot:HotDoor.look",
        "bench.floor:parse",
    )),
    Stage("take turns", "turns", "#86aecb", ("collector.receiver.turns",)),
    Stage("find the key and its tenant", "key", "#14532d", (
        "collector.protocols.native:Native.credentials", "collector.admission.auth",
        "collector.admission.tenants:TenantBook.table", "collector.receiver.addresses",
    )),
    Stage("steps between the stages", "steps", "#9fb8a7", (
        *_names(_CONNECTION, "Connection.run Connection._take_hot Connection._take_whole Connection._answer_hot"),
        *_names("collector.receiver.hot", "HotDoor.serve HotDoor.serve_together HotDoor._request"), _UPLOAD, _LOBBY,
        "collector.receiver.together", "collector.receiver.intake", "collector.receiver.worker:Worker.count_request",
        "collector.receiver.worker:Worker.is_leaving", "collector.receiver.runtime:Runtime.is_leaving",
        "bench.floor:serve",
    )),
    Stage("inflate", "inflate", "#7c9a2e", (
        "collector.protocols.encoding", "collector.receiver.unpacking", "bench.floor:inflate",
    )),
    Stage("split the body, find the ids", "split", "#2e7d4f", (
        "collector.protocols.native", "collector.protocols.split", "collector.protocols.ids", "collector.uuid7",
        "bench.floor:split",
    )),
    Stage("admission, quota", "quota", "#62a87c", (
        "collector.admission.gate", "collector.admission.quota", "collector.admission.dedupe",
        "collector.admission.seen", "collector.admission.baton", "collector.admission.tenants:TenantBook.slot",
    )),
    Stage("render the lines", "lines", "#a5cfb4", ("collector.receiver.lines",)),
    Stage("append to the spool: frame, write, ledger", "append", "#b7791f", (
        *_names(_SPOOL, "Spool.append Spool.append_all Spool.open_segment Spool.mine"),
        *_names(_HOLDING, "Holding.append Holding._count"),
        *_names(_SEGMENT, "Segment.append Segment._write Segment.create"),
        "collector.buffer.frame:parts", *_names(_LEDGER, "Ledger.account Ledger.accept"),
        *_names("collector.telemetry.counters", "CounterFile.add CounterFile.row"), "bench.floor:write",
    )),
    Stage("count for metrics and logs", "count", "#dfb56c", (
        _SIGNALS, _METRICS, "collector.telemetry.gathering", "collector.telemetry.copies",
    )),
    Stage("render the answer", "render", "#8d7bb5", (
        "collector.protocols.native:Native.render", "collector.receiver.hot:HotDoor.render",
        "collector.receiver.answers",
    )),
    Stage("send", "send", "#5b4a86", ("collector.receiver.outbox", "bench.floor:send")),
    Stage("flusher: read back, cut into batches", "flusher: cut", "#8c4a32", (
        _FLUSHER, "collector.delivery.job:gather", "collector.delivery.batches", "collector.delivery.lane",
        "collector.buffer.frame",
        *_names(_SEGMENT, "Segment.load Contents.missing"), *_names(_HOLDING, "Holding.lose_missing"),
        *_names(_SPOOL, "Spool.sealed Spool.seal Spool.open_segments"), *_names(_SEGMENT, "Segment.seal"),
    )),
    Stage("flusher: compress, write files", "compress, write", "#c98468", (
        "collector.sinks.local", "collector.sinks.files", "collector.sinks.objects", "collector.delivery.job",
        "collector.receiver.threads", "gevent.threadpool",
    )),
    Stage("flusher: settle, journal", "settle", "#e6bfae", (
        _SEGMENT, _HOLDING, _LEDGER, "collector.telemetry.journal", "collector.telemetry.counters",
        "collector.intervals", *_names(_SPOOL, "Spool.discard_if_settled"),
    )),
    Stage("housekeeping of each second", "each second", "#66717f", (
        _SPOOL, "collector.buffer.room", "collector.receiver.runtime", "collector.receiver.worker",
        "collector.receiver.notice", "collector.receiver.roster:Roster.sweep", "collector.admission.tenants",
        "collector.admission.board", "collector.admission.memory", "collector.admission.gate:Gate.tick",
        *_names(_METRICS, "Metrics.snapshot Metrics.set resident_bytes encode"),
        *_names(_SIGNALS, "Signals.flush"), "collector.telemetry.gathering:Gathering.take",
        "collector.telemetry.logs",
    )),
    # The questions of this program to the admin listener, and what no other stage knows.
    Stage("other", "other", "#c6ccd4", (
        *_names(_CONNECTION, "Connection._serve_cold Connection._read_early"), "collector.receiver.cold",
        "collector.receiver.app", "collector.receiver.admin", "collector.telemetry.books",
    )),
)  # fmt: skip
OTHER = STAGES[-1]
#: A thread of gevent's pool waits for work in C, where a sampler can't tell it from one that works.
_IDLE = "acquire_with_timeout (gevent/_threading.py"
_FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]+?)\.py(?::\d+)?\)")
_THREAD = re.compile(r"thread \((\d+)\)")
_OF = {known: stage for stage in STAGES for known in stage.known}


class Stack(msgspec.Struct, frozen=True):
    """Frames that were met together, the innermost one last, and how often; `thread` is the kernel's number."""

    thread: int
    frames: tuple[str, ...]
    samples: int

    @property
    def is_idle(self) -> bool:
        """Tell whether the thread only waited for work."""
        return bool(self.frames) and self.frames[-1].startswith(_IDLE)


def stacks_of(folded: str) -> list[Stack]:
    """Read what the sampler wrote, a stack a line, and leave out those of idle threads."""
    found = []
    for line in folded.splitlines():
        frames, _, samples = line.rpartition(" ")
        first, *others = frames.split(";")
        thread = _THREAD.match(first)
        if thread is None:
            others = [first, *others]
        found.append(Stack(int(thread[1]) if thread else 0, tuple(others), int(samples)))
    return [stack for stack in found if not stack.is_idle]


def stage_of(frames: Sequence[str]) -> Stage:
    """Return the stage of a stack: that of its innermost frame which belongs to one."""
    for frame in reversed(frames):
        if (stage := _stage_of_frame(frame)) is not None:
            return stage
    return OTHER


@lru_cache(maxsize=4096)
def _stage_of_frame(frame: str) -> Stage | None:
    parts = _FRAME.fullmatch(frame)
    if parts is None:
        return None
    module = parts["file"].replace("/", ".").removesuffix(".__init__")
    # What is defined in a function is a part of it; a class may be known as a whole.
    function = parts["function"].partition(".<locals>")[0]
    names = (f"{module}:{function}", f"{module}:{function.partition('.')[0]}", module)
    return next((stage for name in names if (stage := _OF.get(name))), None)


def spread(stacks: Iterable[Stack], cpu_us: Mapping[bool, float], *, main: int) -> dict[str, float]:
    """
    Spread what an upload costs over the stages, by their names; the sum is the whole.

    `cpu_us` is what the thread `main` used of it (True), and all others together (False). Each is spread over its own
    samples: on one core, a thread that has work but waits for the core is sampled as if it ran.
    """
    counts = {True: Counter[str](), False: Counter[str]()}
    for stack in stacks:
        counts[stack.thread == main][stage_of(stack.frames).name] += stack.samples
    us = {stage.name: 0.0 for stage in STAGES}
    for is_main, used_us in cpu_us.items():
        samples = counts[is_main].total()
        for name, times in counts[is_main].items() if samples else [(OTHER.name, 0)]:
            us[name] += used_us * times / samples if samples else used_us
    return us

"""Uploads that are taken together are answered, kept and counted as each of them would be alone."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.buffer.ticket import Ticket
from collector.outcome import Reason
from collector.protocols.base import Protocol, Reply, Request
from collector.protocols.clevertap import Clevertap
from collector.protocols.native import Native
from collector.receiver.lines import lines
from collector.receiver.together import Later, Taken, take_together
from collector.receiver.upload import take
from tests.receiver.world import TENANTS, World, fields, tenant

#: Of a body that is inflated off the hub: it does not shrink below what is too much for that.
HEAVY = gzip.compress(b'{"id":"heavy","x":"%s"}' % random.Random(1).randbytes(40_000).hex().encode())
BOMB = gzip.compress(b" " * (2 << 20))
PROTOCOLS = (Native.name, Clevertap.name)

Upload = tuple[Protocol, Request]


@pytest.fixture
def world(root: Path) -> Iterator[World]:
    made = World(root)
    yield made
    made.close()


def native(world: World, body: object, *, key: str = "dev", remote: str = "192.0.2.77", **headers: str) -> Upload:
    return Native(), world.request(body, key=key, remote=remote, **headers)


def together(world: World, *uploads: Upload) -> list[Taken]:
    return take_together(world.intake, uploads)


def answer_of(taken: Reply | Later) -> Callable[[], Reply]:
    return taken.answer if isinstance(taken, Later) else lambda: taken


def status_of(taken: Taken) -> int | None:
    return taken.status if isinstance(taken, Reply) else None


def answered(world: World, *uploads: Upload) -> list[Reply]:
    """Take uploads together that are all plain."""
    replies = together(world, *uploads)
    plain = [reply for reply in replies if isinstance(reply, Reply)]
    assert len(uploads) == len(plain)
    return plain


def files(root: Path) -> dict[str, int]:
    """Return the sizes of what lies in the spool."""
    return {path.name: path.stat().st_size for path in root.glob("owners/*/*.seg")}


# -- as each alone -----------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", "ü", "c" * 40])
events = st.one_of(
    st.builds(lambda name, n: {"id": name, "n": n}, names, st.integers()),
    st.just({"no": "id"}),
    st.just({"id": "large", "x": "y" * 100}),
    st.sampled_from([7, "text", None, []]),
)
records = st.one_of(
    st.builds(lambda name: {"identity": name, "type": "event", "evtName": "bought", "ts": 1_700_000_000}, names),
    st.just({"type": "nothing that is known"}),
)
some = st.lists(events, max_size=5)
bodies = st.one_of(
    some.map(lambda found: json.dumps(found).encode()),
    some.map(lambda found: json.dumps({"events": found}).encode()),
    some.map(lambda found: b"\n".join(json.dumps(one).encode() for one in found)),
    some.map(lambda found: gzip.compress(json.dumps(found).encode(), mtime=0)),
    st.sampled_from([b"", b" ", b"[]", b"{}", b"[1]", b'{"id":', b"\x1f\x8b no gzip", HEAVY, BOMB]),
    st.just(json.dumps([{"id": str(n)} for n in range(101)]).encode()),
)  # fmt: skip
headers = st.sampled_from(
    [
        {},
        {},
        {},
        {"collector_ack": "spool"},
        {"collector_ack": "sink"},
        {"collector_ack": "both"},
        {"content_encoding": "gzip"},
        {"content_encoding": "snappy"},
        {"content_type": "application/x-ndjson"},
    ]
)
keys = st.sampled_from(["dev", "dev", "dev", "nobody", *(one.id for one in TENANTS)])
#: What a `World` makes an upload of: a protocol, a body, a key and headers.
Plan = tuple[Protocol, bytes, str, dict[str, str]]
plans: st.SearchStrategy[Plan] = st.one_of(
    st.tuples(st.just(Native()), bodies, keys, headers),
    st.builds(
        lambda found, key: (
            Clevertap(),
            json.dumps({"d": found}).encode(),
            key,
            {"x_clevertap_account_id": key, "x_clevertap_passcode": f"{key}-key"},
        ),
        st.lists(records, max_size=4),
        keys,
    ),
)


class Told:
    """What a world says of uploads when all is over, without what chance makes."""

    def __init__(self, world: World, replies: Sequence[Reply]) -> None:
        self.answers = [
            (one.status, one.headers, {name: value for name, value in fields(one).items() if name != "receipt"})
            for one in replies
        ]
        self.signals = Counter(
            (name, repr({key: value for key, value in told.items() if key != "receipt"}))
            for name, told in world.signals.calls
            if name != "batch_delivered"
        )
        self.lines: dict[str, list[dict[str, Any]]] = {}
        for line in map(json.loads, world.sink.lines):
            del line["receipt"]
            if line["event"].get("id") is None and line["protocol"] == "native":
                del line["id"]
            self.lines.setdefault(line["tenant"], []).append(line)
        books = world.spool.books.totals()
        self.books, self.is_balanced = books.tenants, books.balanced
        self.timed = [world.intake.metrics.value("collector_request_seconds", (name,)) for name in PROTOCOLS]


def told(root: Path, plan: list[Plan], take_all: Callable[[World, list[Upload]], list[Callable[[], Reply]]]) -> Told:
    """Take uploads in a world of their own, let it deliver, and then ask for the answers."""
    world = World(root)
    answers = take_all(world, [(protocol, world.request(body, key=key, **more)) for protocol, body, key, more in plan])
    assert world.spool.used_bytes == sum(world.spool.used_by.values()) == sum(files(root).values())
    world.deliver()
    result = Told(world, [answer() for answer in answers])
    world.close()
    return result


@given(plan=st.lists(plans, max_size=9))
def test_together_is_as_each_alone(plan: list[Plan]) -> None:
    """A device must not be able to tell in whose company its upload came, and no tenant pays for another's."""
    alone: list[int] = []

    def take_group(world: World, uploads: list[Upload]) -> list[Callable[[], Reply]]:
        replies = together(world, *uploads)
        alone[:] = [n for n, reply in enumerate(replies) if reply is None]
        rest = {n: take(world.intake, *uploads[n]) for n in alone}
        return [rest[n] if reply is None else answer_of(reply) for n, reply in enumerate(replies)]

    def take_each(world: World, uploads: list[Upload]) -> list[Callable[[], Reply]]:
        # Whoever has to be taken alone comes after the others.
        order = sorted(range(len(uploads)), key=lambda n: (n in alone, n))
        taken = {n: take(world.intake, *uploads[n]) for n in order}
        return [taken[n] for n in range(len(uploads))]

    with tempfile.TemporaryDirectory(dir="/dev/shm") as ours, tempfile.TemporaryDirectory(dir="/dev/shm") as theirs:
        group, each = told(Path(ours), plan, take_group), told(Path(theirs), plan, take_each)

    assert each.answers == group.answers
    assert each.lines == group.lines
    assert each.signals == group.signals
    assert each.timed == group.timed
    assert each.books == group.books
    assert group.is_balanced


def test_the_plain_ones_are_taken_whatever_comes_with_them(world: World) -> None:
    """If all were sent away to be taken alone, every answer would be right, and nothing gained."""
    replies = together(
        world,
        native(world, [{"id": "a"}]),
        native(world, [{"id": "b"}], key="once"),
        native(world, gzip.compress(b'{"id":"c"}'), content_encoding="gzip"),
        native(world, b'{"id":'),
        native(world, [{"id": "d"}, 7], key="private"),
        native(world, [7]),
        native(world, [{"id": "e"}], key="slow"),
        native(world, [{"id": "f"}], key="twice"),
    )

    assert [200, None, 200, None, 200, 200, 200, 200] == [status_of(reply) for reply in replies]
    assert ["a", "c", "d", "e", "f"] == [json.loads(line)["id"] for line in world.deliver()]


def test_each_has_the_receipt_of_its_own_lines(world: World) -> None:
    """Support finds an upload by its receipt, and would find somebody else's."""
    replies = answered(world, *(native(world, [{"id": f"{n}.{k}"} for k in range(3)]) for n in range(8)))
    receipts = {json.loads(line)["id"]: json.loads(line)["receipt"] for line in world.deliver()}

    assert 8 == len({fields(reply)["receipt"] for reply in replies})
    assert {f"{n}.{k}": fields(reply)["receipt"] for n, reply in enumerate(replies) for k in range(3)} == receipts


# -- one write ---------------------------------------------------------------------------------------------


def test_a_group_is_one_write_for_each_route(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write is what an upload costs most; and between two of them a kill would part the group."""
    writes: list[int] = []
    real = os.write

    def write(fd: int, data: bytes) -> int:
        writes.append(len(data))
        return real(fd, data)

    monkeypatch.setattr("collector.buffer.segment.os.write", write)
    answered(world, *(native(world, [{"id": str(n)}], key=key) for n in range(10) for key in ("dev", "private")))

    assert 1 == len(writes)
    assert 20 == world.accepted


@pytest.mark.parametrize("short", [False, True])
def test_when_the_spool_refuses_nothing_of_the_group_is_kept_and_each_is_told(
    world: World, root: Path, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    """Who got a 200 for what was cut back has lost it; who got a 503 for what was kept sends it twice."""
    answered(world, native(world, [{"id": "before"}]))
    before = files(root)
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if short:
            return real(fd, data[: len(data) - 1])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("collector.buffer.segment.os.write", write)
        replies = answered(
            world,
            native(world, [{"id": "a"}]),
            native(world, [{"id": "b"}], key="private"),
            native(world, [7]),
            native(world, [{"id": "c"}]),
        )

    assert [503, 503, 200, 503] == [reply.status for reply in replies]
    assert ["backpressure"] * 3 == [fields(reply)["error"] for reply in replies if reply.status == 503]
    assert ["dev", "private", "dev"] == [told["tenant_id"] for told in world.signals.named("upload_refused")]
    assert before == files(root)
    assert (1, 1) == (world.accepted, len(world.signals.named("upload_accepted")))
    world.clock.advance(1.0)
    world.spool.tick()
    answered(world, native(world, [{"id": "after"}]))
    assert ["before", "after"] == [json.loads(line)["id"] for line in world.deliver()]


def test_an_upload_that_the_spool_refused_is_charged_to_its_tenant_as_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody gives back what was taken, alone or not: it runs off by itself, and a tenant is at his rate again."""

    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    waits = []
    for name in ("together", "alone"):
        world = World(root / name)
        with monkeypatch.context() as patch:
            patch.setattr("collector.buffer.segment.os.write", write)
            one = native(world, [{"id": str(n)} for n in range(11)], key="slow")
            refused = answered(world, one)[0] if name == "together" else take(world.intake, *one)()
        world.clock.advance(1.0)
        world.spool.tick()
        after = world.upload([{"id": "x"}], key="slow")
        waits.append((refused.status, after.status, dict(after.headers)["Retry-After"]))
        world.close()

    assert [(503, 429, "9")] * 2 == waits


# -- what breaks -------------------------------------------------------------------------------------------


def is_internal(reply: Reply) -> bool:
    return (500, "internal") == (reply.status, fields(reply).get("error"))


def test_an_upload_that_fails_when_its_lines_are_made_fails_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect that one upload meets must not cost those beside it, and must be heard of."""

    def broken(envelope: Any) -> bytes:
        if any(b"bad" in bytes(event.body) for event in envelope.events):
            raise RuntimeError("secret-of-ours")
        return lines(envelope)

    monkeypatch.setattr("collector.receiver.together.lines", broken)
    replies = answered(world, *(native(world, [{"id": name}]) for name in ("a", "bad", "c")))

    assert [False, True, False] == [is_internal(reply) for reply in replies]
    assert b"secret-of-ours" not in replies[1].body
    assert ["receive"] == [told["where"] for told in world.signals.named("internal_error")]
    assert [Reason.INTERNAL] == [told["reason"] for told in world.signals.named("upload_refused")]
    assert ["a", "c"] == [json.loads(line)["id"] for line in world.deliver()]


def test_an_append_that_fails_at_one_route_is_told_to_those_of_that_route(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of another route are in another file, and safe."""
    world = World(root, tenants=(*TENANTS, tenant("apart", route="apart")))
    real = world.spool.append_all

    def append_all(route: str, uploads: Any, *, wanted: bool) -> Any:
        if route == "apart":
            raise RuntimeError("a defect")
        return real(route, uploads, wanted=wanted)

    monkeypatch.setattr(world.spool, "append_all", append_all)
    replies = answered(world, *(native(world, [{"id": key}], key=key) for key in ("dev", "apart", "private")))

    assert [False, True, False] == [is_internal(reply) for reply in replies]
    assert ["receive"] == [told["where"] for told in world.signals.named("internal_error")]
    assert 2 == world.accepted == len(world.deliver())
    world.close()


def test_an_answer_that_can_not_be_made_is_a_500_for_its_upload_alone(world: World) -> None:
    """Its events are kept; what is answered says that they may be, and the others are answered."""

    class Broken(Native):
        def render(self, *args: object, **kwargs: object) -> Any:
            raise RuntimeError("a defect")

    replies = answered(
        world,
        native(world, [{"id": "a"}]),
        (Broken(), world.request([{"id": "b"}])),
        (Broken(), world.request([7])),
        native(world, [{"id": "c"}]),
    )

    assert [False, True, True, False] == [is_internal(reply) for reply in replies]
    assert ["receive"] * 2 == [told["where"] for told in world.signals.named("internal_error")]
    assert ["a", "b", "c"] == [json.loads(line)["id"] for line in world.deliver()]


@pytest.mark.parametrize("step", ["credentials", "decode"])
def test_what_fails_before_anything_has_happened_is_taken_alone(world: World, step: str) -> None:
    """There it fails again, and is told why, once."""

    class Broken(Native):
        pass

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("a defect")

    setattr(Broken, step, fail)
    uploads = [native(world, [{"id": "a"}]), (Broken(), world.request([{"id": "b"}])), native(world, [{"id": "c"}])]
    replies = together(world, *uploads)

    assert [200, None, 200] == [status_of(reply) for reply in replies]
    assert not world.signals.named("internal_error")
    assert is_internal(take(world.intake, *uploads[1])())


def test_a_tenant_whose_meter_can_not_be_had_holds_up_nobody_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tmpfs that is full up has no room for the meters of a new tenant, who says so at every upload of his."""
    many = tuple(tenant(f"filler{n}") for n in range(1024 - len(TENANTS)))
    world = World(root, tenants=(*TENANTS, *many, tenant("late", events_per_s=1.0)))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("collector.admission.quota.os.posix_fallocate", full)
    uploads = [native(world, [{"id": key}], key=key) for key in ("dev", "late", "private")]
    replies = together(world, *uploads)
    alone = take(world.intake, *uploads[1])()

    assert [200, None, 200] == [status_of(reply) for reply in replies]
    assert (503, "backpressure") == (alone.status, fields(alone)["error"])
    assert ["dev", "private"] == [json.loads(line)["id"] for line in world.deliver()]
    world.close()


# -- what is taken alone -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "body", "headers_"),
    [
        ("dev", [{"id": "a"}], {"collector_ack": "both"}),
        ("once", [{"id": "a"}], {}),
        ("sure", [{"id": "a"}], {}),
        ("dev", HEAVY, {"content_encoding": "gzip"}),
        ("dev", HEAVY, {}),
        ("off", [{"id": "a"}], {}),
        ("nobody", [{"id": "a"}], {}),
        ("dev", b'[{"id":"a"}', {}),
        ("dev", [], {}),
    ],
)
def test_nothing_has_happened_to_one_that_is_to_be_taken_alone(
    root: Path, key: str, body: object, headers_: dict[str, str]
) -> None:
    """It is taken from the beginning: what it was charged or counted here, it would be charged or counted twice."""
    world = World(root, tenants=tuple(msgspec.structs.replace(one, events_per_s=1.0, burst_s=1.0) for one in TENANTS))
    offloaded: list[int] = []

    def offload(run: Callable[[], bytes]) -> bytes:
        offloaded.append(1)
        return run()

    world.intake = replace(world.intake, offload=offload)
    before = world.spool.books.totals(), world.intake.metrics.snapshot()

    assert [None, None] == together(world, *[native(world, body, key=key, **headers_)] * 2)
    assert before == (world.spool.books.totals(), world.intake.metrics.snapshot())
    assert ([], {}, []) == (world.signals.calls, files(root), offloaded)
    assert not any((root / "quota").read_bytes())
    world.close()


def test_one_over_its_rate_is_refused_alone_and_not_charged(world: World) -> None:
    """The first two of a group may bring a tenant over its rate; the third is told when to come back."""
    uploads = [native(world, [{"id": f"{n}.{k}"} for k in range(2)], key="slow") for n in range(3)]
    replies = together(world, *uploads)
    alone = [take(world.intake, *one)() for one, reply in zip(uploads, replies, strict=True) if reply is None]

    assert [200, None, None] == [status_of(reply) for reply in replies]
    assert [(429, "1")] * 2 == [(reply.status, dict(reply.headers)["Retry-After"]) for reply in alone]
    assert 2 == world.accepted


def test_one_of_a_tenant_over_its_rate_is_not_even_read(world: World) -> None:
    """What is refused should cost less than what is taken."""
    read: list[bytes] = []

    class Watched(Native):
        def decode(self, request: Request, body: bytes, *args: Any) -> Any:
            read.append(body)
            return super().decode(request, body, *args)

    answered(world, native(world, [{"id": str(n)} for n in range(11)], key="slow"))

    assert [None] == together(world, (Watched(), world.request([{"id": "x"}], key="slow")))
    assert [] == read


# -- those that wait for their sink ------------------------------------------------------------------------


def test_uploads_that_wait_for_the_sink_are_kept_in_one_write_and_answered_when_it_has_them(world: World) -> None:
    """To wait costs a device time, and must not cost the server a file for each."""
    uploads = [native(world, [{"id": f"{n}"}], key="careful") for n in range(3)]
    taken = together(world, *uploads)
    waiting = [one for one in taken if isinstance(one, Later)]
    before = len(world.sink.objects)
    world.deliver()
    replies = [one.answer() for one in waiting]

    assert (3, 1, 0) == (len(waiting), len({one.fate for one in waiting}), before)
    assert ["sink"] * 3 == [json.loads(reply.body)["ack"] for reply in replies]
    assert [200] * 3 == [reply.status for reply in replies]
    assert 1 == len(world.sink.objects)


def test_what_waits_longest_costs_those_behind_it_none_of_their_own_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked one after the other: each would else wait as long as those before it, and as long again."""
    world = World(root, ack_timeout_s=0.3)
    taken = together(world, *(native(world, [{"id": f"{n}"}], key="careful") for n in range(2)))
    first, second = (one for one in taken if isinstance(one, Later))
    statuses, waits, wait = [first.answer().status], list[float](), Ticket.wait
    world.clock.advance(0.3)

    def watched(ticket: Ticket, timeout_s: float) -> bool:
        waits.append(timeout_s)
        return wait(ticket, timeout_s)

    monkeypatch.setattr(Ticket, "wait", watched)
    statuses.append(second.answer().status)

    assert ([503, 503], [0.0]) == (statuses, waits)
    assert 2 == len(world.signals.named("upload_unconfirmed"))
    world.close()


def test_different_tenants_do_not_wait_for_each_other(world: World) -> None:
    """A batch of one that its sink refuses for a while must not hold up the answers of others."""
    taken = together(
        world,
        native(world, [{"id": "a"}], key="careful"),
        native(world, [{"id": "b"}], key="dev", collector_ack="sink"),
    )

    assert 2 == len({one.fate for one in taken if isinstance(one, Later)})
    world.deliver()


# -- bounds ------------------------------------------------------------------------------------------------


def test_small_bodies_that_become_large_ones_are_not_all_held_at_once(world: World) -> None:
    """Of 64 KB that come together 64 MB can be made: one after the other they take the memory of one."""
    events = b",".join(b'{"id":"%d","x":"%s"}' % (n, b"x" * 9000) for n in range(100))
    packed = gzip.compress(b"[" + events + b"]")
    uploads = [native(world, packed, content_encoding="gzip") for _ in range(10)]
    world.spool.limit_bytes = 1 << 30
    tracemalloc.start()
    try:
        replies = together(world, *uploads)
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(packed) < 6500
    assert {None, 200} == {status_of(reply) for reply in replies}
    assert held < 8 * len(events)


@pytest.mark.parametrize(
    "body", [b'{"x":"%s"}' % (b"y" * 100), b'{"x":"%s"}' % (b"y" * 1500), b"[" + b",".join([b"{}"] * 90) + b"]"]
)
def test_a_group_takes_no_more_room_than_there_is(root: Path, body: bytes) -> None:
    """Each of them would be let in for the room that is there before any of them is kept."""
    world = World(root, spool_bytes=32_768)
    events = body.count(b"{")
    uploads = [native(world, body) for _ in range(200)]
    accepted = 0
    for n in range(0, len(uploads), 20):
        replies = together(world, *uploads[n : n + 20])
        for one, reply in zip(uploads[n:], replies, strict=False):
            accepted += events * (200 == (status_of(reply) or take(world.intake, *one)().status))

    assert accepted == world.accepted
    assert 0.6 * world.spool.limit_bytes < world.spool.used_bytes <= world.spool.limit_bytes
    world.close()


def test_a_large_upload_that_comes_first_is_not_read_twice(world: World) -> None:
    """It would be taken alone, and all that was done to it here done once more."""
    large, small = native(world, [{"id": "a", "x": "y" * 60_000}]), native(world, [{"id": "b"}])
    world.spool.limit_bytes = 200_000

    assert [200, None] == [status_of(one) for one in together(world, large, small)]
    assert [200, None] == [status_of(one) for one in together(world, small, large)]

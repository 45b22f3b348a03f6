"""The oracle of the chaos runs: it must find whatever is wrong, and must not cry when nothing is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tests.system.chaos import diary, events
from tests.system.chaos.oracle import Evidence, Finding, Found, Kill, Window, judge

DEVICES = ("red-0", "blue-1")
UPLOADS = 4
KILL = Kill(at=100.0, until=100.1, pids=frozenset({7}), ports=frozenset({4000}))


def receipt(device: str, number: int, attempt: int = 0) -> str:
    return f"receipt {device} {number} {attempt}"


def stored(device: str, number: int, *, attempt: int = 0) -> list[bytes]:
    """Write what a sink holds of an upload, as Collector writes it."""
    body, encoding = events.upload(device, number)
    assert not encoding
    raw = {0: body[1:-1].split(b'},{"id"'), 1: body[11:-2].split(b'} , {"id"'), 2: body.rstrip().split(b'}\n{"id"')}
    pieces = raw[number % 3]
    whole = [
        (b'{"id"' if n else b"") + piece + (b"}" if n < len(pieces) - 1 else b"") for n, piece in enumerate(pieces)
    ]
    names = [events.event_id(device, number, place) for place in range(len(whole))]
    return [line(name, receipt(device, number, attempt), event) for name, event in zip(names, whole, strict=True)]


def line(name: str, answer: str, event: bytes) -> bytes:
    tenant = name.partition("-")[0]
    head = {"id": name, "tenant": tenant, "received_at": "x", "protocol": "native", "receipt": answer, "remote_ip": ""}
    return json.dumps(head, separators=(",", ":")).encode()[:-1] + b',"event":' + event + b"}"


def written() -> diary.Diary:
    """Write the diary of a run in which all went well; the first upload is left out, as it would be compressed."""
    return diary.Diary(
        devices=[
            diary.DeviceDiary(
                name,
                name.rpartition("-")[0],
                begun=UPLOADS,
                receipts=[receipt(name, number) for number in range(UPLOADS)],
            )
            for name in DEVICES
        ]
    )


def lines() -> list[bytes]:
    compressed = [text for device in DEVICES for text in stored_compressed(device)]
    return compressed + [text for device in DEVICES for number in range(1, UPLOADS) for text in stored(device, number)]


def stored_compressed(device: str) -> list[bytes]:
    """Write what a sink holds of the upload with number 0, whose body goes over the wire compressed."""
    names = [events.event_id(device, 0, place) for place in range(events.how_many(device, 0))]
    return [line(name, receipt(device, 0), events.event(name, b'"n":1')) for name in names]


def evidence(**changes: Any) -> Evidence:
    found = [Found(text) for text in lines()]
    sound = Evidence(diary=written(), found=found, ledger=ledger(len(found)), kills=[KILL], windows=[])
    return msgspec.structs.replace(sound, **changes)


def ledger(arrived: int, **changes: Any) -> dict[str, Any]:
    return {"accepted": arrived, "delivered": arrived, "rescued": 0, "pending": 0, "balanced": True, **changes}


def failing(**fields: Any) -> diary.Diary:
    """Write a diary with one failure: of a connection that the killed worker held, unless something else is said."""
    sound = {"device": "red-0", "port": 4000, "opened_at": 90.0, "asked_at": 99.0, "failed_at": 100.05, "served": 3}
    kept = written()
    kept.failures.append(msgspec.convert({**sound, "kind": "ECONNRESET", **fields}, diary.Failure))
    return kept


def again(number: int, *attempts: str) -> diary.Diary:
    """Write a diary in which an upload of the first device took more than one attempt."""
    kept = written()
    kept.devices[0].again[number] = list(attempts)
    return kept


def numbers(finding: Finding) -> tuple[int, int, int, int]:
    return finding.missing, finding.altered, finding.invented, finding.duplicates.unexplained


def test_a_run_in_which_all_went_well_is_found_so() -> None:
    """An oracle that always cries is switched off."""
    finding = judge(evidence())

    assert [] == finding.broken
    assert (0, 0, 0, 0) == numbers(finding)
    assert len(lines()) == finding.acknowledged


def test_an_event_that_is_missing_is_found() -> None:
    """The promise itself."""
    found = [Found(text) for text in lines()]
    finding = judge(evidence(found=found[:-1], ledger=ledger(len(found) - 1)))

    assert (1, 0, 0, 0) == numbers(finding)
    assert "missing" in finding.broken[0]


def test_an_event_that_is_there_under_another_answer_only_is_missing() -> None:
    """What the device was told is about one upload; a later one that also arrived does not make it true."""
    kept = [text for text in lines() if receipt("red-0", 1).encode() not in text]
    finding = judge(
        evidence(
            found=[Found(text) for text in kept + stored("red-0", 1, attempt=1)],
            diary=again(1, diary.FAILED),
        )
    )

    assert events.how_many("red-0", 1) == finding.missing


@pytest.mark.parametrize("at", [0, 1, 7, 40, -3, -2, -1])
def test_an_event_with_one_other_byte_is_found(at: int) -> None:
    """A byte is enough to make another event of it."""
    found = lines()
    start = found[-1].index(b'"event":') + 8
    place = start + at if at >= 0 else len(found[-1]) - 1 + at
    found[-1] = found[-1][:place] + bytes([found[-1][place] ^ 1]) + found[-1][place + 1 :]
    finding = judge(evidence(found=[Found(text) for text in found]))

    assert (0, 1, 0, 0) == numbers(finding)
    assert "altered" in finding.broken[0]


def test_an_event_of_another_tenant_is_found() -> None:
    """One customer's events in another's files is worse than losing them."""
    found = [text.replace(b'"tenant":"red"', b'"tenant":"blue"') for text in lines()]
    finding = judge(evidence(found=[Found(text) for text in found]))

    assert sum(events.how_many("red-0", number) for number in range(UPLOADS)) == finding.altered


@pytest.mark.parametrize("name", ["red-0.99.0", "red-0.1.19", "green-0.0.0", "nobody", "red-0.01.0", "red-0.-1.0"])
def test_an_event_that_nobody_sent_is_found(name: str) -> None:
    """A line that comes from nowhere is somebody's memory, or another run's."""
    stranger = line(name, "r", events.event(name, b'"n":1'))
    found = [*(Found(text) for text in lines()), Found(stranger)]
    finding = judge(evidence(found=found))

    assert (0, 0, 1, 0) == numbers(finding)
    assert "invented" in finding.broken[0]


def test_a_line_that_is_not_one_of_ours_is_found() -> None:
    """Half a line, say."""
    found = [*(Found(text) for text in lines()), Found(b'{"id":"red-0.0.0","ten')]

    assert 1 == judge(evidence(found=found)).invented


def test_a_repeat_of_the_same_upload_has_no_cause_of_its_own() -> None:
    """A sink that keeps all it confirms, and a writer that lives, give no reason to deliver twice."""
    found = [Found(text) for text in [*lines(), stored("red-0", 1)[0]]]
    finding = judge(evidence(found=found, ledger=ledger(len(found) - 1)))

    assert (0, 0, 0, 1) == numbers(finding)
    assert "twice" in finding.broken[0]


@pytest.mark.parametrize(
    ("copy", "explained"),
    [
        ({"fate": "lost"}, (1, 0)),
        ({"fate": "kept"}, (0, 0)),
        ({"writer": 7, "at": 99.5}, (0, 1)),
        ({"writer": 8, "at": 99.5}, (0, 0)),
        ({"writer": 7, "at": 90.0}, (0, 0)),
        ({"writer": 7, "at": 101.0}, (0, 0)),
    ],
)
def test_a_repeat_of_a_delivery_needs_a_lost_answer_or_a_writer_killed_at_that_time(
    copy: dict[str, Any], explained: tuple[int, int]
) -> None:
    """Those are the two ways in which a sink may have what we do not know of."""
    sound = [Found(text) for text in lines()]
    finding = judge(evidence(found=[*sound, Found(stored("red-0", 1)[0], **copy)], ledger=ledger(len(sound))))

    assert explained == (finding.duplicates.lost_answer, finding.duplicates.killed_writer)
    assert (1 if explained == (0, 0) else 0) == finding.duplicates.unexplained
    assert (explained == (0, 0)) == bool(finding.broken)


@pytest.mark.parametrize(("left", "explained"), [({7: 2}, 2), ({7: 1}, 1), ({8: 2}, 0)])
def test_a_writer_whose_drain_was_out_of_time_explains_no_more_repeats_than_it_left(
    left: dict[int, int], explained: int
) -> None:
    """What was under way at a slow sink when it ended, its successor sends again; what it had settled, nobody."""
    sound = [Found(text) for text in lines()]
    again = [Found(text, writer=7, fate="kept") for text in stored("red-0", 1)[:2]]
    finding = judge(evidence(found=[*sound, *again], ledger=ledger(len(sound)), left=left))

    assert (explained, 2 - explained) == (finding.duplicates.killed_writer, finding.duplicates.unexplained)


@pytest.mark.parametrize(
    ("attempts", "explained"),
    [([diary.FAILED], 1), ([diary.UNCONFIRMED], 1), ([diary.REFUSED], 0), ([], 0)],
)
def test_a_second_upload_of_an_event_needs_a_device_that_sent_it_twice(attempts: list[str], explained: int) -> None:
    """What was refused was not kept, or the refusal was no true answer."""
    found = [Found(text) for text in lines() + stored("red-0", 2, attempt=1)]
    finding = judge(evidence(found=found, ledger=ledger(len(found)), diary=again(2, *attempts)))

    twice = events.how_many("red-0", 2)
    assert explained * twice == finding.duplicates.sent_again
    assert (1 - explained) * twice == finding.duplicates.unexplained


def test_a_tenant_without_repeats_has_none_however_often_its_device_sent() -> None:
    """That is what its window is for; and a repeat that was not delivered is not missing."""
    found = [Found(text) for text in lines() + stored("red-0", 2, attempt=1)]
    twice = judge(
        evidence(found=found, ledger=ledger(len(found)), diary=again(2, diary.FAILED), once=frozenset({"red"}))
    )
    first = [Found(text) for text in lines() if receipt("red-0", 2).encode() not in text]
    first += [Found(text) for text in stored("red-0", 2, attempt=1)]
    deduplicated = judge(evidence(found=first, diary=again(2, diary.FAILED), once=frozenset({"red"})))

    assert events.how_many("red-0", 2) == twice.duplicates.unexplained
    assert [] == deduplicated.broken


def test_a_request_on_a_connection_of_the_killed_may_fail_once() -> None:
    """HTTP has no way to save it; its device sends again."""
    finding = judge(evidence(diary=failing()))

    assert [] == finding.broken
    assert (1, 0) == (finding.failed_allowed, finding.failed)


@pytest.mark.parametrize(
    "fields",
    [
        {"port": 4001},  # another worker's connection
        {"opened_at": 100.01},  # a fresh connection
        {"failed_at": 99.9},  # before
        {"kind": diary.NOBODY_LISTENS, "port": 0},
        {"kind": "status 500 internal", "opened_at": 100.01},
    ],
)
def test_any_other_request_that_fails_is_found(fields: dict[str, Any]) -> None:
    """The others must not notice that a worker died."""
    finding = judge(evidence(diary=failing(**fields)))

    assert (0, 1) == (finding.failed_allowed, finding.failed)
    assert "failed" in finding.broken[0]


def test_a_connection_of_the_killed_that_fails_twice_is_found() -> None:
    """A connection dies once: the second failure is another one's."""
    kept = failing()
    kept.failures *= 2

    assert 1 == judge(evidence(diary=kept)).failed


def test_nobody_listens_only_while_the_task_is_away() -> None:
    """Between the end of one task and the start of the next there is nobody to connect to, and at no other time."""
    refused = {"kind": diary.NOBODY_LISTENS, "port": 0, "opened_at": 200.0, "asked_at": 200.0, "failed_at": 200.1}
    inside = judge(evidence(diary=failing(**refused), windows=[Window(since=199.0, until=201.0)]))
    outside = judge(evidence(diary=failing(**refused), windows=[Window(since=201.0, until=202.0)]))
    reset = judge(
        evidence(diary=failing(**refused | {"kind": "ECONNRESET"}), windows=[Window(since=199.0, until=201.0)])
    )

    assert (1, 0) == (inside.nobody_listened, inside.failed)
    assert (0, 1) == (outside.nobody_listened, outside.failed)
    assert (0, 1) == (reset.nobody_listened, reset.failed)


def test_a_queue_is_lost_only_with_the_owner_of_the_listener() -> None:
    """A fresh connection that is reset was in the queue of a listener that closed: no other end of a task may do so."""
    fresh = {"port": 5000, "opened_at": 200.0, "asked_at": 200.0, "failed_at": 200.1, "served": 0}
    lost = [Window(since=199.0, until=201.0, queue_is_lost=True)]
    kept = [Window(since=199.0, until=201.0)]

    assert 0 == judge(evidence(diary=failing(**fresh), windows=lost)).failed
    assert 1 == judge(evidence(diary=failing(**fresh), windows=kept)).failed
    assert 1 == judge(evidence(diary=failing(**fresh | {"served": 1}), windows=lost)).failed
    assert 1 == judge(evidence(diary=failing(**fresh | {"kind": "status 500 internal"}), windows=lost)).failed


def test_each_tenant_has_its_own_numbers() -> None:
    """A promise is made to a tenant, so it is held against what became of that tenant's events."""
    found = [Found(text) for text in lines() if not text.startswith(b'{"id":"blue-1.3.')]
    found += [Found(text) for text in stored("red-0", 2, attempt=1)]
    kept = again(2, diary.FAILED)
    kept.refusals["blue backpressure"] = 5
    tenants = judge(evidence(found=found, diary=kept)).tenants

    assert events.how_many("red-0", 2) == tenants["red"].duplicates
    assert events.how_many("blue-1", 3) == tenants["blue"].missing
    assert (0, 5) == (tenants["red"].refused, tenants["blue"].refused)
    assert sum(events.how_many("red-0", number) for number in range(UPLOADS)) == tenants["red"].acknowledged


@pytest.mark.parametrize(
    ("reason", "draining_is_fine", "is_fine"),
    [
        ("backpressure", False, True),
        ("over_quota", False, True),
        ("draining", True, True),
        ("draining", False, False),
        ("None", True, False),
    ],
)
def test_a_device_is_sent_away_for_a_reason(reason: str, draining_is_fine: bool, is_fine: bool) -> None:
    """A reload is no reason to send anybody away."""
    kept = written()
    kept.refusals[f"red {reason}"] = 3

    assert is_fine == (not judge(evidence(diary=kept, draining_is_fine=draining_is_fine)).broken)


def test_an_upload_that_is_never_acknowledged_is_found() -> None:
    """A device that is sent away for ever loses its events in the end."""
    kept = written()
    kept.devices[0].begun += 1

    assert "never acknowledged" in judge(evidence(diary=kept)).broken[0]


@pytest.mark.parametrize(
    "changes",
    [{"balanced": False}, {"pending": 1}, {"accepted": 1}, {"delivered": 1}, {"rescued": 1}, {"deduplicated": 1}],
)
def test_a_ledger_that_does_not_agree_with_the_sinks_is_found(changes: dict[str, Any]) -> None:
    """Books that balance by themselves may still be about other events."""
    assert judge(evidence(ledger=ledger(len(lines()), **changes))).broken


def test_trouble_in_the_log_and_an_empty_run_are_found() -> None:
    """An error that nobody expected is one, even if all arrived; and nothing sent shows nothing."""
    assert judge(evidence(trouble=["internal.error"])).broken
    assert judge(evidence(diary=diary.Diary(), found=[], ledger=ledger(0))).broken

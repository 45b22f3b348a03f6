"""
The same bytes mean the same at both doors: requests of real clients, and odd ones that a hand has thought of.

Same is: the same answers byte for byte but for their dates, the same end of the connection, the same frames in the
spool, and the same counts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doors import made, odd
from tests.doors.pair import Case, Pair, explain, same, told

#: Above this a client may be told before its last bytes are sent, or after, and what comes then may end in a reset.
AT_A_BREATH = 16_000
RECORDED = sorted(made.RECORDED.glob("*.http"))
#: What real clients send that is not for the hot door: no method but POST, no chunks, no questions, no HTTP/1.0.
NOT_HOT = (b"GET ", b"OPTIONS ", b"\r\ntransfer-encoding: chunked", b"\r\nexpect:", b" http/1.0\r\n")


def at_events(data: bytes) -> bytes:
    """Send a request of some SDK to where our own protocol is spoken."""
    line, _, rest = data.partition(b"\r\n")
    method, _, version = line.split(b" ")
    return b"%s /v1/events?key=dev-key %s\r\n%s" % (method, version, rest)


# -- what devices send -------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", odd.HOT.values(), ids=odd.HOT)
def test_a_usual_upload_is_served_by_the_hot_door_and_by_it_alone(doors: Pair, data: bytes) -> None:
    """All that is compared here would be equal, too, if the hot door took nothing."""
    plain, hot = doors.tell(Case((data,)))

    assert same(plain) == same(hot), explain(Case((data,)), plain, hot)
    assert (data.count(b" HTTP/1.1\r\n"), 0) == (plain.seen.by_flask, hot.seen.by_flask)


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_a_request_of_a_real_client_means_the_same(doors: Pair, file: Path) -> None:
    """Alone, twice on one connection, at our own path, and cut where its body begins."""
    data = file.read_bytes()
    begin = data.index(b"\r\n\r\n") + 4
    cases = [Case((data,), asks=True), Case((at_events(data),), asks=True), Case((data + data,))]
    cases += [Case((data[:begin], data[begin:]), asks=True), Case((data, data), polite=True)]

    differences = doors.differences(cases)

    assert [] == differences, told(differences)


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_what_real_clients_upload_comes_through_the_hot_door(doors: Pair, file: Path) -> None:
    """A door that takes none of what is really sent is not worth its lines."""
    data = at_events(file.read_bytes())
    is_usual = not any(mark in data.partition(b"\r\n\r\n")[0].lower() + b"\r\n" for mark in map(bytes.lower, NOT_HOT))

    assert (0 if is_usual else 1) == doors.agree(Case((data,))).seen.by_flask


# -- what a hand has thought of ----------------------------------------------------------------------------

FAMILIES = {
    "request lines and targets": odd.lines(),
    "values of fields": odd.values(),
    "fields sent twice": odd.doubles(),
    "lengths": odd.lengths(),
    "strange lines and white space": odd.fields(),
    "bodies and encodings": odd.bodies(),
    "limits": odd.limits(),
}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_an_odd_request_means_the_same(doors: Pair, family: odd.Requests) -> None:
    """What one door takes and the other refuses is where smugglers and lost events come from."""
    differences = doors.differences(Case((data,), asks=len(data) < AT_A_BREATH) for data in family.values())

    assert [] == differences, told(differences)


@pytest.mark.parametrize("family", ["lengths", "limits"])
def test_an_odd_request_means_the_same_where_nothing_follows_it(doors: Pair, family: str) -> None:
    """A body that is shorter than it says ends here, and there it would be made whole by what follows."""
    differences = doors.differences(Case((data,)) for data in FAMILIES[family].values())

    assert [] == differences, told(differences)


@pytest.mark.parametrize("first", odd.MIXED)
def test_two_requests_sent_at_once_mean_the_same(doors: Pair, first: str) -> None:
    """What comes after the one must reach the door of the other unread, and whole."""
    pairs = [odd.MIXED[first] + second for second in odd.MIXED.values()]
    cases = [Case((data,)) for data in pairs] + [Case((odd.PLAIN + data,), asks=True) for data in pairs]

    differences = doors.differences(cases)

    assert [] == differences, told(differences)


def test_many_requests_on_one_connection_mean_the_same(doors: Pair) -> None:
    """One door's leavings must not be the other's beginnings, however often they change."""
    several = [odd.PLAIN, odd.HEALTH, odd.CLEVERTAP, odd.CHUNKED, odd.KEYED, odd.request(odd.HOST), odd.PLAIN] * 6

    for case in (Case(tuple(several), polite=True), Case((b"".join(several),)), Case(tuple(several))):
        assert len(several) == len(doors.agree(case).statuses)


def test_a_client_that_waits_for_its_answer_may_ask_again_or_is_told_that_it_may_not(doors: Pair) -> None:
    """A connection that is closed without a word costs the next upload; one that is kept open, a place."""
    sound = [*odd.HOT.values(), *(odd.MIXED[name] for name in ("hot, and last", "hot, refused", "chunked", "HTTP/1.0"))]
    values = [odd.request(odd.HOST, odd.KEY, b"Connection: " + value) for value in odd.VALUES[b"Connection"]]

    differences = doors.differences(Case((data, data, odd.HEALTH), polite=True) for data in (*sound, *values))

    assert [] == differences, told(differences)


def test_a_connection_that_is_to_end_is_ended_by_the_server(doors: Pair) -> None:
    """A client that keeps its half open waits for the other end."""
    cases = [odd.MIXED["hot, and last"], odd.MIXED["hot, too large"], odd.MIXED["rubbish"], odd.MIXED["two lengths"]]

    for data in cases:
        assert "closed" == doors.agree(Case((data,), waits=True)).end


# -- cut into pieces ---------------------------------------------------------------------------------------

CUT = {
    "plain": odd.PLAIN,
    "clevertap": odd.CLEVERTAP,
    "refused": odd.request(odd.HOST, b"Origin: https://shop.test"),
    "two": odd.request(odd.HOST, b"X-Collector-Key: dev-key", body=b"{}") * 2,
    "an odd one behind": odd.request(odd.HOST, b"X-Collector-Key: dev-key", body=b"{}") + odd.HEALTH,
    "an odd one before": odd.HEALTH + odd.request(odd.HOST, b"X-Collector-Key: dev-key", body=b"{}"),
}


@pytest.mark.parametrize("data", CUT.values(), ids=CUT)
def test_bytes_that_come_in_two_pieces_mean_the_same_wherever_they_are_cut(doors: Pair, data: bytes) -> None:
    """A radio cuts where it likes; the first piece is read before the second is sent."""
    differences = doors.differences(Case((data[:at], data[at:]), asks=True) for at in range(1, len(data)))

    assert [] == differences, told(differences)


def test_bytes_that_come_one_by_one_mean_the_same(doors: Pair) -> None:
    """The longest way there is through every loop that reads."""
    data = CUT["an odd one behind"]

    assert [200, 200] == doors.agree(Case(tuple(data[at : at + 1] for at in range(len(data))))).statuses


@pytest.mark.parametrize("name", ["plain", "clevertap"])
def test_a_request_that_breaks_off_means_the_same_wherever_it_does(doors: Pair, name: str) -> None:
    """The client says that no more comes: what there is of it is no event, and counted alike."""
    data = CUT[name]

    differences = doors.differences(Case((data[:at],)) for at in range(len(data)))

    assert [] == differences, told(differences)


def test_a_client_that_resets_leaves_the_same_behind(doors: Pair) -> None:
    """It wants no answer; whether its events are kept must not hang on the door."""
    large = odd.request(odd.HOST, odd.KEY, body=b"[" + b" " * 40_000 + b"]")
    begin = odd.PLAIN.index(b"\r\n\r\n") + 4
    cuts = [(odd.PLAIN, at) for at in (1, 20, begin - 2, begin, begin + 1, len(odd.PLAIN) - 1, len(odd.PLAIN))]
    cuts += [(large, at) for at in (begin + 100, len(large) - 1, len(large))]

    differences = doors.differences(Case((data[:at],), resets=True) for data, at in cuts)

    assert [] == differences, told(differences)


def test_a_request_that_stalls_means_the_same(doors: Pair) -> None:
    """Each has so many seconds for its head, and so many for its body; all of them stall at once here."""
    plain, large = odd.PLAIN, odd.request(odd.HOST, odd.KEY, body=b"[" + b" " * 40_000 + b"]")
    begin = plain.index(b"\r\n\r\n") + 4
    stalled = [plain[:1], plain[:60], plain[:begin], plain[: begin + 1], plain[:-1], large[:2000], large[:-1]]
    stalled += [plain + plain[:begin], plain + plain[:40], odd.CLEVERTAP[:-1], odd.CHUNKED[:-7], odd.CHUNKED[:-1]]

    plain_ones, hot_ones = doors.stall(stalled)

    assert list(map(same, plain_ones)) == list(map(same, hot_ones))
    assert {408} == {one.statuses[-1] for one in hot_ones}


# -- what once failed --------------------------------------------------------------------------------------


def test_what_once_told_the_doors_apart_means_the_same(doors: Pair) -> None:
    """A fuzzer finds a thing once; this keeps it found."""
    differences = doors.differences(made.read(file.read_text()) for file in sorted(made.FAILURES.glob("*.json")))

    assert [] == differences, told(differences)

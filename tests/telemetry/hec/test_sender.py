"""One request after the other, and each line's fate known whatever HEC says: at the end it is there, or counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collector.errors import HecUnanswered
from collector.telemetry.hec.acks import RESEND_AFTER_S
from collector.telemetry.hec.answers import Answer
from collector.telemetry.hec.buffer import Drop, HecBuffer
from collector.telemetry.hec.options import MAX_BATCH_BYTES
from collector.telemetry.hec.pace import HELD_S, State
from collector.telemetry.hec.sender import PROBE_LINES
from tests.fakes import FakeClock
from tests.telemetry.hec.model import BAD, FAULTS, Fault, Splunk, World

GOOD = ["g"] * 5


# -- when a batch leaves


def test_lines_wait_for_company_until_the_first_has_lingered() -> None:
    """A request a line would cost HEC more than the lines."""
    world = World(linger_s=1.0)
    world.put("g")
    world.clock.advance(0.4)
    world.put("g")

    assert pytest.approx(0.6) == world.step()
    assert (True, []) == (world.sender.wants_lines, world.splunk.bodies)

    world.clock.advance(0.6)
    assert 0.0 == world.step()
    assert [world.lines] == world.splunk.bodies


def test_a_full_batch_does_not_linger() -> None:
    """By lines or by bytes; a burst leaves as fast as HEC takes it."""
    by_lines, by_bytes = World(batch_lines=3), World(batch_bytes=100)
    by_lines.put(*"ggggg")
    by_bytes.put(*"ggg", size=50)
    by_lines.step()
    by_bytes.step()

    assert ([3], [2]) == ([len(body) for body in by_lines.splunk.bodies], [len(b) for b in by_bytes.splunk.bodies])
    assert 1.0 == by_lines.step() == by_bytes.step()


def test_an_empty_queue_is_looked_at_again_after_a_linger() -> None:
    """A line that comes then is not late: its own linger begins with it."""
    world = World(linger_s=2.0)

    assert (2.0, True) == (world.step(), world.sender.wants_lines)


def test_a_batch_has_a_megabyte_at_most_whatever_is_asked_for() -> None:
    """Splunk Cloud was seen to refuse larger ones, in words that look like a bad line."""
    world = World(batch_bytes=50_000_000, batch_lines=10_000, buffer_bytes=64 << 20)
    world.put(*"g" * 30, size=60_000)
    world.run()

    assert MAX_BATCH_BYTES >= max(sum(map(len, body)) for body in world.splunk.bodies) > MAX_BATCH_BYTES - 60_000


def test_a_batch_that_fills_while_the_sender_looks_away_wakes_it() -> None:
    """Who puts does not wake one who does not seem to wait; the lines would wait for a linger, and the buffer fill."""

    class Putting(FakeClock):
        left = 0
        put: Callable[[], object]

        def monotonic(self) -> float:
            # The first look at the queue sees one line, and has read the clock last.
            if self.left:
                self.left -= 1
                if not self.left:
                    self.put()
            return super().monotonic()

    clock = Putting()
    world = World(clock=clock, batch_lines=3)
    woken: list[bool] = []

    def put() -> None:
        world.put("g", "g")
        # As the handler does.
        woken.append(world.sender.wants_lines and world.sender.is_due())

    clock.put = put
    lost = []
    for reads in range(1, 12):
        world.put("g")
        woken.clear()
        clock.left = reads
        wait_s = world.sender.step()
        clock.left = 0
        if world.buffer.queued_lines >= 3 and wait_s > 0 and not any(woken):
            lost.append(reads)
        world.run()

    assert [] == lost


# -- what HEC answers


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in {(200, 24), (200, 25)}])
def test_whatever_goes_wrong_once_the_lines_are_there_afterwards(fault: Fault) -> None:
    """In their order, and more than once only where nobody could know."""
    world = World()
    world.put(*GOOD)
    world.splunk.faults.append(fault)
    world.run()

    expected = world.lines * (2 if fault in {"lost after", "gateway"} else 1)
    account = world.buffer.account()
    assert expected == world.splunk.indexed
    assert (5, {}, 1) == (account.delivered, account.dropped, account.retries)
    doubtful = fault in {
        "lost before",
        "lost after",
        "html",
        "gateway",
        "defect",
        (500, 8),
        (408, -1),
        (502, -1),
        (504, -1),
    }
    assert (5 if doubtful else 0) == account.possible_duplicates


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_goes_wrong_for_ever_ends_in_pauses_and_not_in_a_loop(fault: Fault) -> None:
    """An hour of it is less than a request a second, nothing is dropped, and a human hears of it once."""
    world = World()
    world.put(*GOOD)
    world.splunk.always = fault
    until_s = world.clock.monotonic() + 3600
    steps = 0
    while world.clock.monotonic() < until_s:
        world.clock.advance(world.step())
        steps += 1
        assert steps < 4500

    account = world.buffer.account()
    assert {} == account.dropped
    if isinstance(fault, tuple) and fault[0] == 200:
        assert 5 == account.delivered
        return
    assert (5, 0) == (account.in_flight, account.delivered)
    assert len(world.splunk.asked) < 3600
    news = [name for name, _ in world.told if name != "defect"]
    held = isinstance(fault, tuple) and fault[0] in {400, 401, 403, 404}
    assert ["refused" if held else "failing"] == news

    world.splunk.always = None
    world.run()
    assert ["recovered"] == [name for name, _ in world.told if name != "defect"][1:]
    assert 5 == world.buffer.account().delivered


def test_a_wrong_token_is_tried_once_a_minute_and_alarmed_at_once() -> None:
    """Nothing but a human mends it, and each try is a line in Splunk's own log."""
    world = World()
    world.put(*GOOD)
    world.splunk.always = (403, 4)
    world.clock.advance(1)
    world.step()

    assert [("refused", "403: What HEC says (code 4)")] == world.told
    assert HELD_S * 0.75 <= world.step() <= HELD_S * 1.25
    assert ["post"] == world.splunk.asked


def test_after_an_outage_health_is_asked_and_then_a_few_lines() -> None:
    """A thousand tasks that come back with all they have would end what has just begun to work."""
    world = World(batch_lines=100)
    world.put(*"g" * 60)
    world.splunk.always = (503, 9)
    while world.pace.state is State.WELL:
        world.clock.advance(world.step())
    world.splunk.asked.clear()
    world.clock.advance(30)
    world.step()
    assert ["health"] == world.splunk.asked

    world.splunk.always = None
    world.splunk.bodies, before = [], len(world.splunk.bodies)
    world.clock.advance(30)
    assert 0.0 == world.sender.step()
    assert ["health", "health", "post"] == world.splunk.asked
    assert [PROBE_LINES] == [len(body) for body in world.splunk.bodies]
    world.splunk.bodies += [[]] * before

    world.run()
    assert world.lines == world.splunk.indexed
    assert 0 == world.buffer.account().possible_duplicates


def test_a_hec_without_a_page_of_health_is_asked_with_lines() -> None:
    """Not every receiver has one, and a token's fault is told of lines alone."""
    world = World()
    world.put(*GOOD)
    world.splunk.always = "lost before"
    while world.pace.state is State.WELL:
        world.clock.advance(world.step())
    world.splunk.ask_health = lambda: (Answer(404, b""), 7)  # type: ignore[method-assign]
    before = world.buffer.account().bytes_wire
    world.splunk.always = None
    world.run()

    assert 5 == world.buffer.account().delivered
    assert 7 <= world.buffer.account().bytes_wire - before


def test_what_hec_asks_to_wait_is_waited() -> None:
    """And no request leaves before it is over."""
    world = World()
    world.put(*GOOD)
    world.splunk.post = lambda lines: (Answer(503, b'{"code":9}', 20.0), 1)  # type: ignore[method-assign]
    world.clock.advance(1)
    world.sender.step()

    assert 20.0 <= world.pace.wait_s() <= 20.2


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("place", range(5))
def test_a_refused_line_is_cut_out_and_the_others_arrive_once(kind: str, place: int) -> None:
    """A line that HEC does not like must cost no other."""
    world = World()
    kinds = list(GOOD)
    kinds[place] = kind
    world.put(*kinds)
    world.run()

    account = world.buffer.account()
    assert [line for line in world.lines if line[:1] == b"g"] == world.splunk.indexed
    assert (4, {"rejected": 1}, 0) == (account.delivered, account.dropped, account.possible_duplicates)


def test_all_lines_refused_is_an_end_too() -> None:
    """One request a line, and no more."""
    world = World()
    world.put(*"EBFSSFBE")
    world.run()

    assert ({"rejected": 8}, 0) == (world.buffer.account().dropped, world.buffer.account().delivered)
    assert len(world.splunk.bodies) <= 16


def test_a_refusal_without_a_place_is_found_by_halves() -> None:
    """Some receivers do not name it; where they index what stands before, the rest may come twice, and is counted."""
    splunk = Splunk(FakeClock(), names_places=False)
    world = World(splunk=splunk, clock=splunk.clock)
    world.put(*"gggSgggg")
    world.run()

    account = world.buffer.account()
    assert set(world.lines) - {world.lines[3]} == set(splunk.indexed)
    assert (7, {"rejected": 1}) == (account.delivered, account.dropped)
    assert account.possible_duplicates >= world.duplicates() > 0


def test_too_large_a_batch_is_halved_in_order_and_the_next_are_smaller() -> None:
    """The limit is a proxy's or HEC's own, and nobody tells it."""
    splunk = Splunk(FakeClock(), max_bytes=40_000)
    world = World(splunk=splunk, clock=splunk.clock, batch_bytes=160_000, batch_lines=100)
    world.put(*"g" * 40, size=8000)
    world.run()

    sizes = [sum(map(len, body)) for body in splunk.bodies]
    assert world.lines == splunk.indexed
    assert (40, {}, 0) == (
        (account := world.buffer.account()).delivered, account.dropped, account.possible_duplicates,
    )  # fmt: skip
    # The whole, and its two halves; what was still queued comes in batches that fit.
    assert [160_000, 80_000, 40_000] == sizes[:3]
    assert 3 == sum(size > 40_000 for size in sizes)


def test_a_batch_that_is_refused_for_its_size_does_not_make_later_ones_larger() -> None:
    """Half of a large old batch may be more than what was found to fit since."""
    splunk = Splunk(FakeClock(), max_bytes=40_000)
    world = World(splunk=splunk, clock=splunk.clock, batch_bytes=160_000, batch_lines=100)
    world.put(*"g" * 40, size=8000)
    first, second = world.buffer.take(160_000, 20), world.buffer.take(160_000, 100)
    assert first is not None
    assert second is not None
    # As when they were not confirmed in time.
    world.sender._again.extend([first, second])
    world.run()
    done = len(splunk.bodies)
    world.put(*"g" * 40, size=8000)
    world.run()

    assert 40_000 >= max(sum(map(len, body)) for body in splunk.bodies[done:])


def test_lines_before_a_refused_one_count_as_there_again() -> None:
    """They are indexed with the refusal, and may have been before."""
    world = World()
    world.put(*"ggEgg")
    world.splunk.faults.append("lost after")
    world.run()

    account = world.buffer.account()
    assert (4, 4, 2) == (account.delivered, account.possible_duplicates, world.duplicates())


def test_a_line_that_is_too_large_for_hec_is_dropped_and_the_others_arrive() -> None:
    """It would stand at the head for ever."""
    splunk = Splunk(FakeClock(), max_bytes=500)
    world = World(splunk=splunk, clock=splunk.clock)
    world.put("g", "g")
    world.put("g", size=600)
    world.put("g", "g")
    world.run()

    account = world.buffer.account()
    assert (4, {"oversize": 1}) == (account.delivered, account.dropped)
    assert [line for line in world.lines if len(line) < 500] == splunk.indexed


def test_batches_do_not_shrink_below_what_a_line_may_need() -> None:
    """Else a HEC that calls everything too large would be asked a line at a time for the rest of the day."""
    splunk = Splunk(FakeClock(), max_bytes=1)
    world = World(splunk=splunk, clock=splunk.clock, batch_bytes=100_000, batch_lines=1000)
    world.put(*"g" * 100, size=1000)
    world.run()
    assert {"oversize": 100} == world.buffer.account().dropped

    splunk.max_bytes = 10**9
    world.put(*"g" * 100, size=1000)
    world.run()
    assert [32_000, 32_000, 32_000, 4_000] == [sum(map(len, body)) for body in splunk.bodies[-4:]]


def test_a_nearly_full_hec_is_given_a_pause_between_batches() -> None:
    """It took the lines, and asks for time in this way."""
    world = World(batch_lines=5)
    world.put(*"g" * 10)
    world.splunk.faults.extend([(200, 24), (200, 25)])
    world.step()

    assert (5, 0.5) == (world.buffer.account().delivered, world.step())
    assert [] == world.told


# -- acks


def test_with_acks_a_line_is_delivered_when_it_is_confirmed() -> None:
    """A 200 says that it looked well, before any indexer has seen it."""
    world = World(ack=True)
    world.put(*GOOD)
    world.clock.advance(1)
    world.step()
    assert (5, 0) == (world.buffer.account().in_flight, world.buffer.account().delivered)

    world.run()
    account = world.buffer.account()
    assert (5, 0, 0) == (account.delivered, account.in_flight, account.possible_duplicates)
    assert ["post", "acks"] == world.splunk.asked
    assert sum(map(len, world.lines)) + 5 == account.bytes_wire


def test_what_is_never_confirmed_is_sent_again_and_said_to_be_possibly_twice() -> None:
    """An indexer died with it, or its answer was lost: nobody knows."""
    world = World(ack=True)
    world.put(*GOOD)
    world.splunk.confirms = False
    start_s = world.clock.monotonic()
    while len(world.splunk.bodies) < 2:
        world.clock.advance(world.step())
    assert RESEND_AFTER_S <= world.clock.monotonic() - start_s < RESEND_AFTER_S + 30

    world.splunk.confirms = True
    world.run()
    account = world.buffer.account()
    assert (5, 5, 1) == (account.delivered, account.possible_duplicates, account.retries)


def test_a_hec_that_counts_anew_loses_nothing() -> None:
    """After a restart its numbers begin at 0, and what it had taken and not confirmed is gone."""
    world = World(ack=True, batch_lines=1)
    world.put(*"ggg")
    for _ in range(3):
        world.step()
    assert 3 == len(world.acks)
    world.splunk.restart()
    assert [] == world.splunk.indexed
    world.put(*"gg")
    world.run()

    assert set(world.lines) == set(world.splunk.indexed)
    assert (5, {}) == (world.buffer.account().delivered, world.buffer.account().dropped)


def test_a_token_without_acks_is_told_of_and_lines_count_as_taken() -> None:
    """Else all of them would wait five minutes, be sent again, and fill the buffer."""
    splunk = Splunk(FakeClock(), ack=False)
    world = World(splunk=splunk, clock=splunk.clock, ack=True)
    world.put(*GOOD)
    world.run()
    world.put(*GOOD)
    world.run()

    assert 10 == world.buffer.account().delivered
    assert ["unconfirmed"] == [name for name, _ in world.told]
    assert "acks" not in splunk.asked


def test_acks_that_are_switched_off_later_are_told_of_once() -> None:
    """What waits for them is taken for delivered, and what comes does not wait."""
    world = World(ack=True, batch_lines=5)
    world.put(*"g" * 10)
    world.splunk.ack_faults.append((400, 14))
    world.run()

    assert (10, 0) == (world.buffer.account().delivered, world.buffer.account().in_flight)
    assert ["unconfirmed"] == [name for name, _ in world.told]


@pytest.mark.parametrize("fault", [(404, -1), (400, 10), (503, 9), (500, 8), (403, 4), "html", "lost before", "unsent"])
def test_a_moment_without_acks_does_not_end_them(fault: Fault) -> None:
    """Splunk Cloud answers 404 in its maintenance; lines are not given away for it."""
    world = World(ack=True)
    world.put(*GOOD)
    world.splunk.ack_faults.extend([fault] * 4)
    world.run()

    assert [] == world.told
    assert (5, {"taken": 1}) == (world.buffer.account().delivered, world.buffer.account().results)
    assert 5 == world.splunk.asked.count("acks")


@pytest.mark.parametrize("fault", [(404, -1), (400, 10)])
def test_a_page_of_acks_that_stays_away_is_for_a_human(fault: Fault) -> None:
    """The fifth look in a row is no moment of maintenance."""
    world = World(ack=True)
    world.put(*GOOD)
    world.splunk.ack_faults.extend([fault] * 10)
    world.run()

    assert ["unconfirmed"] == [name for name, _ in world.told]
    assert 5 == world.splunk.asked.count("acks")


@pytest.mark.parametrize("fault", ["lost before", "unsent", "defect", (503, 9), "html"])
def test_lines_are_sent_while_acks_can_not_be_asked_for(fault: Fault) -> None:
    """A page that hangs for ten seconds, asked each ten seconds, would leave no time for anything else."""
    world = World(ack=True, batch_lines=5)
    ask = world.splunk.ask_acks

    def slow(question: bytes) -> tuple[Answer, int]:
        world.clock.advance(10)
        return ask(question)

    world.splunk.ask_acks = slow  # type: ignore[method-assign]
    world.splunk.ack_faults.extend([fault] * 1000)
    for _ in range(30):
        world.put(*GOOD)
        world.steps(3)

    # Those that were overdue came again.
    assert len(world.splunk.bodies) >= 30 - 2
    assert world.buffer.queued_lines <= 10
    assert world.splunk.asked.count("acks") <= 12
    assert State.WELL is world.pace.state


def test_acks_are_asked_for_while_lines_keep_coming() -> None:
    """A sender that is always busy would never let go of what is confirmed, and its buffer fill."""
    world = World(ack=True, batch_lines=5)
    for _ in range(40):
        world.put(*GOOD)
        world.step()
        world.clock.advance(1)

    assert 3 <= world.splunk.asked.count("acks") <= 5
    assert world.buffer.account().delivered > 100


# -- in a hurry


def test_in_a_hurry_nothing_lingers_and_acks_are_asked_for_at_once() -> None:
    """There are three seconds, and what is confirmed in them was not lost."""
    world = World(ack=True)
    world.put("g")
    world.sender.is_hurried = True
    start_s = world.clock.monotonic()
    world.run()

    assert (1, {}) == (world.buffer.account().delivered, world.buffer.account().dropped)
    assert world.clock.monotonic() - start_s < 0.6


@pytest.mark.parametrize("fault", [(503, 9), (403, 4), "unsent"])
def test_in_a_hurry_a_breaker_that_is_open_is_tried_again_and_again(fault: Fault) -> None:
    """But with pauses, and as soon as HEC is back all of it leaves."""
    world = World()
    world.put(*"g" * 30)
    world.splunk.always = fault
    world.steps(60)
    asked = len(world.splunk.asked)
    world.sender.is_hurried = True
    start_s = world.clock.monotonic()
    while world.clock.monotonic() - start_s < 3:
        world.clock.advance(world.step())
    assert 10 <= len(world.splunk.asked) - asked <= 200

    world.splunk.always = None
    start_s = world.clock.monotonic()
    world.run()
    assert world.lines == world.splunk.indexed
    assert world.clock.monotonic() - start_s < 0.5


# -- defects


@pytest.mark.parametrize("name", ["failing", "refused", "recovered", "unconfirmed"])
def test_a_hook_that_raises_costs_no_line(name: str) -> None:
    """It is somebody else's code, called in the midst of ours."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    ack = name == "unconfirmed"
    splunk = Splunk(FakeClock(), ack=False)
    world = World(splunk=splunk, clock=splunk.clock, ack=ack)
    world.sender._hooks = msgspec.structs.replace(world.sender._hooks, **{name: broken})
    world.put(*GOOD)
    world.splunk.faults.extend([(403, 4)] * 6 if name == "refused" else [(503, 9)] * 6)
    world.run()

    assert (5, True) == (world.buffer.account().delivered, ("defect", "ZeroDivisionError") in world.told)


def test_health_that_raises_what_nobody_expects_costs_no_line() -> None:
    """A batch that was taken for a probe would be in flight for ever."""
    world = World()
    world.put(*GOOD)
    world.splunk.always = (503, 9)
    while world.pace.state is State.WELL:
        world.clock.advance(world.step())
    ask = world.splunk.ask_health

    def broken() -> tuple[Answer, int]:
        world.splunk.ask_health = ask  # type: ignore[method-assign]
        raise ZeroDivisionError

    world.splunk.ask_health = broken  # type: ignore[method-assign]
    world.splunk.always = None
    world.clock.advance(60)
    with pytest.raises(ZeroDivisionError):
        world.sender.step()

    world.run()
    assert 5 == world.buffer.account().delivered


def test_what_is_given_up_under_a_request_stays_given_up() -> None:
    """The stop's deadline passes while HEC thinks; its answer is a success, and too late."""
    world = World()
    world.put(*GOOD)
    post = world.splunk.post

    def late(lines: bytes) -> tuple[Answer, int]:
        world.buffer.give_up(Drop.SHUTDOWN, Drop.UNCONFIRMED)
        return post(lines)

    world.splunk.post = late  # type: ignore[method-assign]
    world.clock.advance(1)
    world.sender.step()

    account = world.buffer.account()
    assert ({"unconfirmed": 5}, 0, 0, True) == (account.dropped, account.delivered, account.requests, account.is_exact)


def test_a_request_that_went_in_part_is_counted_on_the_wire() -> None:
    """What a load balancer has seen of it, it has counted."""
    world = World()
    world.put(*GOOD)

    def broken(lines: bytes) -> tuple[Answer, int]:
        raise HecUnanswered("ReadTimeout", wire_bytes=123)

    world.splunk.post = broken  # type: ignore[method-assign]
    world.clock.advance(1)
    world.sender.step()

    assert (123, {"unanswered": 1}) == (
        (account := world.buffer.account()).bytes_wire, account.results,
    )  # fmt: skip


# -- the crown


@settings(max_examples=150)
@given(
    kinds=st.lists(st.sampled_from("gggggggEBFS"), min_size=1, max_size=60),
    faults=st.lists(st.none() | st.sampled_from(FAULTS), max_size=25),
    ack_faults=st.lists(st.none() | st.sampled_from(FAULTS[:12]), max_size=6),
    ack=st.booleans(), names_places=st.booleans(), is_hurried=st.booleans(),
    max_bytes=st.sampled_from([10**9, 300, 60, 30]), batch_lines=st.integers(1, 20),
    waves=st.integers(1, 4), restart_after=st.none() | st.integers(1, 30), seed=st.integers(0, 2**20),
)  # fmt: skip
@example(
    kinds=list("gSg"), faults=["lost after", "lost after"], ack_faults=[], ack=False, names_places=True,
    is_hurried=False, max_bytes=10**9, batch_lines=20, waves=1, restart_after=None, seed=0,
)  # fmt: skip
def test_whatever_happens_each_good_line_arrives_and_each_bad_one_is_counted(
    kinds: list[str], faults: list[Fault | None], ack_faults: list[Fault | None], ack: bool, names_places: bool,
    is_hurried: bool, max_bytes: int, batch_lines: int, waves: int, restart_after: int | None, seed: int,
) -> None:  # fmt: skip
    """At every step the accounts are exact; at the end nothing is missing, and what is there twice was foretold."""
    clock = FakeClock()
    splunk = Splunk(clock, ack=ack, max_bytes=max_bytes, names_places=names_places)
    world = World(seed=seed, splunk=splunk, clock=clock, ack=ack, batch_lines=batch_lines)
    splunk.faults.extend(faults)
    splunk.ack_faults.extend(ack_faults)
    world.sender.is_hurried = is_hurried
    for wave in range(waves):
        world.put(*kinds[wave::waves])
        world.steps(4)
        if restart_after is not None and wave == 0 and ack:
            world.steps(restart_after)
            splunk.restart()
    world.run(most=6000)

    account = world.buffer.account()
    good = [line for line in world.lines if line[:1] == b"g"]
    bad = len(world.lines) - len(good)
    assert (0, 0, 0) == (account.queued, account.in_flight, account.held_bytes)
    assert {"rejected": bad} if bad else {} == account.dropped
    assert len(good) == account.delivered
    if restart_after is None or not any(name == "unconfirmed" for name, _ in world.told):
        assert set(good) == set(splunk.indexed)
    assert account.possible_duplicates >= world.duplicates()
    is_doubtful = account.possible_duplicates or (ack and restart_after is not None)
    if not is_doubtful:
        assert Counter(good) == Counter(splunk.indexed)
    if not is_doubtful and not ack and max_bytes > 10**6 and names_places and "S" not in kinds:
        assert good == splunk.indexed


def test_a_sender_keeps_nothing_of_what_was_given_up(clock: FakeClock) -> None:
    """The end is the end: no later step sends what was counted as dropped, as far as the accounts are concerned."""
    world = World()
    world.put(*"g" * 25)
    world.splunk.faults.append((503, 9))
    world.clock.advance(1)
    world.step()
    world.buffer.give_up(Drop.SHUTDOWN, Drop.UNCONFIRMED)
    last = world.buffer.account()
    for _ in range(50):
        world.clock.advance(world.sender.step())

    assert last == world.buffer.account()
    assert isinstance(world.buffer, HecBuffer)

"""The buffer holds no more than it may, and can say at any moment what became of each line."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from collector.telemetry.hec.buffer import Batch, Drop, HecBuffer, Loss
from tests.fakes import FakeClock

LIMIT = 1000
#: What lines that are no warnings may use of it: an eighth is the reserve.
COMMON = 875


@pytest.fixture(name="buffer")
def _buffer(clock: FakeClock) -> HecBuffer:
    return HecBuffer(LIMIT, clock=clock)


def put(buffer: HecBuffer, *lines: bytes, is_severe: bool = False) -> None:
    for line in lines:
        assert buffer.put(line, is_severe=is_severe)


def taken(buffer: HecBuffer, max_bytes: int = LIMIT, max_lines: int = 100) -> Batch:
    batch = buffer.take(max_bytes, max_lines)
    assert batch is not None
    return batch


def data_of(batch: Batch) -> list[bytes]:
    return [line.data for line in batch.lines]


def test_a_line_is_queued_then_in_flight_then_delivered(buffer: HecBuffer, clock: FakeClock) -> None:
    """Each of these is a number that an operator can look at."""
    put(buffer, b"one", b"three")
    queued = buffer.account()
    clock.advance(2.5)
    batch = taken(buffer)
    flying = buffer.account()
    buffer.deliver(batch)
    delivered = buffer.account()

    assert (2, 2, 0, 0, 8, 8) == (
        queued.emitted, queued.queued, queued.in_flight, queued.delivered, queued.held_bytes, queued.bytes_in,
    )  # fmt: skip
    assert (0, 2, 0, 8, 2.5) == (
        flying.queued, flying.in_flight, flying.delivered, flying.held_bytes, flying.oldest_age_s,
    )  # fmt: skip
    assert (0, 0, 2, 0, 8, 0.0) == (
        delivered.queued, delivered.in_flight, delivered.delivered, delivered.held_bytes, delivered.high_water_bytes,
        delivered.oldest_age_s,
    )  # fmt: skip
    assert [b"one", b"three"] == data_of(batch)


def test_what_is_in_flight_takes_room_until_its_fate_is_known(buffer: HecBuffer) -> None:
    """A bound that forgot what was sent would be none while HEC is silent."""
    put(buffer, b"x" * COMMON)
    batch = taken(buffer)

    assert not buffer.put(b"y", is_severe=False)

    buffer.deliver(batch)
    put(buffer, b"y")
    assert {"full": 1} == buffer.account().dropped


def test_the_newest_line_loses(buffer: HecBuffer) -> None:
    """The first lines of an incident tell what began it."""
    put(buffer, b"a" * 400, b"b" * 400)

    assert not buffer.put(b"c" * 100, is_severe=False)

    assert [b"a" * 400, b"b" * 400] == data_of(taken(buffer))


def test_a_reserve_is_kept_for_warnings(buffer: HecBuffer) -> None:
    """What floods a buffer are infos, and what tells why are not."""
    put(buffer, b"x" * COMMON)

    assert not buffer.put(b"i", is_severe=False)
    put(buffer, b"w" * (LIMIT - COMMON), is_severe=True)
    assert not buffer.put(b"w", is_severe=True)

    account = buffer.account()
    assert ({"full": 2}, LIMIT, LIMIT) == (account.dropped, account.held_bytes, account.high_water_bytes)


def test_the_reserve_of_a_large_buffer_is_a_mebibyte() -> None:
    """An eighth of 100 MiB would be taken from infos for nothing."""
    buffer = HecBuffer(100 << 20, clock=FakeClock())

    put(buffer, b"x" * (99 << 20))

    assert not buffer.put(b"x", is_severe=False)


def test_a_batch_holds_no_more_bytes_or_lines_than_it_may(buffer: HecBuffer) -> None:
    """HEC refuses a body that is too large, and all of its lines with it."""
    put(buffer, b"aa", b"bb", b"cc", b"dd", b"ee")

    assert [b"aa", b"bb"] == data_of(taken(buffer, 5, 100))
    assert [b"cc"] == data_of(taken(buffer, 100, 1))
    assert [b"dd", b"ee"] == data_of(taken(buffer, 4, 100))
    assert buffer.take(100, 100) is None


def test_a_line_over_the_batch_goes_alone(buffer: HecBuffer) -> None:
    """It would stand at the head of the queue for ever, and all others behind it."""
    put(buffer, b"x" * 50, b"y")

    assert [b"x" * 50] == data_of(taken(buffer, 10, 100))
    assert (1, 1) == (buffer.queued_lines, buffer.queued_bytes)


def test_a_line_that_can_not_be_queued_is_counted(buffer: HecBuffer) -> None:
    """What is refused for its size or its form was emitted all the same."""
    buffer.refuse(Drop.OVERSIZE, 70_000)
    buffer.refuse(Drop.FORMAT)

    account = buffer.account()
    assert (2, {"oversize": 1, "format": 1}, 70_000, 0) == (
        account.emitted, account.dropped, account.bytes_in, account.held_bytes,
    )  # fmt: skip
    assert account.is_exact


def test_losses_say_when_the_first_and_the_last_were_and_are_told_once(buffer: HecBuffer, clock: FakeClock) -> None:
    """The summary that an operator reads in place of the lines has these numbers."""
    start_us = clock.now_us()
    put(buffer, b"x" * COMMON)
    buffer.put(b"y", is_severe=False)
    clock.advance(3)
    buffer.put(b"y", is_severe=False)
    buffer.refuse(Drop.FORMAT)

    assert [
        Loss(Drop.FULL, 2, start_us, start_us + 3_000_000),
        Loss(Drop.FORMAT, 1, start_us + 3_000_000, start_us + 3_000_000),
    ] == buffer.take_losses()
    assert [] == buffer.take_losses()

    clock.advance(1)
    buffer.put(b"y", is_severe=False)
    assert [Loss(Drop.FULL, 1, start_us + 4_000_000, start_us + 4_000_000)] == buffer.take_losses()


def test_losses_are_told_once_there_is_room_again(buffer: HecBuffer) -> None:
    """One summary of a whole flood, and not one each second of it."""
    put(buffer, b"x" * COMMON)
    buffer.put(b"y", is_severe=False)

    assert not buffer.may_tell()
    buffer.deliver(taken(buffer))
    assert buffer.may_tell()
    assert buffer.may_tell()


def test_room_again_means_less_than_half(buffer: HecBuffer) -> None:
    """At the brim there is room for a line after each batch, and the flood goes on."""
    put(buffer, b"x" * 437, b"y" * 438)
    buffer.put(b"z", is_severe=False)
    buffer.deliver(taken(buffer, 437, 1))

    assert not buffer.may_tell()

    buffer.deliver(taken(buffer))
    put(buffer, b"x" * 436)
    assert buffer.may_tell()


def test_losses_that_go_on_are_told_each_minute(buffer: HecBuffer, clock: FakeClock) -> None:
    """An outage of hours must not be silent until it ends."""
    put(buffer, b"x" * COMMON)
    buffer.put(b"y", is_severe=False)
    clock.advance(59.9)
    assert not buffer.may_tell()

    clock.advance(0.1)
    assert buffer.may_tell()
    assert not buffer.may_tell()

    clock.advance(60)
    assert buffer.may_tell()


def test_the_minute_begins_with_the_first_loss(buffer: HecBuffer, clock: FakeClock) -> None:
    """Else each further loss would put the telling off, and a steady flood would never be told."""
    put(buffer, b"x" * COMMON)
    for _ in range(60):
        buffer.put(b"y", is_severe=False)
        clock.advance(1)

    assert buffer.may_tell()


def test_without_losses_there_is_nothing_to_hold_back(buffer: HecBuffer) -> None:
    """A full buffer alone is none of the summary's business."""
    put(buffer, b"x" * COMMON)

    assert buffer.may_tell()


def test_parts_of_a_batch_keep_its_past(buffer: HecBuffer) -> None:
    """A line that may have arrived in the whole may arrive again in a part."""
    put(buffer, b"a", b"bb", b"ccc")
    batch = taken(buffer)
    buffer.leaving(batch)
    buffer.answered(batch, "unanswered", wire_bytes=10, arrived=3, in_doubt=True)

    first, second = buffer.split(batch, [batch.lines[:1], [], batch.lines[1:]])
    buffer.leaving(second)
    buffer.answered(second, "taken", wire_bytes=10, arrived=2, in_doubt=False)
    buffer.deliver(second)
    buffer.deliver(batch)

    assert ([b"a"], [b"bb", b"ccc"], 5) == (data_of(first), data_of(second), second.size)
    account = buffer.account()
    assert (2, 1, 1, 1, 2, 20) == (
        account.delivered, account.in_flight, account.held_bytes, account.retries, account.possible_duplicates,
        account.bytes_wire,
    )  # fmt: skip


def test_possible_duplicates_are_those_that_may_have_come_twice(buffer: HecBuffer) -> None:
    """As many as Splunk may have too many, so each time counts, and what surely did not arrive does not."""
    put(buffer, b"a", b"b", b"c")
    batch = taken(buffer)

    def send(result: str, arrived: int, *, in_doubt: bool = False) -> int:
        buffer.leaving(batch)
        buffer.answered(batch, result, wire_bytes=0, arrived=arrived, in_doubt=in_doubt)
        return buffer.account().possible_duplicates

    assert 0 == send("again", 0)
    assert 0 == send("unanswered", 3, in_doubt=True)
    assert 0 == send("unsent", 0)
    assert 3 == send("unanswered", 3, in_doubt=True)
    assert 4 == send("cut", 1)
    assert 7 == send("taken", 3)
    account = buffer.account()
    assert (5, 6) == (account.retries, account.requests)
    assert {"again": 1, "unanswered": 2, "unsent": 1, "cut": 1, "taken": 1} == account.results


def test_at_the_end_what_was_sent_in_vain_is_told_from_what_was_not(buffer: HecBuffer) -> None:
    """The one may be in Splunk, the other surely is not."""
    put(buffer, b"unanswered", b"out", b"refused", b"taken into flight", b"queued")
    batches = [taken(buffer, LIMIT, 1) for _ in range(4)]
    for batch in batches[:3]:
        buffer.leaving(batch)
    buffer.answered(batches[0], "unanswered", wire_bytes=1, arrived=1, in_doubt=True)
    buffer.answered(batches[2], "again", wire_bytes=1, arrived=0, in_doubt=False)

    buffer.give_up(Drop.SHUTDOWN, Drop.UNCONFIRMED)

    account = buffer.account()
    assert ({"shutdown": 3, "unconfirmed": 2}, 0, 0) == (account.dropped, account.held_bytes, buffer.queued_bytes)
    assert (True, 0.0) == (account.is_exact, account.oldest_age_s)


def test_what_is_out_for_a_second_time_at_the_end_may_be_there_twice(buffer: HecBuffer) -> None:
    """Nobody will tell any more, and the count is a bound."""
    put(buffer, b"a", b"b")
    batch = taken(buffer)
    buffer.leaving(batch)
    buffer.answered(batch, "unanswered", wire_bytes=1, arrived=2, in_doubt=True)
    buffer.leaving(batch)

    buffer.give_up(Drop.SHUTDOWN, Drop.UNCONFIRMED)

    assert 2 == buffer.account().possible_duplicates


def test_after_the_end_no_answer_changes_an_account_and_lines_are_dropped(buffer: HecBuffer) -> None:
    """The last account is reported, and what comes after it would be a line too many or too few."""
    put(buffer, b"aa", b"bb", b"cc")
    one, two = taken(buffer, LIMIT, 1), taken(buffer, LIMIT, 1)
    buffer.leaving(one)
    buffer.give_up(Drop.SHUTDOWN, Drop.UNCONFIRMED)
    last = buffer.account()

    buffer.answered(one, "taken", wire_bytes=100, arrived=1, in_doubt=False)
    buffer.deliver(one)
    buffer.leaving(two)
    buffer.asked(50)
    for part in buffer.split(two, [two.lines]):
        buffer.deliver(part)
    buffer.drop(two, Drop.REJECTED)
    assert last == buffer.account()

    assert not buffer.put(b"late", is_severe=True)
    account = buffer.account()
    assert (3, 0, 0) == (account.dropped["shutdown"], account.queued, account.held_bytes)
    assert account.is_exact


def test_reset_begins_anew(buffer: HecBuffer, clock: FakeClock) -> None:
    """A fork's copy of its parent's lines would be sent twice."""
    put(buffer, b"aa", b"bb")
    batch = taken(buffer, LIMIT, 1)
    buffer.refuse(Drop.FORMAT)
    buffer.give_up(Drop.SHUTDOWN, Drop.UNCONFIRMED)

    buffer.reset()
    fresh = HecBuffer(LIMIT, clock=clock)
    buffer.deliver(batch)
    buffer.answered(batch, "taken", wire_bytes=9, arrived=1, in_doubt=True)

    assert (fresh.account(), [], True) == (buffer.account(), buffer.take_losses(), buffer.may_tell())
    put(buffer, b"cc")
    assert [b"cc"] == data_of(taken(buffer))


def test_who_logs_while_the_lock_is_held_does_not_wait_for_itself() -> None:
    """A signal's handler or a finalizer may run anywhere, and a logger that stands still there stands for good."""

    class LoggingClock(FakeClock):
        lines = 3

        def now_us(self) -> int:
            if self.lines:
                self.lines -= 1
                buffer.put(b"from within", is_severe=False)
            return super().now_us()

    buffer = HecBuffer(LIMIT, clock=LoggingClock())
    done = threading.Event()

    def act() -> None:
        buffer.refuse(Drop.FORMAT)
        done.set()

    threading.Thread(target=act, daemon=True).start()

    assert done.wait(20)
    account = buffer.account()
    assert (2, 1, {"format": 1}, True) == (account.emitted, account.queued, account.dropped, account.is_exact)


def test_many_threads_lose_nothing_between_them() -> None:
    """Workers log from the loop and from threads, while the sender takes and delivers."""
    buffer = HecBuffer(20_000, clock=FakeClock())
    putters, each = 4, 3000
    refused: Counter[int] = Counter()
    delivered: list[bytes] = []
    odd: list[object] = []
    over = threading.Event()

    def put_many(number: int) -> None:
        for count in range(each):
            if not buffer.put(b"%d-%d" % (number, count), is_severe=count % 7 == 0):
                refused[number] += 1

    def send() -> None:
        while (batch := buffer.take(500, 50)) or not over.is_set():
            if batch is None:
                continue
            buffer.leaving(batch)
            one, *rest = buffer.split(batch, [batch.lines[:3], batch.lines[3:]])
            buffer.answered(one, "taken", wire_bytes=1, arrived=len(one), in_doubt=False)
            for part in (one, *rest):
                delivered.extend(data_of(part))
                buffer.deliver(part)

    def look() -> None:
        while not over.is_set():
            account = buffer.account()
            if not account.is_exact or account.held_bytes > 20_000:
                odd.append(account)
            buffer.take_losses()

    threads = [threading.Thread(target=put_many, args=(number,)) for number in range(putters)]
    others = [threading.Thread(target=send), threading.Thread(target=look)]
    for thread in [*others, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    for thread in others:
        thread.join()

    account = buffer.account()
    assert [] == odd
    assert (putters * each, len(delivered), sum(refused.values())) == (
        account.emitted, account.delivered, account.dropped.get("full", 0),
    )  # fmt: skip
    assert (True, 0, 0) == (account.is_exact, account.held_bytes, account.queued)
    for number in range(putters):
        own = [int(line.split(b"-")[1]) for line in delivered if line.startswith(b"%d-" % number)]
        assert own == sorted(set(own))
        assert each == len(own) + refused[number]


class BufferMachine(RuleBasedStateMachine):
    """Everything that a handler and a sender do, in any order, beside books that are kept apart."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.buffer = HecBuffer(LIMIT, clock=self.clock)
        self.queue: list[tuple[bytes, float]] = []
        self.flying: list[Batch] = []
        self.gone: list[Batch] = []
        self.emitted = self.delivered = self.high = self.bytes_in = self.wire = self.requests = 0
        self.dropped: Counter[str] = Counter()
        self.untold: dict[Drop, list[int]] = {}
        self.is_over = False

    def drop(self, reason: Drop, count: int) -> None:
        self.dropped[reason.value] += count
        now = self.clock.now_us()
        told = self.untold.setdefault(reason, [0, now, now])
        told[0] += count
        told[2] = now

    @property
    def held(self) -> int:
        return sum(len(data) for data, _ in self.queue) + sum(batch.size for batch in self.flying)

    @rule(size=st.integers(1, 400), is_severe=st.booleans())
    def put(self, size: int, is_severe: bool) -> None:
        fits = self.held + size <= (LIMIT if is_severe else COMMON) and not self.is_over
        self.emitted += 1
        self.bytes_in += size
        data = b"%d" % self.emitted + b"x" * size
        data = data[:size]

        assert fits is self.buffer.put(data, is_severe=is_severe)

        if fits:
            self.queue.append((data, self.clock.monotonic()))
            self.high = max(self.high, self.held)
        else:
            self.drop(Drop.SHUTDOWN if self.is_over else Drop.FULL, 1)

    @rule(reason=st.sampled_from([Drop.OVERSIZE, Drop.FORMAT, Drop.SHUTDOWN]), size=st.integers(0, 100_000))
    def refuse(self, reason: Drop, size: int) -> None:
        self.buffer.refuse(reason, size)
        self.emitted += 1
        self.bytes_in += size
        self.drop(reason, 1)

    @rule(max_bytes=st.integers(1, 600), max_lines=st.integers(1, 5))
    def take(self, max_bytes: int, max_lines: int) -> None:
        batch = self.buffer.take(max_bytes, max_lines)
        if batch is None:
            assert not self.queue
            return
        expected = [self.queue[: len(batch)][number][0] for number in range(len(batch))]
        assert expected == data_of(batch)
        assert len(batch) == 1 or batch.size <= max_bytes
        assert len(batch) <= max_lines
        more = self.queue[len(batch) : len(batch) + 1]
        assert not more or len(batch) == max_lines or batch.size + len(more[0][0]) > max_bytes
        del self.queue[: len(batch)]
        self.flying.append(batch)

    @precondition(lambda self: self.flying)
    @rule(
        data=st.data(), fate=st.sampled_from(["deliver", "drop", "split", "unanswered", "taken", "unsent"]),
        wire=st.integers(0, 500),
    )  # fmt: skip
    def meet(self, data: st.DataObject, fate: str, wire: int) -> None:
        batch = data.draw(st.sampled_from(self.flying))
        if fate in {"unanswered", "taken", "unsent"}:
            before = self.buffer.account().possible_duplicates
            was_in_doubt = batch.in_doubt
            self.buffer.leaving(batch)
            arrived = 0 if fate == "unsent" else len(batch)
            self.buffer.answered(batch, fate, wire_bytes=wire, arrived=arrived, in_doubt=fate == "unanswered")
            self.wire += wire
            self.requests += 1
            assert (arrived if was_in_doubt else 0) == self.buffer.account().possible_duplicates - before
            assert batch.in_doubt is (was_in_doubt or fate == "unanswered")
            return
        self.flying.remove(batch)
        self.gone.append(batch)
        if fate == "deliver":
            self.buffer.deliver(batch)
            self.delivered += len(batch)
        elif fate == "drop":
            self.buffer.drop(batch, Drop.REJECTED)
            self.drop(Drop.REJECTED, len(batch))
        else:
            cut = data.draw(st.integers(0, len(batch)))
            self.flying += self.buffer.split(batch, [batch.lines[:cut], batch.lines[cut:]])

    @precondition(lambda self: self.gone)
    @rule(data=st.data(), wire=st.integers(0, 500))
    def hear_late(self, data: st.DataObject, wire: int) -> None:
        batch = data.draw(st.sampled_from(self.gone))
        self.buffer.leaving(batch)
        self.buffer.answered(batch, "taken", wire_bytes=wire, arrived=len(batch), in_doubt=True)
        self.buffer.deliver(batch)
        self.buffer.drop(batch, Drop.REJECTED)
        self.gone += self.buffer.split(batch, [batch.lines])

    @rule()
    def end(self) -> None:
        for batch in self.flying:
            self.drop(Drop.UNCONFIRMED if batch.in_doubt else Drop.SHUTDOWN, len(batch))
        if self.queue:
            self.drop(Drop.SHUTDOWN, len(self.queue))
        self.gone += self.flying
        self.flying, self.queue, self.is_over = [], [], True
        self.buffer.give_up(Drop.SHUTDOWN, Drop.UNCONFIRMED)

    @rule(seconds=st.sampled_from([0.5, 10.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def tell(self) -> None:
        if self.buffer.may_tell():
            losses = {loss.reason: [loss.count, loss.first_us, loss.last_us] for loss in self.buffer.take_losses()}
            assert self.untold == losses
            self.untold = {}

    @invariant()
    def adds_up(self) -> None:
        account = self.buffer.account()
        assert account.is_exact
        assert self.emitted == account.emitted
        assert self.delivered == account.delivered
        assert dict(self.dropped) == account.dropped
        assert sum(self.dropped.values()) == account.lost
        assert (len(self.queue), sum(len(batch) for batch in self.flying)) == (account.queued, account.in_flight)
        assert (self.held, self.high, self.bytes_in) == (
            account.held_bytes, account.high_water_bytes, account.bytes_in,
        )  # fmt: skip
        assert account.held_bytes <= LIMIT
        assert (self.wire, self.requests) == (account.bytes_wire, account.requests)
        assert sum(len(data) for data, _ in self.queue) == self.buffer.queued_bytes
        oldest = [at_s for _, at_s in self.queue[:1]] + [batch.lines[0].at_s for batch in self.flying]
        assert (self.clock.monotonic() - min(oldest) if oldest else 0.0) == account.oldest_age_s
        assert (self.clock.monotonic() - self.queue[0][1] if self.queue else 0.0) == self.buffer.oldest_queued_age_s()


TestBufferMachine = BufferMachine.TestCase
TestBufferMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

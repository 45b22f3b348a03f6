"""UUIDv7: the layout of RFC 9562, the order of making, and no two alike."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from collector.uuid7 import Uuid7
from tests.fakes import FakeClock


def time_ms(text: str) -> int:
    """Read the first 48 bits."""
    return int(text.replace("-", "")[:12], 16)


def constant(byte: int) -> Callable[[int], bytes]:
    return lambda count: bytes([byte]) * count


def test_an_id_is_a_version_7_uuid_with_the_milliseconds_of_its_clock() -> None:
    """Readers sort by id, and tools tell the version by its digit."""
    clock = FakeClock()

    made = Uuid7(clock)()

    assert 36 == len(made)
    assert str(uuid.UUID(made)) == made
    assert 7 == uuid.UUID(made).version
    assert uuid.RFC_4122 == uuid.UUID(made).variant
    assert clock.now_us() // 1000 == time_ms(made)


def test_ids_of_one_millisecond_are_in_the_order_of_their_making() -> None:
    """Within a millisecond chance alone would shuffle them."""
    ids = Uuid7(FakeClock())

    made = [ids() for _ in range(2000)]

    assert sorted(made) == made
    assert 2000 == len(set(made))


def test_a_clock_that_goes_back_keeps_the_order_and_the_time_of_before() -> None:
    """NTP steps back; an id must not repeat, nor sort before one that was given out."""
    clock = FakeClock()
    ids = Uuid7(clock)
    first = ids()
    before_ms = time_ms(first)

    clock.advance(-3600)
    second = ids()

    assert first < second
    assert before_ms == time_ms(second)


def test_time_goes_on_as_soon_as_the_clock_has_caught_up() -> None:
    """An hour's step back must not freeze the time in ids for good."""
    clock = FakeClock()
    ids = Uuid7(clock)
    ids()
    clock.advance(-3600)
    ids()

    clock.advance(3601)

    assert clock.now_us() // 1000 == time_ms(ids())


def test_many_are_consecutive_and_follow_what_was_given_before() -> None:
    """An upload of 10,000 events without ids needs them in the order of the events."""
    ids = Uuid7(FakeClock())
    before = ids()

    made = ids.many(10_000)
    after = ids()

    numbers = [uuid.UUID(text).int for text in made]
    assert list(range(numbers[0], numbers[0] + 10_000)) == numbers
    assert before < made[0]
    assert made[-1] < after


def test_many_are_followed_by_the_next_even_if_chance_gives_nothing() -> None:
    """Whatever the source of randomness says, what was given out is not given again."""
    ids = Uuid7(FakeClock(), constant(0x00))

    made = [*ids.many(10), ids(), *ids.many(3)]

    assert sorted(set(made)) == made


def test_many_cost_one_draw_of_randomness() -> None:
    """A system call an id would be most of the cost of a large upload."""
    draws: list[int] = []

    def random_bytes(count: int) -> bytes:
        draws.append(count)
        return os.urandom(count)

    ids = Uuid7(FakeClock(), random_bytes)
    ids.many(10_000)
    for _ in range(63):
        ids()

    assert 1 == len(draws)
    ids()
    assert 2 == len(draws)


def test_none_are_made_when_none_are_wanted() -> None:
    """Most uploads bring their own ids."""
    assert [] == Uuid7(FakeClock()).many(0)


def test_a_run_that_crosses_the_last_group_carries_into_the_next() -> None:
    """The short way formats the last 12 digits alone; it must notice when they overflow."""
    ids = Uuid7(FakeClock(), constant(0xFF))

    made = ids.many(3)

    assert ["ffffffffffff", "000000000000", "000000000001"] == [text[-12:] for text in made]
    assert sorted(made) == made
    assert {7} == {uuid.UUID(text).version for text in made}


def test_a_full_random_range_carries_into_the_time() -> None:
    """RFC 9562 lets the time run ahead rather than an id repeat."""
    clock = FakeClock()
    ids = Uuid7(clock, constant(0xFF))
    first = ids()

    # Each step is 2^48; the upper half of 74 bits is used up after 2^25 of them, so jump there.
    ids._last |= (1 << 74) - 1
    second = ids()

    assert first < second
    assert time_ms(first) + 1 == time_ms(second)
    assert 7 == uuid.UUID(second).version


def test_processes_with_the_same_clock_share_no_id() -> None:
    """Workers start in the same millisecond; only chance tells their ids apart."""
    clock = FakeClock()

    made = [text for _ in range(50) for text in Uuid7(clock).many(200)]

    assert 50 * 200 == len(set(made))


def test_a_maker_that_is_forked_parts_from_its_parent() -> None:
    """A fork copies the state; the next ids of both must differ all the same."""
    ids = Uuid7(FakeClock())
    ids()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, ids().encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(read_end, 36).decode()
    os.close(read_end)
    os.close(write_end)

    assert theirs != ids()
    assert 7 == uuid.UUID(theirs).version


@given(st.lists(st.tuples(st.integers(-5_000, 5_000), st.integers(0, 40)), max_size=40))
def test_no_walk_of_the_clock_breaks_the_order(steps: list[tuple[int, int]]) -> None:
    """Forward, back or still: the next id is the greater one."""
    clock = FakeClock()
    ids = Uuid7(clock)
    made: list[str] = []

    for milliseconds, count in steps:
        clock.advance(milliseconds / 1000)
        made += ids.many(count)
        made.append(ids())

    assert sorted(set(made)) == made

"""Lines for a load: made as the real ones are, and each of them to be told from all others."""

from __future__ import annotations

import json

import pytest
from isal import igzip

from collector.control.hec.lines import Lines
from collector.errors import LinesSpent
from collector.telemetry.catalogue import SIGNALS

NOW_US = 1_790_000_000_000_000


def test_a_line_is_one_of_collectors_own_signals() -> None:
    """Random bytes have another size and do not compress; the buffer would be chosen for them."""
    made = [Lines(now_us=NOW_US).next() for _ in range(1)] + [Lines(now_us=NOW_US, seed=3).next()]
    lines = Lines(now_us=NOW_US)
    made += [lines.next() for _ in range(3000)]

    for line, level in made:
        told = json.loads(line)
        assert level == told["level"]
        assert level in SIGNALS[told["event"]].levels
        assert ["ts", "level", "event"] == list(told)[:3]
        assert b"\n" not in line
    assert {"info", "warning", "error"} == {level for _, level in made}
    assert len({json.loads(line)["event"] for line, _ in made}) >= 8


def test_no_line_is_like_another() -> None:
    """A line that arrives twice is told from two lines by its text."""
    lines = Lines(now_us=NOW_US)
    made = [lines.next()[0] for _ in range(5000)]

    assert list(range(5000)) == [json.loads(line)["seq"] for line in made]
    assert 5000 == len(set(made)) == lines.made


def test_lines_compress_as_log_lines_do() -> None:
    """Real ones shrink to between a fourth and a fifteenth."""
    body = b"".join(Lines(now_us=NOW_US).sample(700))

    assert 4 < len(body) / len(igzip.compress(body, 1)) < 15


def test_the_same_seed_makes_the_same_lines_and_a_sample_counts_for_nothing() -> None:
    """Two runs differ in what is measured, not in what was sent."""
    one, same, other = Lines(now_us=NOW_US), Lines(now_us=NOW_US), Lines(now_us=NOW_US, seed=1)
    one.sample(10)

    assert [one.next() for _ in range(50)] == [same.next() for _ in range(50)]
    assert same.next() != other.next()
    assert 0.2 < one.severe_part < 0.8


def test_there_are_no_more_lines_than_there_may_be() -> None:
    """A real HEC has a licence, by the byte."""
    lines = Lines(now_us=NOW_US, limit=2)
    lines.next()
    lines.next()

    with pytest.raises(LinesSpent, match="as many lines were sent as may be"):
        lines.next()
    assert 2 == lines.made

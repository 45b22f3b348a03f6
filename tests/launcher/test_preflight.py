"""What a preflight makes of what its child said."""

from __future__ import annotations

import pytest

from collector.launcher.plan import read_handoff, write_handoff
from collector.launcher.preflight import last_words
from collector.receiver.notice import MAX_PROBLEM_BYTES
from collector.settings import Settings, from_json


def test_of_a_traceback_the_end_is_told() -> None:
    """The outer frames are ours, the last one is the reader's: whoever broke a file must know which."""
    text = (
        'Traceback (most recent call last):\n  File "z.py", line 9\n    import a\n'
        '  File "a.py", line 1\n    x = (\n        ^\nSyntaxError: no end\n\n'
    )

    assert 'File "a.py", line 1; x = (; ^; SyntaxError: no end' == last_words(text)
    assert "Traceback (most recent call last):; KilledError" == last_words(text[:35] + "KilledError")


def test_of_mistakes_all_are_told_in_one_line_that_fits() -> None:
    """They stand in a line of the log, and in an answer; a control character would break either."""
    told = last_words("2 mistakes:\n- a: \x1b[31mred\n\n- b\n")
    long = last_words("ä" * 5000)

    assert "2 mistakes:; - a:  [31mred; - b" == told
    assert MAX_PROBLEM_BYTES >= len(long.encode()) > MAX_PROBLEM_BYTES - 2
    assert set(long) == {"ä"}


def test_a_handoff_comes_back_as_it_was() -> None:
    """It goes through two processes and a version of the code."""
    settings = Settings(workers=3, lame_duck_s=1.5, bind="127.0.0.1:81")
    handoff = read_handoff(write_handoff(settings))

    assert settings == from_json(handoff.data.splitlines()[0])
    assert (("127.0.0.1:81", "127.0.0.1:8081"), 3, 1.5, 20.0) == (
        handoff.plan.binds, handoff.plan.workers, handoff.plan.lame_duck_s, handoff.plan.drain_s,
    )  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"{}\n", b"{}\n{}\n{}\n", b"{}\n{}\nno JSON\n", b"{}\n{}\n{}"])
def test_what_is_no_handoff_is_seen(data: bytes) -> None:
    """A child that ends well and says nothing must not start a generation without settings."""
    with pytest.raises(ValueError, match=r"."):
        read_handoff(data)

"""
Look for bytes that tell the doors apart, for so long: `python -m tests.doors.fuzz --seconds 600 [--seed 7]`.

Three fuzzers take turns: requests by a grammar and changed bytes, both over sockets to two servers; and heads in one
process, by atheris where it is installed, which looks for ways through the code that it has not seen. What is found is
made as small as can be, shown, and saved among the failures, which every run of the tests asks again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.doors import made
from tests.doors.heads import Heads
from tests.doors.pair import Case, Pair, pair

#: Examples of one round; between two rounds the time is looked at. They take some seconds.
_ROUND = 500
#: The part of the time that goes to heads alone.
_HEADS_PART = 0.3
_HEALTH = list(HealthCheck)


class Differ(Exception):
    """The doors differ."""


def run(strategy: st.SearchStrategy[Case], check: Callable[[Case], None], *, number: int) -> Case | None:
    """Check a round of cases; return the smallest that fails, None if none does."""
    failed: list[Case] = []

    @seed(number)
    @settings(
        max_examples=_ROUND,
        database=None,
        deadline=None,
        derandomize=False,
        suppress_health_check=_HEALTH,
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
    )
    @given(strategy)
    def ask(case: Case) -> None:
        try:
            check(case)
        except AssertionError:
            failed.append(case)
            raise

    try:
        ask()
    except AssertionError as error:
        # hypothesis tries the smallest once more, as the last thing.
        print(f"seed {number}: {error}")
        return failed[-1]
    return None


def save(case: Case) -> Path:
    """Keep what failed, under a name of its own."""
    text = made.write(case)
    file = made.FAILURES / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    file.write_text(text)
    return file


def over_sockets(doors: Pair, until: float, number: int) -> Case | None:
    """Ask both servers until the time is up, or something is found."""
    rounds = 0
    while time.monotonic() < until:
        for strategy in (made.cases(), made.changed()):
            if found := run(strategy, lambda case: void(doors.agree(case)), number=number + rounds):
                return found
        rounds += 1
    print(f"over sockets: {rounds * 2} rounds of {_ROUND}, nothing found")
    return None


def void(_: object) -> None:
    """Take no notice."""


def in_process(until: float, number: int) -> Case | None:
    """Judge heads until the time is up, or something is found."""
    if importlib.util.find_spec("atheris"):
        return by_atheris(until - time.monotonic(), number)
    heads = Heads()

    def judge(case: Case) -> None:
        parted = heads.differ(case.data)
        assert parted is None, f"{parted}\n{case.data!r}"

    rounds = 0
    while time.monotonic() < until:
        if found := run(made.changed(), judge, number=number + rounds):
            return found
        rounds += 1
    print(f"heads: {rounds} rounds of {_ROUND}, nothing found")
    return None


def by_atheris(seconds: float, number: int) -> Case | None:
    """Let atheris judge heads; return what it found."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        for place, data in enumerate(made.corpus()):
            (corpus / str(place)).write_bytes(data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        words = Path(folder) / "words"
        quoted = ["".join(map(r"\x{:02x}".format, token)) for token in made.TOKENS]
        words.write_text("".join(f'"{word}"\n' for word in quoted))
        options = [f"-max_total_time={max(1, int(seconds))}", f"-seed={number}", f"-dict={words}", "-max_len=4096"]
        options += [f"-artifact_prefix={folder}/found-", "-print_final_stats=0", "-verbosity=0"]
        subprocess.run([sys.executable, "-m", "tests.doors.atheris_heads", *options, str(corpus)], check=False)
        found = next(Path(folder).glob("found-crash-*"), None)
        if found is None:
            print(f"heads: atheris found nothing in {seconds:.0f} s")
            return None
        data = smallest(found.read_bytes(), Heads())
    print(f"heads: {Heads().differ(data)}\n{data!r}")
    return Case((data,), asks=True)


def smallest(data: bytes, heads: Heads) -> bytes:
    """Leave out what is not needed for the two readings to part."""
    step = max(1, len(data) // 2)
    while step:
        at = 0
        while at < len(data):
            less = data[:at] + data[at + step :]
            if heads.differ(less):
                data = less
            else:
                at += max(1, step // 8)
        step //= 2
    return data


def main(arguments: list[str]) -> int:
    """Fuzz; return 1 if something was found."""
    parser = argparse.ArgumentParser(prog="fuzz", description="Look for bytes that tell the doors apart.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    options = parser.parse_args(arguments)
    print(f"seed {options.seed}, {options.seconds:.0f} s")
    begun = time.monotonic()
    found = in_process(begun + options.seconds * _HEADS_PART, options.seed)
    if found is None:
        # Behind this the sinks are compared, and they differ if something was found.
        with tempfile.TemporaryDirectory() as folder, suppress(Differ), pair(Path(folder)) as doors:
            found = over_sockets(doors, begun + options.seconds, options.seed)
            if found is not None:
                raise Differ
    if found is None:
        return 0
    print(f"saved as {save(found)}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

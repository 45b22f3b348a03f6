"""
`python -m bench.standin`: Kinesis, Firehose and SQS for the benchmark, in a process of its own: the tests' engine.

It says on which port, and then, for each line that it reads, what has come since: how many lines of each upload.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

import msgspec

from bench.account import receipts_in
from bench.servers import ROOT, ServerError
from tests.standins.engine import Engine


class Standin:
    """One that runs; `port` is where it speaks for all three."""

    def __init__(self, words: IO[bytes], asked: IO[bytes]) -> None:
        self._words, self._asked = words, asked
        self.port = msgspec.json.decode(self._line(), type=int)

    def stock(self) -> Counter[bytes]:
        """Count the lines that have come since it was last asked, by their receipts."""
        self._asked.write(b"\n")
        self._asked.flush()
        counts = msgspec.json.decode(self._line(), type=dict[str, int])
        return Counter({receipt.encode(): count for receipt, count in counts.items()})

    def _line(self) -> bytes:
        if not (line := self._words.readline()):
            raise ServerError("the stand-in of the streams has ended")
        return line


@contextmanager
def standin() -> Iterator[Standin]:
    """Run one, on the cores of the caller."""
    command = [sys.executable, "-m", "bench.standin"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Standin(cast("IO[bytes]", process.stdout), cast("IO[bytes]", process.stdin))
        finally:
            # It holds nothing that anybody wants.
            process.kill()


def main() -> None:
    """Be the stand-in, until nobody asks any more."""
    with Engine() as engine:
        _tell(engine.port)
        for _ in sys.stdin:
            lines: Counter[str] = Counter()
            while engine.taken:
                lines.update(receipt.decode() for receipt in receipts_in(engine.taken.pop().payload))
            _tell(lines)


def _tell(value: object) -> None:
    sys.stdout.write(f"{msgspec.json.encode(value).decode()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

"""
`python -m bench.probe`: ask for a page at a fixed rate, as load balancers do, and tell how long each answer took.

A process of its own: neither the load nor its Python is in the way of its clock. Each question has a connection of
its own and waits for no other, so that a slow answer hides none of those that come after it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep

import click
import msgspec

from bench.arrivals import Harvest, Offer, arrive

#: So many may wait at once: more than arrive before the first of them is given up.
_CONNECTIONS = 500
#: A run takes its seconds, and then as long as the last question waits.
_PATIENCE_S = 30.0
_ROOT = Path(__file__).resolve().parent.parent


class Probe:
    """One that runs beside the load."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._process = process
        self._seconds = seconds

    def result(self) -> Harvest:
        """Wait for its end, and return what it found."""
        words, _ = self._process.communicate(timeout=self._seconds + _PATIENCE_S)
        return msgspec.json.decode(words, type=Harvest)


@contextmanager
def beside(
    address: tuple[str, int], path: str, *, per_s: float, seconds: float, after_s: float = 0.0
) -> Iterator[Probe]:
    """Start one in a process of its own, which begins after a while."""
    command = [sys.executable, "-m", "bench.probe", *map(str, (*address, path, per_s, seconds, after_s))]
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        yield Probe(process, after_s + seconds)
    finally:
        process.kill()
        process.communicate()


@click.command()
@click.argument("host")
@click.argument("port", type=int)
@click.argument("path")
@click.argument("per_s", type=float)
@click.argument("seconds", type=float)
@click.argument("after_s", type=float)
def main(host: str, port: int, path: str, per_s: float, seconds: float, after_s: float) -> None:
    """Ask, and print what was found as JSON."""
    sleep(after_s)
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    found = arrive((host, port), [request], Offer(per_s, _CONNECTIONS, fresh=True), seconds=seconds, warm_up_s=0.0)
    click.echo(msgspec.json.encode(found))


if __name__ == "__main__":
    main()

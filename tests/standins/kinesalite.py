"""
Kinesis on loopback, by somebody else than moto: kinesalite, of npm, with its data in memory.

It has the limits of long ago, 1 MiB a record without its key, and 7 MiB a call as it comes over the line: over that it
answers 413 and no word. It throttles nobody. `tests/system/install` fetches it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.server import ROOT, free_ports, wait_for
from tests.standins.sdk import client
from tests.standins.stream import Stream

#: Where the installation lies.
_HOME = ROOT / "build" / "kinesalite"
#: Its own command has no word for an address, and listens on all there are.
_PROGRAM = """
require("kinesalite")({ createStreamMs: 0, shardLimit: 10000 }).listen(Number(process.argv[1]), "127.0.0.1")
"""
_PATIENCE_S = 30.0


def missing() -> str:
    """Say why it can't be run here; empty when it can."""
    if shutil.which("node") is None:
        return "needs node"
    if not (_HOME / "node_modules" / "kinesalite").is_dir():
        return "needs kinesalite, which tests/system/install fetches from npm where it may"
    return ""


class Kinesalite:
    """One that runs; `port` is where it speaks Kinesis."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self._process = process

    def stream(self, shards: int = 2) -> Stream:
        """Make a new stream."""
        return Stream.make(client("kinesis", self.port), shards)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let it stand still for a while; what came meanwhile it does afterwards, for whoever waits no more."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def kinesalite(folder: Path) -> Iterator[Kinesalite]:
    """Run one, whose log lies in `folder`."""
    (port,) = free_ports(1)
    # What a machine has node do besides, such as to load a module first, is not for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NODE_")}
    log = folder / "kinesalite.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["node", "--eval", _PROGRAM, str(port)], stdout=out, stderr=out, cwd=_HOME, env=environment
        )
    try:
        made = Kinesalite(port, process)
        wait_for(lambda: _answers(made, process, log), "kinesalite to list its streams", _PATIENCE_S)
        yield made
    finally:
        # It holds nothing that anybody wants.
        process.kill()
        process.wait()


def _answers(server: Kinesalite, process: subprocess.Popen[bytes], log: Path) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    assert process.poll() is None, f"kinesalite has ended: {log.read_text()[-2000:]}"
    try:
        client("kinesis", server.port).list_streams()
    except (BotoCoreError, ClientError):
        return False
    return True

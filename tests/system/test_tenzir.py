"""
Log lines before a receiver of HEC that nobody here wrote: Tenzir's `accept_splunk`.

It is stricter than Splunk in places (a batch is taken whole or not at all) and no Splunk in others; what is shown here
is that the sender's requests are those of the protocol, and that every line which it says is delivered is there once.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from collector.clock import SystemClock
from collector.telemetry.hec.handler import HecHandler
from collector.telemetry.hec.options import HecOptions
from collector.telemetry.hec.sender import Hooks
from tests.server import ROOT, Server, free_ports, wait_for
from tests.uploaders import TENANTS, Count, end, load

pytestmark = pytest.mark.system

VERSION = "6.20.0"
#: Its own environment, kept between runs: the wheel has 175 MB.
HOME = ROOT / ".venv-tenzir"
PYTHON, TENZIR = HOME / "bin/python", HOME / "bin/tenzir"
STAMP = HOME / f".tenzir-{VERSION}"
#: For the wheel, from wherever pip is set to fetch it.
INSTALL_S = 600
TOKEN = "00000000-0000-4000-8000-0000000000aa"
LINES = 20_000
#: What a line may have; lines of all lengths up to that come.
MOST_TEXT = 1500


@pytest.fixture(scope="module")
def tenzir() -> Path:
    """Install it, once, and return the program; without it the test is skipped, with the reason."""
    if not STAMP.exists():
        pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        for command in ([sys.executable, "-m", "venv", str(HOME)], [*pip, f"tenzir=={VERSION}"]):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                pytest.skip(f"tenzir {VERSION} can't be installed: {error}")
            if done.returncode:
                pytest.skip(f"tenzir {VERSION} can't be installed: {done.stderr.strip()[-500:]}")
        STAMP.touch()
    return TENZIR


class Receiver(NamedTuple):
    """One that runs: where it listens, and the file to which it writes what came."""

    url: str
    file: Path

    def events(self) -> list[dict[str, Any]]:
        """Return what came so far, each with what Tenzir makes of its envelope."""
        lines = self.file.read_bytes().split(b"\n") if self.file.exists() else []
        # The last part is of a line that is being written, or of none.
        return [json.loads(line) for line in lines[:-1]]


@contextmanager
def receiving(tenzir: Path, file: Path, *, ack: bool = False, port: int = 0, token: str = TOKEN) -> Iterator[Receiver]:
    """Run a receiver until the block is left, and end it so that all it took is written."""
    port = port or free_ports(1)[0]
    pipeline = f'accept_splunk "127.0.0.1:{port}", hec_token="{token}", ack={str(ack).lower()}\nwrite_ndjson'
    with file.open("ab") as output, (file.parent / "tenzir.log").open("ab") as words:
        process = subprocess.Popen(
            [str(tenzir), "--bare-mode", pipeline],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=words,
            cwd=file.parent,
        )
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        assert process.poll() is None, (file.parent / "tenzir.log").read_text()[-2000:]
        with suppress(OSError), urllib.request.urlopen(f"{url}/services/collector/health", timeout=10) as answer:
            return bool(json.load(answer)["code"] == 17)
        return False

    try:
        wait_for(is_up, "tenzir to listen")
        yield Receiver(url, file)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def sender(receiver: Receiver, *, ack: bool = False, token: str = TOKEN, hooks: Hooks = Hooks()) -> HecHandler:  # noqa: B008
    """Make the handler of a process, which waits for no more than a batch to be full."""
    options = HecOptions(url=receiver.url, token=token, ack=ack, host="task-1", linger_s=0.05, buffer_bytes=64 << 20)
    return HecHandler(options, clock=SystemClock(), rng=random.Random(7), hooks=hooks)


def line(number: int) -> bytes:
    """Make a line of its number, with whatever a line may hold."""
    chance = random.Random(number)
    text = "".join(chance.choices('ab "\\/\u00e9\u2028\U0001f600\n\t', k=chance.randrange(MOST_TEXT)))
    return json.dumps({"seq": number, "text": text}, ensure_ascii=chance.random() < 0.5).encode()


def numbers(receiver: Receiver) -> Counter[int]:
    """Count the lines that came by their numbers; they must be what was sent."""
    found = [event["event"] for event in receiver.events()]
    assert all(json.loads(line(event["seq"])) == event for event in found)
    return Counter(event["seq"] for event in found)


def sent(handler: HecHandler, until: Callable[[], object]) -> None:
    """Put many lines, and wait until they have arrived."""
    handler.start()
    for number in range(LINES):
        handler.put(line(number), "info")
    wait_for(until, f"{LINES} lines to arrive; the account is {handler.account()}")


def test_each_of_many_lines_arrives_once_and_as_it_was(tenzir: Path, tmp_path: Path) -> None:
    """A stub of one's own has one's own mistakes: this one was written from Splunk's documents by others."""
    with receiving(tenzir, tmp_path / "came") as receiver:
        handler = sender(receiver)
        sent(handler, lambda: handler.account().delivered == LINES)
        handler.shutdown()
    events = receiver.events()

    account = handler.account()
    assert account.is_exact
    assert (LINES, LINES, 0) == (account.emitted, account.delivered, account.lost)
    assert {"taken"} == account.results.keys()
    assert dict.fromkeys(range(LINES), 1) == numbers(receiver)
    assert {("task-1", "collector", "collector:log")} == {
        (event["host"], event["source"], event["sourcetype"]) for event in events
    }


def test_with_acks_no_line_is_delivered_before_it_is_confirmed(tenzir: Path, tmp_path: Path) -> None:
    """
    Run like this, Tenzir gives each batch a number and confirms none: it has the lines, and does not vouch for them.

    So none is delivered, however long ago it was answered with 200, and at the end each is told to be unconfirmed.
    """
    told: list[str] = []
    with receiving(tenzir, tmp_path / "came", ack=True) as receiver:
        handler = sender(receiver, ack=True, hooks=Hooks(unconfirmed=told.append))
        sent(handler, lambda: len(receiver.events()) == LINES)
        waiting = handler.account()
        handler.shutdown()

    account = handler.account()
    assert [] == told
    assert waiting.is_exact
    assert (0, LINES) == (waiting.delivered, waiting.in_flight)
    assert account.is_exact
    assert (0, {"unconfirmed": LINES}) == (account.delivered, account.dropped)
    assert dict.fromkeys(range(LINES), 1) == numbers(receiver)


def test_acks_that_are_wanted_of_a_token_without_them_are_told_and_gone_without(tenzir: Path, tmp_path: Path) -> None:
    """Waiting for what never comes would fill the buffer."""
    told: list[str] = []
    with receiving(tenzir, tmp_path / "came") as receiver:
        handler = sender(receiver, ack=True, hooks=Hooks(unconfirmed=told.append))
        sent(handler, lambda: handler.account().delivered == LINES)
        handler.shutdown()

    assert 1 == len(told)
    assert dict.fromkeys(range(LINES), 1) == numbers(receiver)


def collector(folder: Path, receiver: Receiver, *, token: str = TOKEN) -> Server:
    """Make a server of two workers with much to say."""
    folder.mkdir()
    return Server(
        folder, toml=TENANTS, workers=2, log_level="debug", report_s=1, hec_url=receiver.url, hec_token=token,
        hec_linger_s=0.1,
    )  # fmt: skip


def by_process(lines: list[dict[str, Any]]) -> dict[str, Counter[int]]:
    """Count lines by the process that said them, and by their number."""
    found: dict[str, Counter[int]] = {}
    for one in lines:
        found.setdefault(one["boot"], Counter())[one["seq"]] += 1
    return found


def test_every_line_of_a_real_server_is_there_once(tenzir: Path, tmp_path: Path) -> None:
    """Launcher, workers and the last word: what the standard output has is there, but gunicorn's last word."""
    with receiving(tenzir, tmp_path / "came") as receiver, collector(tmp_path / "it", receiver) as server:
        uploaders = load(server, per_tenant=1)
        wait_for(lambda: len(server.logged("batch.delivered")) > 500, "much to be said")
        end(uploaders)
        assert 0 == server.stop()
        count = Count(server, uploaders)
        said = by_process([line for line in server.log if "boot" in line])
        last = [line for line in server.logged("gunicorn") if str(line["message"]).startswith("Worker exiting")]
    came = by_process([event["event"] for event in receiver.events()])

    assert (0, 0) == (count.missing, count.duplicates)
    assert 2 == len(last)
    for one in last:
        del said[one["boot"]][one["seq"]]
    assert 4 == len(said)
    assert said == came


def test_a_wrong_token_holds_lines_back_and_is_told_and_the_right_one_lets_them_flow(
    tenzir: Path, tmp_path: Path
) -> None:
    """It is the mistake of every first installation, and a restart with the right token is what mends it."""
    with receiving(tenzir, tmp_path / "came") as receiver:
        with collector(tmp_path / "wrong", receiver, token="not-the-one") as server:
            (refused, *_) = wait_for(lambda: server.logged("hec.refused"), "the refusal to be told")
            assert 200 == server.post([{"id": "a"}], key="red-key").status
            assert 0 == server.stop()
            dropped = {line["reason"] for line in server.logged("hec.dropped")}
        assert "code 4" in refused["cause"]
        assert "not-the-one" not in server.output()
        assert {"shutdown"} == dropped
        assert [] == receiver.events()

        with collector(tmp_path / "right", receiver) as server:
            wait_for(receiver.events, "lines to flow")
            assert not server.logged("hec.refused")

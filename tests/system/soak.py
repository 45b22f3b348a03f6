"""
Continuous uploads from several tenants while workers are killed and the server is reloaded; then the count.

    python -m tests.system.soak --seconds 600 --kill-every 20 --hup-every 60

Every acknowledged event must be in the sink with its payload as sent; nothing may be there that nobody sent; what is
there twice is counted; the ledger must balance. Ends with 1 if any of it does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.server import Link, NotHttp, Reply, Server, tenant, upload, wait_for

#: Tenants, each with what it uploads under; one waits for the sink.
KEYS = {"red": "red-key", "green": "green-key", "blue": "blue-key"}
TENANTS = tenant("red", "red-key") + tenant("green", "green-key", share=2.0) + tenant("blue", "blue-key", ack="sink")
BATCH = 10
#: How long a failed client waits before it tries again, and a served one before its next upload, in seconds.
RETRY_S, PAUSE_S = 0.05, 0.01


def event(uploader: str, number: int, place: int) -> bytes:
    """Write the event of a place in an upload: the same bytes each time, with what a careless copy would alter."""
    chance = random.Random(f"{uploader}/{number}/{place}")
    text = "".join(chance.choices('ab "\\/\u00e9\u2028\U0001f600\n\t', k=chance.randrange(40)))
    fields = {
        "id": f"{uploader}.{number}.{place}",
        "n": chance.getrandbits(80),
        "text": text,
        "nested": [{"a": {}}, None],
    }
    return json.dumps(fields, ensure_ascii=chance.random() < 0.5).encode()


class Uploader(threading.Thread):
    """One device: uploads, keeps what is not acknowledged, and sends it again until it is."""

    def __init__(
        self, server: Server, name: str, key: str, *, keep_alive: bool = True, pause_s: float = PAUSE_S
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._server = server
        self._key = key
        self._keep_alive = keep_alive
        self._pause_s = pause_s
        self._link: Link | None = None
        self._stopping = threading.Event()
        #: Uploads begun; all of them but perhaps the last are acknowledged.
        self.sent = 0
        self.acknowledged = 0
        self.requests = 0
        self.failed: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def stop(self) -> None:
        """Let the upload under way come to its end, and start no other."""
        self._stopping.set()

    def run(self) -> None:
        """Upload until stopped."""
        while not self._stopping.is_set():
            number = self.sent
            self.sent += 1
            body = b"[" + b",".join(event(self.name, number, place) for place in range(BATCH)) + b"]"
            while not self._upload(body):
                # The last upload is tried until it is answered, or the server is gone for good.
                if self._stopping.wait(RETRY_S) and not self._server.is_running:
                    break
            else:
                self.acknowledged += 1
            self._stopping.wait(self._pause_s)
        self._hang_up()

    def _upload(self, body: bytes) -> bool:
        self.requests += 1
        reused = self._link is not None
        try:
            if self._link is None:
                self._link = Link(self._server.port)
            reply = self._link.send(upload(body, key=self._key)).reply()
        except (OSError, NotHttp) as error:
            self._fail(type(error).__name__, reused=reused)
            return False
        if reply is None:
            self._fail("closed without an answer", reused=reused)
            return False
        if not self._keep_alive or "close" == reply.headers.get("connection"):
            self._hang_up()
        return self._judge(reply)

    def _judge(self, reply: Reply) -> bool:
        if reply.status == 200 and reply.json["accepted"] == BATCH:
            return True
        self.refused[f"{reply.status} {reply.json.get('error', reply.json['status'])}"] += 1
        return False

    def _fail(self, kind: str, *, reused: bool) -> None:
        self.failed[f"{kind} ({'kept-alive' if reused else 'fresh'})"] += 1
        self._hang_up()

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.sock.close()
            self._link = None


class Count:
    """What the sink has, held against what the devices sent and were told."""

    def __init__(self, server: Server, uploaders: list[Uploader]) -> None:
        found = {one.name: bytearray(BATCH * one.sent) for one in uploaders}
        self.lines = self.altered = self.invented = 0
        for line in server.lines():
            self.lines += 1
            read = json.loads(line)
            try:
                uploader, number, place = read["id"].split(".")
                spot = int(number) * BATCH + int(place)
                found[uploader][spot] += 1
            except (ValueError, KeyError, IndexError):
                self.invented += 1
                continue
            sound = line.endswith(b',"event":' + event(uploader, int(number), int(place)) + b"}")
            self.altered += not (sound and read["tenant"] == uploader.partition("-")[0])
        told = [found[one.name][: one.acknowledged * BATCH] for one in uploaders]
        self.acknowledged = sum(map(len, told))
        self.missing = sum(spots.count(0) for spots in told)
        self.duplicates = sum(count - 1 for spots in found.values() for count in spots if count)


def load(server: Server, *, per_tenant: int, pause_s: float = PAUSE_S, mixed: bool = False) -> list[Uploader]:
    """Start devices of every tenant; of `mixed` ones every second opens a connection for each upload."""
    uploaders = [
        Uploader(server, f"{name}-{n}", key, keep_alive=not (mixed and n % 2), pause_s=pause_s)
        for name, key in KEYS.items()
        for n in range(per_tenant)
    ]
    for one in uploaders:
        one.start()
    return uploaders


def end(uploaders: list[Uploader]) -> None:
    """Let every device come to its end."""
    for one in uploaders:
        one.stop()
    for one in uploaders:
        one.join(120.0)
        assert not one.is_alive(), f"{one.name} never got an answer to its last upload"


def soak(folder: Path, *, seconds: float, kill_every_s: float, hup_every_s: float, workers: int = 2) -> dict[str, Any]:
    """Run it, and return the summary; AssertionError when the server itself does not do as it should."""
    kills = hups = 0
    with Server(folder, toml=TENANTS, workers=workers) as server:
        uploaders = load(server, per_tenant=2)
        started = time.monotonic()
        kill_at, hup_at = started + kill_every_s, started + hup_every_s
        while (now := time.monotonic()) < started + seconds:
            if now >= hup_at:
                server.signal(signal.SIGHUP)
                hups, hup_at = hups + 1, hup_at + hup_every_s
            if now >= kill_at:
                victims = server.worker_pids()
                if victims:
                    os.kill(random.choice(victims), signal.SIGKILL)
                    kills, kill_at = kills + 1, kill_at + kill_every_s
            time.sleep(0.05)
        end(uploaders)
        wait_for(server.worker_pids, "a worker to be there")
        ledger = server.settled()
        count = Count(server, uploaders)
        trouble = [
            line for name in ("internal.error", "ledger.imbalance", "events.lost") for line in server.logged(name)
        ]
    failed = sum((one.failed for one in uploaders), Counter[str]())
    refused = sum((one.refused for one in uploaders), Counter[str]())
    return {
        "seconds": round(seconds),
        "uploads": sum(one.requests for one in uploaders),
        "acknowledged events": count.acknowledged,
        "found": count.acknowledged - count.missing,
        "missing": count.missing,
        "altered": count.altered,
        "invented": count.invented,
        "duplicates": count.duplicates,
        "lines in the sink": count.lines,
        "kills": kills,
        "HUPs": hups,
        "failed requests": dict(failed),
        "refused uploads": dict(refused),
        "trouble in the log": trouble,
        "ledger": {name: value for name, value in ledger.items() if name != "tenants"},
    }


def problems(summary: dict[str, Any]) -> list[str]:
    """Say what does not hold."""
    ledger = summary["ledger"]
    wrong = [
        f"{name}: {summary[name]}" for name in ("missing", "altered", "invented", "trouble in the log") if summary[name]
    ]
    if not ledger["balanced"] or ledger["pending"]:
        wrong.append(f"the ledger is not settled: {ledger}")
    if ledger["delivered"] != summary["lines in the sink"]:
        wrong.append(f"the ledger has {ledger['delivered']} delivered, the sink {summary['lines in the sink']} lines")
    if not summary["acknowledged events"]:
        wrong.append("nothing was acknowledged")
    return wrong


def main() -> int:
    """Soak, and print the summary."""
    parser = argparse.ArgumentParser(description="Upload, kill, reload, and count.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kill-every", type=float, default=5.0, metavar="S")
    parser.add_argument("--hup-every", type=float, default=15.0, metavar="S")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        summary = soak(
            Path(folder),
            seconds=asked.seconds,
            kill_every_s=asked.kill_every,
            hup_every_s=asked.hup_every,
            workers=asked.workers,
        )
    print("\n".join(f"| {name} | {value} |" for name, value in summary.items()))  # noqa: T201 - its product
    wrong = problems(summary)
    print("\n".join(wrong) or "All that was acknowledged arrived as it was sent.")  # noqa: T201 - its product
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

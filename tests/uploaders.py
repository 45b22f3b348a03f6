"""Devices in threads of the test, for a test that watches few of them closely; tests/system/chaos has the many."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter

from tests.server import Link, NotHttp, Reply, Server, tenant, upload

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

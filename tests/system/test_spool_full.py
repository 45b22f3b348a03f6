"""A real, small tmpfs as the spool: it fills up, it breaks, and the server comes back by itself with nothing lost."""

from __future__ import annotations

import base64
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.server import wait_for
from tests.system.server import Reply, Server, missing

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing()), reason=missing())]

SPOOL_MIB = 8
INODES = 200
OWNER = ["mode=0700", "uid=10001", "gid=10001"]
SPOOL = "/run/collector"
OUT = "/run/out"

# No upload is refused for another cause in these runs, so a 503 is soon there, or never.
MOST_UPLOADS = 2000


def mounts(*spool_options: str) -> list[dict[str, Any]]:
    return [
        {"containerPath": SPOOL, "size": SPOOL_MIB, "mountOptions": [*OWNER, *spool_options]},
        {"containerPath": OUT, "size": 64, "mountOptions": OWNER},
    ]


class Device:
    """Sends events that nothing compresses, and remembers which the server has answered for."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._chance = random.Random(7)
        self.acknowledged: list[str] = []

    def send(self, count: int = 20) -> Reply:
        """Send events of about 3 KB each."""
        events = [
            {"id": f"{len(self.acknowledged)}-{self._chance.random()}", "noise": self._noise(2200)}
            for _ in range(count)
        ]
        reply = self._server.upload(events)
        if 200 == reply.status:
            assert len(events) == reply.body["accepted"]
            self.acknowledged += [str(event["id"]) for event in events]
        return reply

    def send_until_refused(self) -> Reply:
        """Send until an upload is not taken, and return that answer."""
        for _ in range(MOST_UPLOADS):
            if 200 != (reply := self.send()).status:
                return reply
        pytest.fail(f"{MOST_UPLOADS} uploads were taken and none refused")

    def _noise(self, size_bytes: int) -> str:
        return base64.b64encode(self._chance.randbytes(size_bytes)).decode()


def fill(file: Path) -> None:
    """Write a file until its file system has no room left, to the byte."""
    with file.open("wb", buffering=0) as stranger:
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while stranger.write(b"x" * size):
                    pass


def free_bytes(server: Server) -> int:
    room = os.statvfs(server.inside(SPOOL))
    return room.f_bavail * room.f_frsize


def is_refusal(reply: Reply) -> bool:
    """Tell whether it is the 503 of the contract, with a time to come back."""
    return (
        503 == reply.status
        and {"status": "error", "code": 503, "error": "backpressure"}.items() <= reply.body.items()
        and 1 <= int(reply.headers["retry-after"]) <= 5
    )


def until_refused_and_unready(server: Server, device: Device) -> Reply:
    """Drive the server into refusing; return the first refusal, once its readiness says the same."""
    refusal = device.send_until_refused()

    def is_unready() -> bool:
        # Where a large upload does not fit, a small one may; and what one worker refuses, the other may take.
        device.send(1)
        return 503 == server.request("GET", "/readyz").status

    wait_for(is_unready, "the server to be unready")
    assert 200 == server.request("GET", "/healthz").status
    return refusal


def until_recovered(server: Server, device: Device) -> None:
    """Wait until uploads are taken and all workers are ready: ten answers in a row, as each worker has its own."""
    wait_for(lambda: 200 == device.send().status, "an upload to be taken again")
    wait_for(lambda: all(200 == server.request("GET", "/readyz").status for _ in range(10)), "the server to be ready")


def account(server: Server, device: Device) -> None:
    """Check that each event that was answered for has arrived once, and that the ledger says so."""
    ledger = server.await_delivery()
    found = Counter(line["id"] for line in server.delivered(OUT))

    assert [] == sorted(set(device.acknowledged) - set(found))
    assert [] == [event_id for event_id, times in found.items() if times > 1]
    assert len(device.acknowledged) == ledger["accepted"] == ledger["delivered"]


@pytest.fixture
def serve(tmp_path: Path) -> Callable[..., Any]:
    @contextmanager
    def serve(*spool_options: str) -> Iterator[tuple[Server, Device]]:
        with Server(tmp_path, mounts(*spool_options), {"COLLECTOR_SINK": f"file:{OUT}"}) as server:
            workers = server.workers()

            yield server, Device(server)

            # A store into a page that a full tmpfs can't give kills a worker; nobody would see it but here.
            assert workers == server.workers(), server.output
            assert 0 == server.stop(), server.output

    return serve


def test_a_dead_sink_fills_the_spool_to_a_refusal_and_not_to_the_brim(serve: Callable[..., Any]) -> None:
    """The last bytes of a tmpfs are for what the server must still write, so devices are sent away before."""
    with serve() as (server, device):
        server.set_mount(OUT, "ro")

        refusal = until_refused_and_unready(server, device)

        assert is_refusal(refusal), refusal
        assert 0 < free_bytes(server)
        assert len(device.acknowledged) * 3000 > SPOOL_MIB * (1 << 20) / 4, "refused with most of the spool empty"

        server.set_mount(OUT, "rw")
        until_recovered(server, device)
        account(server, device)


def test_a_spool_that_a_stranger_filled_refuses_and_recovers(serve: Callable[..., Any]) -> None:
    """The budget is only a plan: another process can take the room, and ENOSPC is then the first that is heard."""
    with serve() as (server, device):
        assert 200 == device.send().status

        stranger = server.inside(f"{SPOOL}/stranger")
        fill(stranger)
        assert 0 == free_bytes(server)
        refusal = until_refused_and_unready(server, device)

        assert is_refusal(refusal), refusal

        stranger.unlink()
        until_recovered(server, device)
        account(server, device)


def test_a_spool_full_of_a_stranger_while_the_sink_is_dead_loses_nothing(serve: Callable[..., Any]) -> None:
    """Both at once is how it happens: the room that is left goes, and nothing can be handed on to make more."""
    with serve() as (server, device):
        server.set_mount(OUT, "ro")
        assert 200 == device.send().status

        stranger = server.inside(f"{SPOOL}/stranger")
        fill(stranger)
        assert 0 == free_bytes(server)
        refusal = until_refused_and_unready(server, device)

        assert is_refusal(refusal), refusal

        server.set_mount(OUT, "rw")
        stranger.unlink()
        until_recovered(server, device)
        account(server, device)


def test_a_spool_without_inodes_refuses_and_recovers(serve: Callable[..., Any]) -> None:
    """Room in bytes is no room for a file."""
    with serve(f"nr_inodes={INODES}") as (server, device):
        assert 200 == device.send().status

        crowd = server.inside(f"{SPOOL}/crowd")
        crowd.mkdir()
        with suppress(OSError):
            for number in range(INODES):
                (crowd / str(number)).touch()
        refusal = until_refused_and_unready(server, device)

        assert is_refusal(refusal), refusal

        for file in crowd.iterdir():
            file.unlink()
        until_recovered(server, device)
        account(server, device)


def test_a_spool_that_became_read_only_refuses_and_recovers(serve: Callable[..., Any]) -> None:
    """A file system that no longer takes writes is answered like a full one: the device keeps its events."""
    with serve() as (server, device):
        assert 200 == device.send().status

        # A mount with files open for writing can't be made read-only, so one that nobody could open yet goes over it.
        server.must_enter("mount", "--bind", SPOOL, "/mnt")
        server.must_enter("mount", "-o", "remount,bind,ro", "/mnt")
        server.must_enter("mount", "--no-mtab", "--move", "/mnt", SPOOL)
        refusal = until_refused_and_unready(server, device)

        assert is_refusal(refusal), refusal

        server.must_enter("umount", "--lazy", SPOOL)
        until_recovered(server, device)
        account(server, device)


def test_a_spool_closed_to_the_server_refuses_and_recovers(serve: Callable[..., Any]) -> None:
    """The same by another way, which also meets a server that reaches its files from a directory it holds open."""
    with serve() as (server, device):
        assert 200 == device.send().status

        folders = [folder for folder in server.inside(f"{SPOOL}/spool").rglob("*") if folder.is_dir()]
        folders.append(server.inside(f"{SPOOL}/spool"))
        for folder in folders:
            folder.chmod(0o500)
        refusal = until_refused_and_unready(server, device)

        assert is_refusal(refusal), refusal

        for folder in folders:
            folder.chmod(0o700)
        until_recovered(server, device)
        account(server, device)

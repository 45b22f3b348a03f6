"""The server with every place read-only but the mounts of tmpfs-mounts.json, and strace looking on."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests.server import wait_for
from tests.system.server import ROOT, Server, missing
from tests.system.traces import changes

MOUNTS: list[dict[str, Any]] = json.loads((ROOT / "tmpfs-mounts.json").read_text())

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(missing("strace")), reason=missing("strace")),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    settings = {"COLLECTOR_SINK": "file:/run/collector/data"}
    with Server(tmp_path, MOUNTS, settings, watch=tmp_path / "trace") as server:
        yield server


def outside(path: str) -> bool:
    """Tell whether a path lies where nothing may be written; /dev/null takes what nobody wants."""
    place = PurePosixPath(path)
    writable = [mount["containerPath"] for mount in MOUNTS]
    return path != "/dev/null" and not any(place.is_relative_to(mount) for mount in writable)


def use_everything(server: Server) -> list[str]:
    """Have the server do all that makes it write: return the ids of the events it has accepted."""
    accepted = []
    for number in range(40):
        events = [{"id": f"e{number}-{index}", "text": "x" * 300} for index in range(50)]
        raw = json.dumps(events).encode()
        fields = {"X-Collector-Key": "dev-key", "Content-Type": "application/json"}
        if number % 2:
            raw, fields = gzip.compress(raw), {**fields, "Content-Encoding": "gzip"}
        if number % 10 == 3:
            fields["Collector-Ack"] = "sink"
        reply = server.request("POST", "/v1/events", raw, fields)
        assert 200 == reply.status, reply
        accepted += [event["id"] for event in events]
    for path in ("/healthz", "/readyz", "/metrics", "/ledger"):
        assert 200 == server.request("GET", path, admin=True).status
    assert 400 == server.request("POST", "/v1/events", b"{", {"X-Collector-Key": "dev-key"}).status
    assert 401 == server.request("POST", "/v1/events", b"{}", {"X-Collector-Key": "wrong"}).status
    assert 413 == server.request("POST", "/v1/events", b" " * (5 << 20), {"X-Collector-Key": "dev-key"}).status
    assert 404 == server.request("GET", "/nowhere").status
    return accepted


def test_nothing_is_written_outside_the_listed_mounts(server: Server, tmp_path: Path) -> None:
    """A place that is not on the list is not writable in production, and found out there first."""
    accepted = use_everything(server)
    # A worker that dies and code that is loaded anew write too: a new directory, an adopted one, a new temp file.
    workers = server.workers()
    os.kill(min(workers), signal.SIGKILL)
    wait_for(lambda: len(server.workers() - {min(workers)}) >= len(workers), "a worker in its place")
    os.kill(server.pid, signal.SIGHUP)
    wait_for(lambda: server.workers() and not server.workers() & workers, "all workers to be new ones")
    wait_for(lambda: 200 == server.request("GET", "/readyz").status, "them to be ready")
    assert 200 == server.upload([{"id": "last"}]).status
    ledger = server.await_delivery()
    found = [line["id"] for line in server.delivered("/run/collector/data")]

    assert 0 == server.stop(), server.output

    seen = list(changes(tmp_path / "trace"))

    assert sorted([*accepted, "last"]) == sorted(set(found))
    assert len(accepted) + 1 == ledger["accepted"]
    assert [line for path, line in seen if PurePosixPath(path).is_relative_to("/run/collector/spool")]
    assert [line for path, line in seen if PurePosixPath(path).is_relative_to("/run/collector/data")]
    assert [] == [line for path, line in seen if outside(path)]


def test_a_write_outside_the_listed_mounts_would_be_seen(tmp_path: Path) -> None:
    """A watch that sees nothing passes everything; so here is one that writes everywhere."""
    server = Server(tmp_path, MOUNTS, {}, watch=tmp_path / "trace")
    script = (
        "echo x > /etc/opened; mkdir /var/made; mv /run/collector /run/moved; echo y > /run/collector/fine;"
        " cd /usr; echo z > relative; echo > /dev/null; (touch /opt/child); exit 0"
    )

    assert 0 == server.run("sh", "-c", script), server.output

    paths = {path for path, line in changes(tmp_path / "trace")}

    assert {"/etc/opened", "/var/made", "/run/collector", "/run/moved", "/usr/relative", "/opt/child"} <= paths
    assert "/run/collector/fine" in paths
    assert {path for path in paths if outside(path)} == paths - {"/run/collector", "/run/collector/fine", "/dev/null"}
    assert not Path("/etc/opened").exists()


def test_an_operator_can_look_inside_and_write_only_where_the_server_can(server: Server) -> None:
    """A shell for the night of the incident finds the same file system as the program, root or not."""
    assert 200 == server.upload([{"id": "look"}]).status

    server.await_delivery()

    assert "spool" in server.must_enter("ls", "/run/collector")
    assert server.must_enter("find", "/run/collector/data", "-name", "*.ndjson.zst")
    assert "Read-only file system" in server.enter("touch", "/etc/night").stderr
    assert "Read-only file system" in server.enter("touch", "/dev/shm/night").stderr
    assert "" == server.must_enter("touch", "/tmp/night")
    for mount in MOUNTS:
        megabytes = server.must_enter("df", "--block-size=1M", "--output=size", mount["containerPath"]).split()[1]
        assert str(mount["size"]) == megabytes


def test_it_drains_and_leaves_nothing_in_the_spool(server: Server) -> None:
    """What a stopped task leaves on its tmpfs is gone with it."""
    replies = [server.upload([{"id": f"d{number}"}]) for number in range(20)]

    assert [200] * 20 == [reply.status for reply in replies]
    assert 0 == server.stop(), server.output

    found = {line["id"] for line in server.delivered("/run/collector/data")}

    assert {f"d{number}" for number in range(20)} == found
    assert 1 == server.output.count('"scope":"task"')

"""Uploads that come together, in a server: none of them is held up, lost or taken for another."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.receiver.hall import one
from tests.server import Link, Server, head, tenant, upload, wait_for
from tests.uploaders import TENANTS, end, load


def links_of(server: Server, count: int) -> list[Link]:
    """Connect, so that each has been served once and waits in the lobby."""
    links = [server.link() for _ in range(count)]
    for n, link in enumerate(links):
        assert 200 == link.send(one(f"before{n}")).must_reply().status
    return links


def test_in_a_mixed_crowd_everyone_gets_his_own_answer(tmp_path: Path) -> None:
    """Health checks and uploads that wait for their sink come with the others, and none waits for those."""
    (tmp_path / "data").write_text("in the way")
    toml = tenant("dev", "dev-key") + tenant("sure", "sure-key", ack="sink")
    with Server(tmp_path, toml=toml, ack_timeout_s=60) as server:
        (worker,) = server.worker_pids()
        links = links_of(server, 13)
        *plain, bad, sink, health, half = links
        cut = one("half")
        # What they send while it stands still, it finds at once.
        os.kill(worker, signal.SIGSTOP)
        sink.send(one("sink", key="sure-key"))
        for n, link in enumerate(plain):
            link.send(one(f"plain{n}"))
        bad.send(upload(b"no JSON"))
        health.send(head("/healthz", method="GET", key=None))
        half.send(cut[:-5])
        os.kill(worker, signal.SIGCONT)
        replies = [link.must_reply() for link in (*plain, bad, health)]

        assert [200] * 9 + [400, 200] == [reply.status for reply in replies]
        assert {"status": "ok"} == replies[-1].json
        assert 200 == half.send(cut[-5:]).must_reply().status
        (tmp_path / "data").unlink()
        assert (200, "sink") == ((reply := sink.must_reply()).status, reply.json["ack"])
        for link in links:
            link.sock.close()
        server.settled()
        ours = [event["id"] for event in server.events() if not event["id"].startswith("before")]
        assert Counter(["sink", "half", *(f"plain{n}" for n in range(9))]) == Counter(ours)


def test_uploads_that_wait_for_their_sink_together_wait_for_no_other_tenant_s(tmp_path: Path) -> None:
    """What one tenant's sink refuses for a while must not hold up the answers of all that came with it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "tenant=stuck").write_text("in the way")
    toml = "".join(tenant(name, f"{name}-key", ack="sink") for name in ("dev", "stuck", "free"))
    with Server(tmp_path, toml=toml, ack_timeout_s=60) as server:
        (worker,) = server.worker_pids()
        links = links_of(server, 8)
        keys = ["stuck", "free"] * 4
        os.kill(worker, signal.SIGSTOP)
        for n, (link, key) in enumerate(zip(links, keys, strict=True)):
            link.send(one(f"{key}{n}", key=f"{key}-key"))
        os.kill(worker, signal.SIGCONT)
        free = [link.must_reply() for link in links[1::2]]
        (data / "tenant=stuck").unlink()
        stuck = [link.must_reply() for link in links[::2]]

        assert [(200, "sink")] * 8 == [(reply.status, reply.json["ack"]) for reply in (*free, *stuck)]
        assert 8 == len({reply.json["receipt"] for reply in (*free, *stuck)})
        for n, link in enumerate(links):
            assert 200 == link.send(one(f"after{n}", key="free-key")).must_reply().status
            link.sock.close()


def test_uploads_whose_sink_stays_away_are_told_so_all_in_their_time(tmp_path: Path) -> None:
    """They are answered one after the other, and the last must not wait as many times as there are before it."""
    (tmp_path / "data").write_text("in the way")
    with Server(tmp_path, toml=tenant("dev", "dev-key", ack="sink"), ack_timeout_s=6) as server:
        (worker,) = server.worker_pids()
        links = [server.link() for _ in range(14)]
        for link in links:
            assert 200 == link.send(head("/healthz", method="GET", key=None)).must_reply().status
        os.kill(worker, signal.SIGSTOP)
        for n, link in enumerate(links):
            link.send(one(f"late{n}"))
        os.kill(worker, signal.SIGCONT)
        # Were it six seconds each, a client would have given up.
        replies = [link.must_reply() for link in links]

        assert [(503, "backpressure")] * 14 == [(reply.status, reply.json["error"]) for reply in replies]
        (tmp_path / "data").unlink()
        for link in links:
            link.sock.close()
        server.settled()
        assert Counter(f"late{n}" for n in range(14)) == Counter(event["id"] for event in server.events())


@pytest.mark.parametrize("field", ["X-Bare: a\nContent-Length: 3", "X-Folded: a\r\n b", "X-Bare: a\nX: b"])
def test_a_head_of_two_meanings_is_not_for_the_lobby(tmp_path: Path, field: str) -> None:
    """It comes whole and alone, and is as doubtful as in front of another."""
    with Server(tmp_path) as server:
        with server.link() as link:
            assert 200 == link.send(one("before")).must_reply().status
            assert 400 == link.send(one("odd", field)).must_reply().status
            assert link.reply() is None
        server.settled()
        assert ["before"] == [event["id"] for event in server.events()]


def test_a_health_check_is_answered_amid_uploads_without_end(tmp_path: Path) -> None:
    """Whoever asks takes a worker for dead that is only busy, and ends it."""
    with Server(tmp_path, toml=TENANTS) as server:
        uploaders = load(server, per_tenant=3, pause_s=0.0)
        with server.link() as link:
            checks = [link.send(head("/healthz", method="GET", key=None)).must_reply().status for _ in range(50)]
        end(uploaders)

        assert [200] * 50 == checks
        assert not sum((device.failed + device.refused for device in uploaders), Counter[str]())


def test_a_stop_answers_what_has_come_to_the_lobby(tmp_path: Path) -> None:
    """The devices have sent it before anybody could know."""
    with Server(tmp_path) as server:
        (worker,) = server.worker_pids()
        links = links_of(server, 50)
        os.kill(worker, signal.SIGSTOP)
        for n, link in enumerate(links):
            link.send(one(f"last{n}"))
        server.signal(signal.SIGTERM)
        wait_for(lambda: [line for line in server.log if "Handling signal: term" in str(line)], "the master to stop")
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGCONT)
        replies = [link.must_reply() for link in links]
        for link in links:
            link.sock.close()

        assert {200} == {reply.status for reply in replies}
        assert 0 == server.stop()
        assert {f"last{n}" for n in range(50)} <= {event["id"] for event in server.events()}

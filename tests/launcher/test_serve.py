"""`collector serve` as a process: reloads, deaths and stops, seen from outside."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from collector.settings import load, to_json
from tests.server import ROOT, Link, Server, free_ports, head, ids, tenant, wait_for

NEVER_S = 3600
#: Longer than any test, and within what a stop may take.
LAME_DUCK_S = 45


def one_generation(server: Server) -> int | None:
    """Return the only master that lives, once it is ready; None while others live or come."""
    masters = server.master_pids()
    ready = [line["pid"] for line in server.logged("generation.ready")]
    return masters[0] if len(masters) == 1 and masters[0] == ready[-1] else None


def hup(server: Server) -> dict[str, Any]:
    """Ask for a reload, and return the line that says what became of it."""

    def told() -> list[dict[str, Any]]:
        return [line for line in server.log if str(line.get("event")).startswith("reload.")]

    before = len(told())
    server.signal(signal.SIGHUP)
    wait_for(lambda: len(told()) > before, "the reload's outcome")
    return told()[before]


def served(server: Server, event_id: str) -> str:
    """Upload an event, which must be taken, and return its id."""
    reply = server.post([{"id": event_id}])

    assert [event_id] == ids([{"id": event_id}], reply), reply
    return event_id


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Give a copy of all that runs, to be broken."""
    copy = tmp_path / "code"
    shutil.copytree(ROOT / "collector", copy / "collector")
    for name in ("gunicorn.conf.py", "tmpfs-mounts.json"):
        shutil.copy(ROOT / name, copy)
    return copy


def test_new_code_comes_by_a_reload_and_broken_code_does_not(tmp_path: Path, code: Path) -> None:
    """A deploy in place: what does not load costs nothing, not even when a worker dies while it lies there."""
    server = Server(tmp_path, workers=2)
    server._env["PYTHONPATH"] = str(code)
    admin, spool = code / "collector/receiver/admin.py", code / "collector/buffer/spool.py"
    with server:
        text = admin.read_text()
        assert text.count('{"status": "ok"}') == 1
        admin.write_text(text.replace('{"status": "ok"}', '{"status": "new"}'))
        assert "reload.done" == hup(server)["event"]
        wait_for(lambda: one_generation(server), "the old generation to end")
        assert {"status": "new"} == server.admin("/healthz").json

        before, sound = server.worker_pids(), spool.read_text()
        spool.write_text("def broken(:\n" + sound)
        told = hup(server)

        assert ("reload.rejected", "preflight") == (told["event"], told["stage"])
        assert "SyntaxError" in told["problem"]
        ready = server.readyz()
        assert 200 == ready.status
        assert told["problem"] == ready.json["reload"]["problem"]
        assert b'collector_reloads_total{result="rejected"} 1.0' in server.admin("/metrics").body
        assert before == server.worker_pids()

        # A worker can't be replaced as long as it lies there; its sibling must not pay for that.
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: [line for line in server.log if "exited with code 1" in str(line.get("message"))], "a try")
        served(server, "meanwhile")
        assert [before[1]] == server.worker_pids()
        spool.write_text(sound)
        wait_for(lambda: 2 == len(server.worker_pids()), "the worker to be replaced")
        assert "reload.done" == hup(server)["event"]
        wait_for(lambda: one_generation(server), "the old generation to end")
        assert None is server.readyz().json["reload"]
        assert not server.logged("master.died")
        assert ["meanwhile"] == [event["id"] for event in server.events()]


def test_settings_that_do_not_load_leave_the_running_workers_in_place(tmp_path: Path) -> None:
    """Plain gunicorn starts new workers with the old settings; here nothing moves at all."""
    sound = tenant("acme", "acme-key")
    with Server(tmp_path, toml=sound) as server:
        before = server.worker_pids()
        (tmp_path / "collector.toml").write_text("max_events = 'many'\nwrkers = 3\n" + sound)
        told = hup(server)

        assert "reload.rejected" == told["event"]
        assert "max_events" in told["problem"]
        assert "wrkers" in server.readyz().json["reload"]["problem"]
        assert before == server.worker_pids()
        assert 200 == server.post([{"id": "a"}], key="acme-key").status


def test_a_reload_moves_to_another_address_and_not_to_one_that_is_taken(tmp_path: Path) -> None:
    """The settings name where it listens, and a reload is for the settings."""
    sound = tenant("acme", "acme-key")
    new, taken = free_ports(2)
    server = Server(tmp_path, toml=sound)
    del server._env["COLLECTOR_BIND"]
    settings = tmp_path / "collector.toml"
    settings.write_text(f'bind = "127.0.0.1:{server.port}"\n' + sound)
    with server, Link(server.port) as held:
        assert 200 == held.send(head("/healthz", method="GET")).must_reply().status
        with socket.create_server(("127.0.0.1", taken)):
            settings.write_text(f'bind = "127.0.0.1:{taken}"\n' + sound)
            told = hup(server)
        assert ("reload.rejected", "bind") == (told["event"], told["stage"])
        assert str(taken) in told["problem"]
        assert 200 == server.post([{"id": "a"}], key="acme-key").status

        old, server.port = server.port, new
        settings.write_text(f'bind = "127.0.0.1:{new}"\n' + sound)
        assert "reload.done" == hup(server)["event"]
        assert 200 == server.post([{"id": "b"}], key="acme-key").status
        assert 200 == held.send(head("/healthz", method="GET")).must_reply().status
        wait_for(lambda: one_generation(server), "the old generation to end")
        with pytest.raises(ConnectionRefusedError):
            Link(old)


def test_a_thousand_tenants_start_and_reload_however_often_they_are_asked(tmp_path: Path) -> None:
    """No program can be started with more than 128 KiB in one variable: the settings take another way."""
    toml = "".join(tenant(f"tenant-{n}", f"key-{n}") for n in range(1000))
    with Server(tmp_path, toml=toml) as server:
        snapshot = to_json(load({"COLLECTOR_CONFIG": "collector.toml"}, cwd=tmp_path))
        assert len(snapshot) > 128 << 10
        assert 200 == server.post([{"id": "a"}], key="key-999").status
        for done in (0, 1, 1):
            wait_for(lambda done=done: len(server.logged("reload.done")) >= done, "a reload")  # type: ignore[misc]
            server.signal(signal.SIGHUP)
        wait_for(lambda: one_generation(server) and len(server.logged("reload.done")) >= 2, "the last reload")

        assert 200 == server.post([{"id": "b"}], key="key-0").status


def test_a_stop_is_unready_first_and_answers_on(tmp_path: Path) -> None:
    """A load balancer asks every few seconds; until it has asked, devices come."""
    with Server(tmp_path, lame_duck_s=LAME_DUCK_S) as server:
        server.signal(signal.SIGTERM)
        wait_for(lambda: 503 == server.readyz().status, "it to be unready")

        assert ["draining"] == server.readyz().json["reasons"]
        assert 200 == server.ask(head("/healthz", method="GET")).status
        served(server, "late")
        # Whoever asks again does not want to wait.
        assert 0 == server.stop()
        assert ["late"] == [event["id"] for event in server.events()]
        assert [("task", 1, 0)] == [
            (line["scope"], line["delivered"], line["left"])
            for line in server.logged("drain.done")
            if line["scope"] == "task"
        ]


@pytest.mark.parametrize("masters", [1, 2], ids=["in the preflight", "with a candidate"])
def test_a_stop_in_the_middle_of_a_reload_ends_all_of_it(tmp_path: Path, masters: int) -> None:
    """gunicorn is deaf then, for as long as its old workers take."""
    with Server(tmp_path, workers=2) as server:
        served(server, "a")
        server.signal(signal.SIGHUP)
        wait_for(lambda: masters == len(server.master_pids()), "the moment")
        pids = [*server.master_pids(), *server.worker_pids()]

        assert 0 == server.stop()
        assert not any(map(lives, pids))
        assert not [line for line in server.logged("generation.ended") if line["killed"]]
        assert 1 == len([line for line in server.logged("drain.done") if line["scope"] == "task"])
        assert ["a"] == [event["id"] for event in server.events()]


def test_a_stop_with_hundreds_of_idle_connections_ends_by_itself(tmp_path: Path) -> None:
    """They are closed without a word; gunicorn waits for them until it is killed."""
    with Server(tmp_path, drain_s=2, keepalive_s=75, workers=2) as server:
        links = [server.link() for _ in range(300)]
        for link in links:
            link.send(head("/healthz", method="GET"))
        assert {200} == {link.must_reply().status for link in links}
        server.signal(signal.SIGTERM)

        assert {None} == {link.reply() for link in links}
        for link in links:
            link.sock.close()
        assert 0 == server.stop()
        assert [False] == [line["killed"] for line in server.logged("generation.ended")]


def test_a_worker_that_hangs_does_not_keep_the_task_from_its_end(tmp_path: Path) -> None:
    """An orchestrator would kill the whole container, with all that drains well."""
    with Server(tmp_path, drain_s=0) as server:
        (worker,) = server.worker_pids()
        os.kill(worker, signal.SIGSTOP)

        assert 0 == server.stop()
        assert [True] == [line["killed"] for line in server.logged("generation.ended")]
        assert not Path(f"/proc/{worker}").exists()


def test_a_killed_master_is_replaced_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The sockets are the launcher's: connections wait, and are not refused."""
    with Server(tmp_path, flush_interval_s=NEVER_S, workers=2) as server:
        kept = [served(server, f"before{n}") for n in range(20)]
        (master,) = server.master_pids()
        orphans = server.worker_pids()
        os.kill(master, signal.SIGKILL)
        kept += [served(server, f"after{n}") for n in range(20)]
        wait_for(lambda: 2 == len(server.logged("generation.ready")), "a new generation")
        wait_for(lambda: 1 == len(server.logged("generation.ended")), "the orphans' end")
        kept += [served(server, f"later{n}") for n in range(20)]

        (died,) = server.logged("master.died")
        assert (master, -signal.SIGKILL) == (died["pid"], died["status"])
        assert not any(Path(f"/proc/{pid}").exists() for pid in orphans)
        assert b"collector_masters_died_total 1.0" in server.admin("/metrics").body
        assert 0 == server.stop()
        assert sorted(kept) == sorted(event["id"] for event in server.events())


def test_a_killed_launcher_leaves_a_spool_that_the_next_start_delivers(tmp_path: Path) -> None:
    """Its master drains, for the kernel tells it; the next launcher waits for the port that the dying ones hold."""
    with Server(tmp_path, flush_interval_s=NEVER_S, workers=2) as server, server.link() as idle:
        assert 200 == idle.send(head("/healthz", method="GET")).must_reply().status
        kept = [served(server, f"before{n}") for n in range(20)]
        masters, workers = server.master_pids(), server.worker_pids()
        server.signal(signal.SIGKILL)
        server.stop()
        server.start()
        kept += [served(server, "after")]
        wait_for(lambda: not any(map(lives, (*masters, *workers))), "the dying generation to end")

        assert 0 == server.stop()
        assert sorted(kept) == sorted(event["id"] for event in server.events())


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_port_that_another_program_has_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    """An operator reads the one word that helps, and the task is seen to fail."""
    server = Server(tmp_path)
    taken = socket.create_server(("127.0.0.1", server.port))
    with taken, pytest.raises(AssertionError, match="it ended with 1"):
        server.start()
    server._clean_up()

    assert f"127.0.0.1:{server.port} can't be listened on: another program does" in server.output()
    assert "Traceback" not in server.output()

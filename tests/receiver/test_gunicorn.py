"""What gunicorn is told, and what becomes of Collector under the signals that gunicorn gets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from collector.settings import Settings
from collector.settings.gunicorn import gunicorn_settings, heartbeat_dir
from tests.server import ROOT, Server, tenant, wait_for

ACME = tenant("acme", "acme-key")
PLAIN = ("-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app")


def status(server: Server, key: str) -> int:
    return server.post([{"id": "a"}], key=key).status


def test_the_parser_in_c_is_the_one_that_is_tested() -> None:
    """A resolver falls back to an older gunicorn without a word, and gunicorn to its parser in Python."""
    assert ("27.0.1", "0.6.9") == (version("gunicorn"), version("gunicorn_h1c"))
    assert "fast" == gunicorn_settings(Settings())["http_parser"]


def test_the_timeouts_nest() -> None:
    """Each waits for the one inside it, or a worker is killed while it answers: decision 10 of the design."""
    settings = Settings()
    told = gunicorn_settings(settings)

    assert told["keepalive"] + 2 + settings.drain_s < told["graceful_timeout"] < 120
    assert settings.body_deadline_s + settings.ack_timeout_s + settings.drain_s < told["graceful_timeout"]


def test_gunicorn_writes_its_heartbeats_to_tmpfs(tmp_path: Path) -> None:
    """It is the only file that it makes; a heartbeat on a disk that stalls would get a sound worker killed."""
    assert "/dev/shm" == heartbeat_dir(Settings(spool_dir="/dev/shm/not/yet/made"), temporary=str(tmp_path))
    assert "/dev/shm" == heartbeat_dir(Settings(spool_dir="/run/none"), temporary="/dev/shm")


def test_plain_gunicorn_serves_reloads_and_stops(tmp_path: Path) -> None:
    """Who has gunicorn already does not need our command."""
    with Server(tmp_path, command=PLAIN, workers=2) as server:
        assert 200 == status(server, "dev-key")
        before = server.worker_pids()
        server.signal(signal.SIGHUP)
        wait_for(lambda: len(server.worker_pids()) == 2 and not set(before) & set(server.worker_pids()), "a reload")
        assert 200 == status(server, "dev-key")


def test_a_reload_takes_new_settings(tmp_path: Path) -> None:
    """A limit is changed in the file, and a signal puts it in force, without a failed request."""
    with Server(tmp_path, toml="max_events = 5\n" + ACME) as server:
        six = [{"id": str(n)} for n in range(6)]
        assert 413 == server.post(six, key="acme-key").status
        (tmp_path / "collector.toml").write_text("max_events = 6\n" + ACME)
        before = server.worker_pids()
        server.signal(signal.SIGHUP)
        wait_for(lambda: server.worker_pids() and not set(before) & set(server.worker_pids()), "a reload")

        assert 200 == server.post(six, key="acme-key").status


def test_a_reload_with_settings_that_do_not_load_leaves_the_old_ones_in_force_and_says_so(tmp_path: Path) -> None:
    """gunicorn alone would end: the whole service, for a slip of the pen."""
    with Server(tmp_path, toml=ACME, command=PLAIN) as server:
        before = server.worker_pids()
        (tmp_path / "collector.toml").write_text("max_events = 'many'\n" + ACME)
        server.signal(signal.SIGHUP)
        wait_for(lambda: server.worker_pids() and not set(before) & set(server.worker_pids()), "a reload")

        assert 200 == status(server, "acme-key")
        assert [line for line in server.logged("gunicorn") if "max_events" in line["message"]]

        # A worker that dies now comes up again with the settings that its generation was started with.
        (victim,) = server.worker_pids()
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: server.worker_pids() and victim not in server.worker_pids(), "a new worker")

        assert 200 == status(server, "acme-key")


def test_a_start_with_settings_that_do_not_load_names_each_mistake_and_opens_no_port(tmp_path: Path) -> None:
    """All at once: an operator who mends one mistake must not find the next one by starting again."""
    (tmp_path / "collector.toml").write_text("max_events = 'many'\nwrkers = 3\n" + ACME)
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "COLLECTOR_CONFIG": str(tmp_path / "collector.toml"),
        "COLLECTOR_BIND": "nowhere",
    }
    for command in (PLAIN, ("-m", "collector", "serve")):
        ended = subprocess.run(
            [sys.executable, *command],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert ended.returncode not in {0, -signal.SIGKILL}
        for named in ("max_events", "wrkers", "COLLECTOR_BIND"):
            assert named in ended.stderr
        assert "Listening" not in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_stop_that_comes_while_workers_start_is_heard(tmp_path: Path) -> None:
    """Between fork and start a worker has its master's handlers, which would swallow the signal for 88 seconds."""
    with Server(tmp_path, workers=2) as server:
        for _ in range(4):
            server.stop()
            before = booted(server)
            with (tmp_path / "output").open("ab") as output:
                server._process = subprocess.Popen(
                    [sys.executable, *PLAIN], env=server._env, cwd=ROOT, stdout=output, stderr=output
                )
            wait_for(lambda before=before: booted(server) > before, "a worker to be forked")  # type: ignore[misc]
            server.signal(signal.SIGTERM)

            assert 0 == server._process.wait(20)


def booted(server: Server) -> int:
    return sum(line["message"].startswith("Booting worker") for line in server.logged("gunicorn"))


def test_an_interrupt_drains_too(tmp_path: Path) -> None:
    """Ctrl-C at a terminal is how a developer stops it; the event of a moment ago must be in the file."""
    with Server(tmp_path, workers=2, flush_interval_s=60) as server:
        assert 200 == status(server, "dev-key")
        server.signal(signal.SIGINT)
        assert server._process is not None
        server._process.wait(30)

        assert ["a"] == [event["id"] for event in server.events()]
        assert 0 == server._process.returncode

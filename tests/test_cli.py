"""The operator's door: what it says, how it ends, and what it starts."""

from __future__ import annotations

import glob
import http.client
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result

from collector import cli
from collector.cli.loading import notes
from collector.launcher import task
from collector.launcher.plan import read_handoff
from collector.settings import DEV_KEY, Settings, from_json, locate, parse_tenants

ROOT = Path(__file__).resolve().parent.parent
TENANTS = f'[tenants.app]\nkeys = ["{"a1" * 32}"]\n'


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No command may depend on where it is started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLLECTOR_SPOOL_DIR", f"/dev/shm/collector-test-{os.getpid()}")


def run(*arguments: str, **variables: str) -> Result:
    environ = {f"COLLECTOR_{name}": value for name, value in variables.items()}
    return CliRunner().invoke(cli.main, arguments, env=environ)


def program(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    return subprocess.run(
        [sys.executable, "-m", "collector", *arguments], capture_output=True, text=True, env=environ, check=False
    )


# -- check -------------------------------------------------------------------------------------------------


def test_check_shows_what_the_settings_come_to(tmp_path: Path) -> None:
    """The spool's real size and each value's origin are what nobody can work out by reading."""
    (tmp_path / "c.toml").write_text(TENANTS + '[routes.archive]\nsink = "file:[b]x"\n')

    result = run("check", CONFIG="c.toml", DRAIN_S="7", SPOOL_BYTES="64 MiB", ADMIN_TOKEN="hush")

    assert 0 == result.exit_code
    assert re.search(r"drain_s +7\.0 +COLLECTOR_DRAIN_S", result.stdout)
    assert re.search(r"log_level +info +default", result.stdout)
    assert re.search(r"spool +64 MiB of a mount of [\d.]+ [KMGT]iB", result.stdout)
    assert re.search(r"tenants +1: app", result.stdout)
    assert f"archive to file:{tmp_path}/[b]x" in result.stdout
    assert "hush" not in result.output


def test_check_makes_nothing(tmp_path: Path) -> None:
    """It is run beside a live server, and on machines that are none."""
    run("check")

    assert [] == list(tmp_path.iterdir())
    assert not Path(os.environ["COLLECTOR_SPOOL_DIR"]).exists()


def test_check_tells_all_problems_and_ends_with_1() -> None:
    """What only the sink or the machine can tell comes together with the rest."""
    mount_bytes = os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize

    result = run("check", WORKERS="many", SINK="file:x?speed=9", SPOOL_BYTES=str(mount_bytes + 1))

    assert 1 == result.exit_code
    assert "" == result.stdout
    lines = result.stderr.splitlines()
    assert ["3 mistakes:", "- COLLECTOR_WORKERS", "- COLLECTOR_SINK", "- COLLECTOR_SPOOL_BYTES"] == [
        lines[0], *(line.split(": ")[0] for line in lines[1:]),
    ]  # fmt: skip


def test_check_finds_a_spool_that_cannot_be_written(tmp_path: Path) -> None:
    """A file in its place is found before a port opens, not at the first upload."""
    (tmp_path / "file").write_text("")
    (tmp_path / "file").chmod(0o755)
    (tmp_path / "m.json").write_text(json.dumps([{"containerPath": str(tmp_path), "size": 1}]))

    result = run("check", SPOOL_DIR=str(tmp_path / "file"), TMPFS_MOUNTS="m.json")

    assert 1 == result.exit_code
    assert "COLLECTOR_SPOOL_DIR: " in result.stderr


def test_check_notes_what_may_surprise(tmp_path: Path) -> None:
    """A token in the clear, and a spool that is no memory, are no mistakes; silence about them would be."""
    (tmp_path / "m.json").write_text(json.dumps([{"containerPath": "/", "size": 1}]))

    result = run("check", SPOOL_DIR="/proc/../var", TMPFS_MOUNTS="m.json", HEC_URL="http://x", HEC_TOKEN="t")

    assert 0 == result.exit_code
    assert "COLLECTOR_HEC_URL is http, and the token goes over the network in the clear" in result.stdout


@pytest.mark.parametrize(("workers", "said"), [(2, False), (3, True)])
def test_check_notes_a_task_whose_workers_and_spool_do_not_fit_its_memory(
    workers: int, said: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would run, and refuse uploads under load for no reason that its operator could see."""
    monkeypatch.setattr("collector.cli.loading.memory_limit_bytes", lambda: 512 << 20)
    settings = Settings(workers=workers, spool_bytes=128 << 20, spool_dir="/dev/shm")

    assert said == (
        f"{workers} workers of up to 120 MiB and a spool of 128 MiB are more than 90% of the 512 MiB of memory, from "
        "where on uploads are refused: give it more memory, or fewer workers" in notes(settings)
    )


# -- key ---------------------------------------------------------------------------------------------------


def test_key_prints_a_key_and_the_table_that_lets_it_in() -> None:
    """The line is pasted as it stands, and holds the digest of the very key above it."""
    result = run("key", "app")

    plain = re.search(r"^ {4}(clk_\S+)$", result.stdout, re.MULTILINE)
    assert plain
    (tenant,) = parse_tenants(result.stdout[result.stdout.index("    [tenants") :], ("default",))
    assert ("app", (sha256(plain[1].encode()).hexdigest(),)) == (tenant.id, tenant.keys)


def test_a_key_can_be_sent_in_any_place_and_is_never_taken_for_a_digest() -> None:
    """A colon would split Basic, an ampersand a query; 64 hex digits would be accepted as a hash of something."""
    keys = [re.findall(r"clk_\S+", run("key").stdout)[0] for _ in range(20)]

    assert 20 == len(set(keys))
    assert all(re.fullmatch(r"clk_[A-Za-z0-9_-]{32}", key) for key in keys)


def test_key_refuses_a_tenant_that_cannot_be() -> None:
    """The table it would print would be refused."""
    result = run("key", "a/b")

    assert 1 == result.exit_code
    assert "'a/b' can't be a tenant's id" in result.stderr


# -- settings ----------------------------------------------------------------------------------------------


def test_settings_are_printed_with_secrets_masked() -> None:
    """It is the command that people paste into tickets."""
    result = run("settings", ADMIN_TOKEN="hush", DRAIN_S="7")

    assert "drain_s = 7.0" in result.stdout.splitlines()
    assert "hush" not in result.output


def test_settings_as_json_are_one_line_that_a_worker_reads() -> None:
    """gunicorn's configuration takes the lines apart, so nothing else may be printed."""
    asked = program("settings", "--gunicorn", COLLECTOR_ADMIN_TOKEN="hush", COLLECTOR_DRAIN_S="7")

    assert (0, "") == (asked.returncode, asked.stderr)
    snapshot, gunicorn = asked.stdout.splitlines()
    read = from_json(snapshot.encode())
    assert ("hush", 7.0) == (read.admin_token, read.drain_s)
    assert read.read_at_s is not None
    assert read.graceful_timeout_s == json.loads(gunicorn)["graceful_timeout"]
    assert 1 == len(program("settings", "--json").stdout.splitlines())


def test_settings_with_secrets_are_not_shown_on_a_screen() -> None:
    """Screens are shared and recorded; a pipe is what the command is for."""
    screen, end = pty.openpty()
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "collector", "settings", "--json"],
            stdout=end, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLLECTOR_ADMIN_TOKEN": "hush"},
        )  # fmt: skip
    finally:
        os.close(end)
        os.close(screen)

    assert 1 == asked.returncode
    assert "prints the admin token too" in asked.stderr


def test_the_settings_are_read_without_the_server() -> None:
    """gunicorn's master waits for them at each start and reload; half a second of imports is a gap in service."""
    code = "import sys, collector.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    asked = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert "msgspec" in asked.stdout.split()
    assert set() == {"flask", "werkzeug", "gevent", "gunicorn", "rich", "prometheus_client"} & set(asked.stdout.split())


@pytest.mark.parametrize("command", [["check"], ["settings"], ["settings", "--json"], ["serve"], ["ledger"]])
def test_every_command_tells_wrong_settings_in_words(command: list[str]) -> None:
    """A traceback tells an operator nothing."""
    asked = program(*command, COLLECTOR_WORKERS="many")

    assert (1, "") == (asked.returncode, asked.stdout)
    assert "COLLECTOR_WORKERS: 'many' is not a whole number; write one from 1 to 1024\n" == asked.stderr


# -- serve -------------------------------------------------------------------------------------------------


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, Path]]:
    """Catch what `serve` would run."""
    calls: list[tuple[Settings, Path]] = []

    def note(settings: Settings, *, configuration: Path, environ: Mapping[str, str]) -> tuple[int, str | None]:
        calls.append((settings, configuration))
        return (1, "it can't be") if settings.workers == 13 else (0, None)

    monkeypatch.setattr(task, "run", note)
    return calls


def test_serve_runs_the_launcher_with_the_shipped_configuration(executed: list[tuple[Settings, Path]]) -> None:
    """The same server from any directory."""
    result = run("serve", WORKERS="3")

    assert 0 == result.exit_code
    assert [(3, locate("gunicorn.conf.py"))] == [(settings.workers, file) for settings, file in executed]


def test_serve_ends_with_what_the_launcher_says(executed: list[tuple[Settings, Path]]) -> None:
    """An orchestrator sees the status, an operator the sentence."""
    result = run("serve", WORKERS="13")

    assert (1, "it can't be\n") == (result.exit_code, result.stderr)


def test_serve_with_wrong_settings_runs_nothing(executed: list[tuple[Settings, Path]]) -> None:
    """No port opens on a mistake."""
    assert 1 == run("serve", BIND="0.0.0.0:80").exit_code
    assert [] == executed


def test_serve_prints_one_line_to_try(executed: list[tuple[Settings, Path]]) -> None:
    """A stranger's first minute; the line names the port that is really bound."""
    result = run("serve", BIND="[::1]:9090", SINK="file:out")

    (line,) = [line for line in result.stdout.splitlines() if line.startswith("curl")]
    words = shlex.split(line)
    assert ["curl", "-sS", "http://[::1]:9090/v1/events"] == words[:3]
    assert ["Authorization: Bearer dev-key", "Content-Type: application/json"] == [words[4], words[6]]
    assert {"event": "hello"} == json.loads(words[8])
    assert "out/tenant=dev/date=…/hour=…/*.ndjson.zst" in result.stdout


def test_serve_with_tenants_prints_nothing_among_the_logs(
    executed: list[tuple[Settings, Path]], tmp_path: Path
) -> None:
    """In production every line of the standard output is JSON, and the line to try would be refused."""
    (tmp_path / "c.toml").write_text(TENANTS)

    assert "" == run("serve", CONFIG="c.toml").stdout


def test_serve_says_where_events_go_that_go_to_no_file(executed: list[tuple[Settings, Path]]) -> None:
    """They would be looked for in a folder that never comes."""
    assert "comes out of stdout:" in run("serve", SINK="stdout:").stdout


def test_check_names_a_splunk_that_can_not_be_spoken_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line would be lost, and the last, and nobody looks there before it is needed."""
    (tmp_path / "empty.pem").write_text("")
    monkeypatch.setattr("collector.cli.loading.find_spec", lambda _name: None)
    splunk = {"HEC_URL": "https://splunk.example.com:8088", "HEC_TOKEN": "t"}

    absent = run("check", **splunk, HEC_CA_FILE="gone.pem")
    empty = run("check", **splunk, HEC_CA_FILE="empty.pem")

    assert 1 == absent.exit_code
    assert "COLLECTOR_HEC_URL: needs the extra `splunk`" in absent.stderr
    assert "COLLECTOR_HEC_CA_FILE: " in absent.stderr
    assert "gone.pem holds no certificates" in absent.stderr
    assert "empty.pem holds no certificates" in empty.stderr


def test_check_lets_batches_be_no_larger_than_splunk_takes() -> None:
    """One over the limit is refused whole, each time."""
    result = run("check", HEC_URL="https://x", HEC_TOKEN="t", HEC_BATCH_BYTES="2 MiB")

    assert 1 == result.exit_code
    assert "COLLECTOR_HEC_BATCH_BYTES: 2097152 bytes is too large; write at most 1000000" in result.stderr


# -- rehearse ----------------------------------------------------------------------------------------------


def test_rehearse_hands_the_settings_over_and_opens_nothing(tmp_path: Path) -> None:
    """The launcher asks it before a reload, beside a server that runs with the same spool and ports."""
    handoff = tmp_path / "handoff"
    with handoff.open("w+b") as file:
        asked = subprocess.run(
            [sys.executable, "-m", "collector", "rehearse", "--fd", str(file.fileno())],
            pass_fds=(file.fileno(),), capture_output=True, text=True, check=False, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLLECTOR_WORKERS": "3"},
        )  # fmt: skip

    assert (0, "", "") == (asked.returncode, asked.stdout, asked.stderr)
    assert 3 == read_handoff(handoff.read_bytes()).plan.workers
    assert not Path(os.environ["COLLECTOR_SPOOL_DIR"]).exists()
    assert [handoff] == list(tmp_path.iterdir())


def test_rehearse_needs_what_sends_to_splunk_only_where_there_is_one(tmp_path: Path) -> None:
    """The extra is not installed where nobody wants it, and each reload would be refused for its sake."""
    hidden = (
        "import sys; sys.modules.update(splunk_handler=None, requests=None); from collector.cli import main; main()"
    )

    def rehearse(**more: str) -> subprocess.CompletedProcess[str]:
        with (tmp_path / "settings").open("wb") as file:
            return subprocess.run(
                [sys.executable, "-c", hidden, "rehearse", "--fd", str(file.fileno())],
                capture_output=True, text=True, pass_fds=[file.fileno()], check=False,
                env={**os.environ, "PYTHONPATH": str(ROOT), **more},
            )  # fmt: skip

    assert 0 == rehearse().returncode
    refused = rehearse(COLLECTOR_HEC_URL="https://splunk.example.com:8088", COLLECTOR_HEC_TOKEN="t")
    assert 1 == refused.returncode
    assert "splunk" in refused.stderr


def test_rehearse_loads_what_a_worker_loads_later_than_its_start(tmp_path: Path) -> None:
    """A reload would go well, and the first look at the metrics would not."""
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('half installed')")
    asked = program("rehearse", "--fd", "0", PYTHONPATH=f"{tmp_path}:{ROOT}", PYTHONDONTWRITEBYTECODE="1")

    assert 0 != asked.returncode
    assert "half installed" in asked.stderr


# -- ledger ------------------------------------------------------------------------------------------------


class Answer:
    """An admin listener that answers one thing, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status, self.body = 200, b"{}"
        self.asked: list[tuple[str, str | None]] = []
        answer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer.asked.append((self.path, self.headers["Authorization"]))
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.bind = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def answer() -> Iterator[Answer]:
    answer = Answer()
    yield answer
    answer.close()


ROW = {
    "accepted": 12345, "delivered": 12340, "rescued": 0, "rejected_by_sink": 3, "dropped": 0, "deduplicated": 0,
    "pending": 2,
}  # fmt: skip
LEDGER = {
    "balanced": True, **ROW, "reasons": {"rejected_by_sink:sink_too_large": 3},
    "tenants": {"app": {**ROW, "reasons": {"rejected_by_sink:sink_too_large": 3}}},
}  # fmt: skip


def test_the_ledger_is_shown_by_tenant_and_in_total(answer: Answer) -> None:
    """Each loss stands under its reason."""
    answer.body = json.dumps(LEDGER).encode()

    result = run("ledger", ADMIN_BIND=answer.bind, ADMIN_TOKEN="t0ken")

    assert 0 == result.exit_code
    assert [("/ledger", "Bearer t0ken")] == answer.asked
    for name in ("app", "total"):
        assert re.search(rf"{name} +12,345 +12,340 +0 +3 +0 +0 +2 +rejected_by_sink:sink_too_large 3", result.stdout)


def test_the_ledger_as_json_is_the_answer(answer: Answer) -> None:
    """Scripts add their own columns."""
    answer.body = json.dumps(LEDGER).encode()

    assert LEDGER == json.loads(run("ledger", "--json", ADMIN_BIND=answer.bind).stdout)
    assert [("/ledger", None)] == answer.asked


def test_a_ledger_that_does_not_balance_ends_with_1(answer: Answer) -> None:
    """A cron job notices a defect by its exit code alone."""
    answer.body = json.dumps({**LEDGER, "balanced": False}).encode()

    result = run("ledger", ADMIN_BIND=answer.bind)

    assert 1 == result.exit_code
    assert "12,345" in result.stdout
    assert "does not balance" in result.stderr


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, b"{}", "wants another token"),
        (503, b'{"message": "the books do not hold still"}', "answered 503: the books do not hold still"),
        (200, b"<html>", "answered 200: no JSON object"),
        (200, b"[]", "answered 200: no JSON object"),
    ],
)
def test_an_answer_that_is_no_ledger_is_told(answer: Answer, status: int, body: bytes, said: str) -> None:
    """Something else may listen there."""
    answer.status, answer.body = status, body

    result = run("ledger", ADMIN_BIND=answer.bind)

    assert 1 == result.exit_code
    assert said in result.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_collector_that_is_not_running_is_told() -> None:
    """It is the commonest reason of all."""
    result = run("ledger", ADMIN_BIND=f"127.0.0.1:{free_port()}")

    assert 1 == result.exit_code
    assert "is Collector running, with the same COLLECTOR_ADMIN_BIND?" in result.stderr


# -- all of it ---------------------------------------------------------------------------------------------


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)


def test_the_printed_line_works_as_it_stands(tmp_path: Path) -> None:
    """From a folder that knows nothing of Collector: started, pasted, delivered, asked, stopped."""
    port, admin = free_port(), free_port()
    spool = Path(os.environ["COLLECTOR_SPOOL_DIR"])
    environ = {
        **os.environ, "PYTHONPATH": str(ROOT), "COLLECTOR_BIND": f"127.0.0.1:{port}",
        "COLLECTOR_ADMIN_BIND": f"127.0.0.1:{admin}", "COLLECTOR_WORKERS": "1",
    }  # fmt: skip
    log = tmp_path / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "collector", "serve"], env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: "curl" in log.read_text() or server.poll() is not None, "the line")
        words = shlex.split(next(line for line in log.read_text().splitlines() if line.startswith("curl")))
        url, headers = urlsplit(words[2]), dict(word.split(": ", 1) for word in (words[4], words[6]))
        assert f"Bearer {DEV_KEY}" == headers["Authorization"]

        def paste() -> bool:
            assert server.poll() is None, log.read_text()
            connection = http.client.HTTPConnection(url.netloc, timeout=30)
            try:
                connection.request("POST", url.path, words[8], headers)
                return bool(json.loads(connection.getresponse().read())["status"] == "ok")
            except ConnectionRefusedError:
                return False
            finally:
                connection.close()

        until(paste, "an answer")
        until(lambda: bool(glob.glob("data/tenant=dev/date=*/hour=*/*.ndjson.zst")), "the event")
        ledger = program("ledger", "--json", **{name: environ[name] for name in environ if name.startswith("COLL")})
        server.send_signal(signal.SIGTERM)

        assert 0 == server.wait(timeout=60)
        assert (1, True) == (json.loads(ledger.stdout)["accepted"], json.loads(ledger.stdout)["balanced"])
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
        shutil.rmtree(spool, ignore_errors=True)

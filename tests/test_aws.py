"""Which credentials win, what is told of them, and what must not be."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from collector import aws, cli
from collector.aws import Found, problems_of
from tests.standins.seaweed import ENVIRON

ACCOUNT = "123456789012"
KEY, SECRET, TOKEN = "AKIDNOTTOLD", "secret-not-told", "token-not-told"
STATIC = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
SESSION = {**STATIC, "AWS_SESSION_TOKEN": TOKEN}
BUCKET = "s3://bucket/prefix"


class Answers(BaseHTTPRequestHandler):
    """AWS's STS, for one question; and the agent that gives a container the credentials of its task's role."""

    def do_GET(self) -> None:
        """Answer as the agent."""
        ends = datetime.now(UTC) + timedelta(hours=6)
        given = {"AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": TOKEN}
        self._say(json.dumps({**given, "Expiration": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}))

    def do_POST(self) -> None:
        """Answer as STS, or as a proxy in its place."""
        self.rfile.read(int(self.headers["Content-Length"]))
        told = (
            f"<GetCallerIdentityResponse><GetCallerIdentityResult><Account>{ACCOUNT}</Account>"
            "</GetCallerIdentityResult></GetCallerIdentityResponse>"
        )
        self._say("Welcome to this network. Please log in." if self.path.startswith("/proxy") else told)

    def _say(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(autouse=True, name="port")
def _port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    """Let nothing of this machine be found, and every question stay on it."""
    monkeypatch.chdir(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    port = int(server.server_address[1])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRON.items():
        if name not in STATIC:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("COLLECTOR_SINK", BUCKET)
    monkeypatch.setenv("COLLECTOR_SPOOL_DIR", "/dev/shm/collector-test-aws")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield port
    server.shutdown()
    thread.join()
    server.server_close()


def given(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def check() -> Result:
    return CliRunner().invoke(cli.main, ["check"])


def role(port: int) -> dict[str, str]:
    return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{port}/role"}


def test_credentials_are_told_by_where_they_are_from_and_how_long_they_last(
    monkeypatch: pytest.MonkeyPatch, port: int, tmp_path: Path
) -> None:
    """The chain is long, and which link won is what a person can't see."""
    assert aws.find() is None
    file = tmp_path / "credentials"
    file.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    given(monkeypatch, role(port))
    assert Found("container-role", temporary=True, renewed=True, account=ACCOUNT) == aws.find()
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    assert Found("shared-credentials-file", temporary=False, renewed=False, account=ACCOUNT) == aws.find()
    program, config = tmp_path / "program", tmp_path / "config"
    answer = {"Version": 1, "AccessKeyId": KEY, "SecretAccessKey": SECRET, "Expiration": "2999-01-01T00:00:00Z"}
    program.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    program.chmod(0o700)
    config.write_text(f"[profile p]\ncredential_process = {program}\n")
    given(monkeypatch, {"AWS_CONFIG_FILE": str(config), "AWS_PROFILE": "p"})
    assert Found("custom-process", temporary=True, renewed=True, account=ACCOUNT) == aws.find()
    monkeypatch.delenv("AWS_PROFILE")
    given(monkeypatch, STATIC)
    assert Found("env", temporary=False, renewed=False, account=ACCOUNT) == aws.find()
    given(monkeypatch, SESSION)
    assert Found("env", temporary=True, renewed=False, account=ACCOUNT) == aws.find()


@pytest.mark.parametrize(
    ("place", "said"), [("http://127.0.0.1:9", "Could not connect"), ("http://127.0.0.1:{}/proxy", "parse")]
)
def test_an_account_that_nobody_tells_is_no_reason_to_fail(
    monkeypatch: pytest.MonkeyPatch, port: int, place: str, said: str
) -> None:
    """A task may be allowed to write to its bucket and to reach nothing else."""
    given(monkeypatch, {**SESSION, "AWS_ENDPOINT_URL_STS": place.format(port)})
    found = aws.find()

    assert found is not None
    assert ("", True) == (found.account, found.temporary)
    assert said in found.why


@pytest.mark.parametrize(
    ("found", "has_task_role", "allowed", "said"),
    [
        (Found("container-role", temporary=True, renewed=True), True, [], []),
        (Found("iam-role", temporary=True, renewed=True), False, [], []),
        (Found("assume-role", temporary=True, renewed=True), True, [], []),
        (Found("env", temporary=True, renewed=False), False, [], []),
        (Found("env", temporary=False, renewed=False), False, [], ["long-lived key of the provider 'env'"]),
        (Found("env", temporary=True, renewed=False), True, [], ["'env' stand in its way"]),
        (Found("env", temporary=False, renewed=False), True, [], ["stand in its way", "long-lived key"]),
        (Found("env", temporary=False, renewed=False), True, ["env"], []),
        (Found("config-file", temporary=False, renewed=False), False, ["env"], ["long-lived key"]),
    ],
)
def test_a_key_for_ever_or_one_that_hides_the_role_is_a_problem_unless_allowed_by_name(
    found: Found, has_task_role: bool, allowed: list[str], said: list[str]
) -> None:
    """Both are silent: the container works, with a key that somebody forgot in its image."""
    problems = problems_of(found, has_task_role=has_task_role, allowed=allowed)

    assert len(said) == len(problems)
    assert all(words in problem for words, problem in zip(said, problems, strict=True))


def test_check_names_the_provider_and_the_account_and_nothing_secret(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    """It is read over a shoulder, and pasted into a ticket."""
    given(monkeypatch, role(port))
    result = check()

    assert 0 == result.exit_code, result.output
    for words in ("container-role", "temporary, and renewed", ACCOUNT):
        assert words in result.output
    assert not any(secret in result.output for secret in (KEY, SECRET, TOKEN))


def test_check_refuses_a_long_lived_key_and_says_how_to_allow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop has one, and whoever works there says so."""
    given(monkeypatch, STATIC)
    refused = check()
    monkeypatch.setenv("COLLECTOR_AWS_KEYS_ALLOWED", "iam-role, env")
    allowed = check()

    assert 1 == refused.exit_code
    assert "remove it, and give the task a role; or name env in COLLECTOR_AWS_KEYS_ALLOWED" in refused.output
    assert 0 == allowed.exit_code, allowed.output
    assert not any(secret in refused.output + allowed.output for secret in (KEY, SECRET))


def test_check_refuses_a_key_that_hides_the_tasks_role(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """The environment comes first in boto3's chain, and nobody is told."""
    given(monkeypatch, {**SESSION, **role(port)})
    result = check()

    assert 1 == result.exit_code
    assert "the task has a role, and credentials of the provider 'env' stand in its way" in result.output


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "finds no credentials here"),
        (SESSION, "end by themselves, and nobody renews them"),
        ({**SESSION, "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9"}, "whose the credentials are could not be asked"),
    ],
)
def test_check_notes_what_is_no_mistake_and_may_surprise(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    """A build machine has no credentials, and checks the settings all the same."""
    given(monkeypatch, variables)
    result = check()

    assert 0 == result.exit_code, result.output
    assert said in result.output


def test_check_asks_nothing_of_aws_without_a_sink_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it load boto3, which need not be installed."""
    given(monkeypatch, {**STATIC, "COLLECTOR_SINK": "file:data"})
    monkeypatch.setattr(aws, "find", lambda **_: pytest.fail("it asked"))

    assert 0 == check().exit_code

"""A route that acts as a role of its own: as whom, when that is renewed, and what is said when it can't be had."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from collector import cli
from collector.aws import role_session
from collector.aws.role_session import ASK_AGAIN_S, RENEW_AGAIN_S, RoleSession
from collector.errors import TransientSinkError
from collector.sinks.base import Sink
from collector.sinks.registry import open_sink
from tests.fakes import FakeClock, batch
from tests.server import wait_for
from tests.standins.sdk import ENVIRON
from tests.standins.sts import ROLE_ACCOUNT, Sts

ROLE = "arn:aws:iam::210987654321:role/collector/acme-writer"
#: The name of a worker, as long as they are.
WORKER = "1795000000123456-4711-0a1b2c3d"
ADVISED_S, REQUIRED_S = 12 * 60.0, 5 * 60.0


@pytest.fixture(name="sts")
def _sts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sts]:
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    with Sts() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{running.port}")
        yield running


def url(sts: Sts, options: str = f"&assume_role={ROLE}&tenant=acme") -> str:
    return f"s3://bucket?endpoint=http://127.0.0.1:{sts.port}{options}"


@pytest.fixture(name="sink")
def _sink(sts: Sts) -> Iterator[Sink]:
    sink = open_sink(url(sts), writer_id=WORKER)
    sink.start()
    yield sink
    sink.close()


def write(sink: Sink) -> int:
    return sink.write(batch(b"{}")).delivered


def test_each_route_acts_as_a_role_of_its_own_tagged_with_its_tenant(sts: Sts) -> None:
    """A policy that asks for the tag lets the route of one tenant not touch what is another's."""
    for options in (f"&assume_role={ROLE}&tenant=acme", f"&assume_role={ROLE}&tenant=zeta", f"&assume_role={ROLE}", ""):
        sink = open_sink(url(sts, options), writer_id=WORKER)
        sink.start()
        assert 1 == write(sink)
        sink.close()

    assert ["SESSION-1", "SESSION-2", "SESSION-3", ENVIRON["AWS_ACCESS_KEY_ID"]] == sts.writers
    assert {ROLE} == {asked["RoleArn"] for asked in sts.sessions}
    tags = [{name: value for name, value in asked.items() if name.startswith("Tags")} for asked in sts.sessions]
    assert [
        {"Tags.member.1.Key": "tenant", "Tags.member.1.Value": "acme"},
        {"Tags.member.1.Key": "tenant", "Tags.member.1.Value": "zeta"},
        # Who sends no tag needs no permission to.
        {},
    ] == tags


def test_a_session_is_named_for_the_worker_and_what_it_writes_for(sts: Sts) -> None:
    """It is all that AWS's own log shows of who it was, and it takes no name of another form."""
    for host, options in (("bucket", "&tenant=acme"), ("bucket", ""), ("b" * 63, "")):
        place = url(sts, f"&assume_role={ROLE}{options}").replace("s3://bucket", f"s3://{host}")
        sink = open_sink(place, writer_id=f"{WORKER}/é")
        write(sink)
        sink.close()
    names = [asked["RoleSessionName"] for asked in sts.sessions]

    assert [f"collector-{WORKER}---acme", f"collector-{WORKER}---bucket"] == names[:2]
    assert all(re.fullmatch(r"[\w+=,.@-]{2,64}", name, re.ASCII) for name in names)


def test_a_start_does_not_wait_for_the_role(sts: Sts, sink: Sink) -> None:
    """A worker comes up while STS is away, and its uploads wait in the spool."""
    assert [] == sts.sessions
    assert 1 == write(sink)
    assert 1 == len(sts.sessions)


def test_a_role_is_taken_on_once_and_again_ahead_of_its_end(sts: Sts, sink: Sink) -> None:
    """Nothing is ever written with credentials that are over, nor STS asked for each object."""
    assert [1, 1] == [write(sink), write(sink)]
    sink.close()
    sts.lasts_s = ADVISED_S
    write(sink)
    sts.lasts_s = 3600.0
    assert [1, 1] == [write(sink), write(sink)]

    assert ["SESSION-1", "SESSION-1", "SESSION-2", "SESSION-3", "SESSION-3"] == sts.writers


def test_a_renewal_holds_up_nobody_while_the_credentials_last(sts: Sts, sink: Sink) -> None:
    """One asks, and the others go on with what there is; other routes have nothing to do with it."""
    sts.lasts_s = ADVISED_S
    write(sink)
    other = open_sink(url(sts, ""), writer_id=WORKER)
    sts.gate.clear()
    with ThreadPoolExecutor() as threads:
        renewing = threads.submit(write, sink)
        wait_for(lambda: 2 == len(sts.sessions), "the renewal to be asked for")
        assert [1, 1] == [write(sink), write(other)]
        assert not renewing.done()
        sts.gate.set()
        assert 1 == renewing.result()
    other.close()

    assert ["SESSION-1", "SESSION-1", ENVIRON["AWS_ACCESS_KEY_ID"], "SESSION-2"] == sts.writers


def test_writes_that_need_the_same_session_ask_for_one(sts: Sts, sink: Sink) -> None:
    """A worker that starts under load would ask once for each batch, and STS has a limit of its own."""
    sts.gate.clear()
    with ThreadPoolExecutor(8) as threads:
        writing = [threads.submit(write, sink) for _ in range(8)]
        wait_for(lambda: sts.sessions, "the session to be asked for")
        sts.gate.set()
        assert [1] * 8 == [one.result() for one in writing]

    assert ["SESSION-1"] * 8 == sts.writers


def test_a_session_that_is_over_before_its_time_is_renewed(sts: Sts, sink: Sink) -> None:
    """The clock of this machine may be behind. The batch that finds out is tried again as any other is."""
    write(sink)
    sts.over.add("SESSION-1")
    with pytest.raises(TransientSinkError, match="ExpiredToken: It is over"):
        write(sink)
    assert 1 == write(sink)

    assert ["SESSION-1", "SESSION-1", "SESSION-2"] == sts.writers


@pytest.mark.parametrize("lasts_s", [ADVISED_S, REQUIRED_S])
def test_a_renewal_that_is_refused_costs_nothing_while_the_credentials_last(
    sts: Sts, sink: Sink, lasts_s: float
) -> None:
    """An outage of STS must not become one of the route, and is not asked about with every object."""
    sts.lasts_s = lasts_s
    write(sink)
    sts.refusal = ("ServiceUnavailable", "Not now.")
    assert [1, 1, 1] == [write(sink), write(sink), write(sink)]

    assert ["SESSION-1"] * 4 == sts.writers
    assert 2 == len(sts.sessions)


NOT_ALLOWED = "User: arn:aws:sts::1:assumed-role/task/1 is not authorized to perform: sts:{} on resource: " + ROLE


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (("AccessDenied", NOT_ALLOWED.format("AssumeRole")), "sts:AssumeRole on .*let Collector's own role do"),
        (("AccessDenied", NOT_ALLOWED.format("TagSession")), "sts:TagSession on .*both must allow sts:TagSession"),
        (("ExpiredToken", "It is over."), "the credentials have run out; where they come from must renew them"),
        (("InvalidClientTokenId", "No such."), "look at which ones won"),
        (("RegionDisabledException", "Off."), "switch STS on in that region"),
        (("Throttling", "Slower."), "Slower; the batch is kept and tried again"),
    ],
)
def test_a_role_that_is_not_to_be_had_is_told_and_its_batch_waits(
    sts: Sts, sink: Sink, monkeypatch: pytest.MonkeyPatch, refusal: tuple[str, str], said: str
) -> None:
    """Three policies have to agree, and the sentence says which of them does not."""
    monkeypatch.setattr(role_session, "ASK_AGAIN_S", 0.0)
    sts.refusal = refusal
    with pytest.raises(TransientSinkError, match=f"sts: assume_role {ROLE}: {refusal[0]}: .*{said}"):
        write(sink)
    assert [] == sts.writers
    sts.refusal = None

    assert 1 == write(sink)


@pytest.mark.parametrize("body", ["", "<R/>", "<R><AssumeRoleResult><Credentials/></AssumeRoleResult></R>", "Log in."])
def test_an_answer_without_a_session_is_none(sts: Sts, sink: Sink, body: str) -> None:
    """A proxy may answer in the place of STS."""
    sts.body = body
    with pytest.raises(TransientSinkError, match="sts: assume_role"):
        write(sink)


def test_check_says_which_role_a_route_takes_on_and_whose_account_it_is_then(
    sts: Sts, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """A role in another account than the bucket's is the commonest slip, and nothing else shows it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLLECTOR_SINK", url(sts))
    monkeypatch.setenv("COLLECTOR_SPOOL_DIR", "/dev/shm/collector-test-aws")
    monkeypatch.setenv("COLLECTOR_AWS_KEYS_ALLOWED", "env")
    had = CliRunner().invoke(cli.main, ["check"])
    sts.refusal = ("AccessDenied", NOT_ALLOWED.format("AssumeRole"))
    refused = CliRunner().invoke(cli.main, ["check"])

    assert (0, 0) == (had.exit_code, refused.exit_code), had.output + refused.output
    assert re.search(f"route default +takes on {ROLE}, tagged tenant=acme: account {ROLE_ACCOUNT}", had.output)
    assert "tagged tenant=acme: refused" in refused.output
    assert "Note: route default can't take on its role" in refused.output
    assert "not authorized to perform: sts:AssumeRole" in refused.output
    assert not any(secret in had.output for secret in ("SESSION-1", "secret", ENVIRON["AWS_SECRET_ACCESS_KEY"]))


# -- when it is asked for ----------------------------------------------------------------------------------


class Script:
    """STS as a function: gives a session of an hour, or refuses while `refuses`; `asked` counts."""

    def __init__(self, clock: FakeClock) -> None:
        self.refuses = False
        self.asked = 0
        self._clock = clock

    def __call__(self) -> Mapping[str, Any]:
        self.asked += 1
        if self.refuses:
            raise TransientSinkError("not now")
        ends = datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC) + timedelta(hours=1)
        given = {"AccessKeyId": f"key-{self.asked}", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": ends}
        return {"Credentials": given}


def key_of(session: RoleSession) -> str:
    return session.take_on()["access_key"]


def refused(session: RoleSession) -> bool:
    try:
        session.take_on()
    except TransientSinkError:
        return True
    return False


def test_a_refused_renewal_is_tried_again_after_a_while_and_at_once_when_all_is_over(clock: FakeClock) -> None:
    """An STS that says nothing costs who asks some seconds each time; one that is back must not be waited for."""
    sts = Script(clock)
    session = RoleSession(sts, clock)
    assert "key-1" == key_of(session)
    sts.refuses = True
    assert ["key-1"] * 2 == [key_of(session), key_of(session)]
    clock.advance(ASK_AGAIN_S)
    assert "key-1" == key_of(session)
    assert 2 == sts.asked
    clock.advance(RENEW_AGAIN_S)
    assert "key-1" == key_of(session)
    assert 3 == sts.asked
    clock.advance(3600)
    assert [True, True] == [refused(session), refused(session)]
    assert 4 == sts.asked
    sts.refuses = False
    clock.advance(ASK_AGAIN_S)
    assert "key-5" == key_of(session)

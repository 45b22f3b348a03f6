"""
AWS as Collector reaches it: clients on boto3's default credential chain, and what their errors mean.

Nothing else imports boto3 or botocore, and this does so only when a client is made: it takes 0.3 s of a start, and who
sends nothing to AWS need not have it. Nobody retries here: a batch that failed goes back to the spool.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cache, partial
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, Protocol

import msgspec

from collector.aws.role_session import RoleSession
from collector.aws.words import ADVICE, AMBIGUOUS_STATUS, EXPIRED, ROLE_ADVICE, THROTTLES, WAITS
from collector.clock import SystemClock
from collector.errors import AmbiguousSinkError, SinkError, ThrottledSinkError, TransientSinkError

#: How long a connection may take to come about, and an answer to begin, in seconds. Guesses: together less than the
#: 10 s for which the answer to a device waits for its sink.
_CONNECT_S, _READ_S = 3.0, 6.0
#: How many connections a client keeps: at least as many as batches are under way. More wait for each other.
_CONNECTIONS = 32

#: Providers that use the task's role, themselves or to take on another.
_OF_THE_ROLE = frozenset({"container-role", "assume-role"})
_NO_CREDENTIALS = "give the task a role, or this machine what boto3's default chain looks for"


class Client(Protocol):
    """One of boto3's clients: a method for each operation, which takes and returns what AWS's documentation says."""

    def __getattr__(self, operation: str) -> Callable[..., dict[str, Any]]:
        """Return the method of an operation."""

    def close(self) -> None:
        """Let all connections go."""


class Link:
    """A client that is made when it is first needed, and shared by all who ask at once; `connect` makes it."""

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._client: Client | None = None

    def client(self) -> Client:
        """Return the client; raises as `client` does when it can't be made, and the next to ask tries again."""
        return self._client or self._take(self._connect())

    def _take(self, client: Client) -> Client:
        # Who looks for credentials waits for others, and another may have found them meanwhile.
        if self._client is not None:
            client.close()
            return self._client
        self._client = client
        return client

    def close(self) -> None:
        """Let the client go, with its connections; safe to call twice, and before there is one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


class Found(msgspec.Struct, frozen=True):
    """
    What can be told of the credentials that the default chain has found, and nothing that is secret.

    `provider` is boto3's name for where they are from: `env`, `shared-credentials-file`, `container-role`, … They are
    `temporary` when they end by themselves, and `renewed` when boto3 gets others before that. `account` is what AWS
    itself says; empty where it did not answer, and `why` says what it did instead.
    """

    provider: str
    temporary: bool
    renewed: bool
    account: str = ""
    why: str = ""


def is_installed() -> bool:
    """Tell whether there is a boto3 to make clients with."""
    return find_spec("boto3") is not None


def client(
    service: str,
    *,
    region: str = "",
    endpoint: str = "",
    role: str = "",
    tags: Mapping[str, str] | None = None,
    session: str = "collector",
) -> Client:
    """
    Make a client of a service, which any number of greenlets may use at once.

    Raises `SinkError` when it can't be made, and `TransientSinkError` while there are no credentials. Region and
    credentials are those of boto3's default chain, unless `region` is given; `endpoint` is a URL in the place of AWS's
    own. Making one takes 20 to 30 ms of CPU, the first of a service 100 (measured), so it is done at the start.

    With the ARN of a `role` it acts as that, in a session of this name and with these tags. The first call takes it on.
    """
    import boto3  # noqa: PLC0415 -- see the top
    import botocore.session  # noqa: PLC0415 -- as above
    from botocore.config import Config  # noqa: PLC0415 -- as above
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 -- as above

    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=_CONNECTIONS,
        tcp_keepalive=True,
        # A bucket's name is part of a host's name at AWS; elsewhere nobody answers to that.
        s3={"addressing_style": "path"} if endpoint else {},
    )
    try:
        chain = botocore.session.get_session()
        chain.register_component("data_loader", _loader())
        maker = boto3.session.Session(botocore_session=chain)
        if maker.get_credentials() is None:
            # Asked before: a client without credentials never looks for them again.
            raise TransientSinkError(f"{service}: there are no credentials: {_NO_CREDENTIALS}")
        if role:
            sts = maker.client("sts", region_name=region or None, config=config)
            held = RoleSession(partial(_assume, sts, role, session, tags or {}), SystemClock())
            maker = _maker_as(held)
        made: Client = maker.client(service, region_name=region or None, endpoint_url=endpoint or None, config=config)
    except (BotoCoreError, ValueError) as error:
        raise SinkError(f"{service}: no client can be made: {_sentence(error)}") from error
    return made


def _assume(sts: Client, role: str, session: str, tags: Mapping[str, str]) -> dict[str, Any]:
    """Ask STS for a session of a role."""
    wanted: dict[str, object] = {"RoleArn": role, "RoleSessionName": session}
    if tags:
        wanted["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    try:
        return call(f"sts: assume_role {role}", partial(sts.assume_role, **wanted)) or {}
    finally:
        # Nobody needs the connection for most of an hour.
        sts.close()


@cache
def _loader() -> object:
    """Read what a service is once for all clients: it takes longer than all else of making one."""
    import botocore.session  # noqa: PLC0415 -- see the top

    loader: object = botocore.session.get_session().get_component("data_loader")
    return loader


def _maker_as(held: RoleSession) -> Any:  # noqa: ANN401 -- boto3 ships no types
    """Return a session of boto3's whose clients act as a role."""
    import boto3  # noqa: PLC0415 -- see the top
    import botocore.session  # noqa: PLC0415 -- as above
    from botocore.credentials import DeferredRefreshableCredentials  # noqa: PLC0415 -- as above

    def look(parsed: dict[str, Any], **_: object) -> None:
        if parsed.get("Error", {}).get("Code") in EXPIRED:
            held.end()

    credentials = DeferredRefreshableCredentials(held.take_on, "assume-role", time_fetcher=held.now)
    session = botocore.session.get_session()
    session.register_component("data_loader", _loader())
    session.register_component("credential_provider", SimpleNamespace(load_credentials=lambda: credentials))
    made = boto3.session.Session(botocore_session=session)
    made.events.register("after-call", look)
    return made


def find(*, region: str = "") -> Found | None:
    """Look for credentials as a client does, and ask AWS whose they are; None when there are none."""
    import boto3  # noqa: PLC0415 -- see the top
    from botocore.credentials import RefreshableCredentials  # noqa: PLC0415 -- as above
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 -- as above

    try:
        found = boto3.session.Session().get_credentials()
        if found is None:
            return None
        renewed = isinstance(found, RefreshableCredentials)
        temporary = renewed or bool(found.get_frozen_credentials().token)
    except BotoCoreError as error:
        raise TransientSinkError(f"aws: {_sentence(error)}") from error
    account, why = whose(region=region)
    return Found(found.method, temporary, renewed, account, why)


def whose(*, region: str = "", role: str = "", tags: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Ask AWS as whose account a client acts, and return that; or "", and what was said instead."""
    try:
        told = call("sts: get_caller_identity", client("sts", region=region, role=role, tags=tags).get_caller_identity)
    except SinkError as error:
        return "", str(error).removesuffix(f"; {WAITS}")
    account = str((told or {}).get("Account", ""))
    return account, "" if account else "sts: get_caller_identity: the answer names no account"


def problems_of(found: Found, *, has_task_role: bool, allowed: Collection[str]) -> list[str]:
    """
    Say what must not be: a key that nobody renews, or one that stands in the way of the task's role.

    `allowed` names the providers of which an operator wants just that.
    """
    if found.provider in allowed:
        return []
    problems = []
    if has_task_role and found.provider not in _OF_THE_ROLE:
        problems.append(
            f"the task has a role, and credentials of the provider {found.provider!r} stand in its way: remove them"
        )
    if not found.temporary:
        problems.append(
            f"the credentials are a long-lived key of the provider {found.provider!r}: remove it, and give the task a "
            "role"
        )
    return problems


def call(
    what: str, method: Callable[..., dict[str, Any]], *, unless: Collection[str] = (), **arguments: object
) -> dict[str, Any] | None:
    """
    Call a client's method, and return what it answers; None for a refusal with one of the codes of `unless`.

    Raises `TransientSinkError` for any other, with the code, and for credentials that are not there; its
    `ThrottledSinkError` where AWS asks for a slower pace, and its `AmbiguousSinkError` for an answer that does not
    come, or says that something went wrong there: it may have been done. `what` says it for people.
    """
    from botocore.exceptions import (  # noqa: PLC0415 -- as in `client`
        BotoCoreError,
        ClientError,
        HTTPClientError,
        IncompleteReadError,
    )
    from botocore.parsers import ResponseParserError  # noqa: PLC0415 -- as in `client`

    try:
        return method(**arguments)
    except ClientError as error:
        code, message = _refusal(error.response)
        if code in unless:
            return None
        kind = _kind(code, error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        advice = ROLE_ADVICE if error.operation_name == "AssumeRole" else ADVICE
        raise kind(f"{what}: {code}: {message}; {advice.get(code, WAITS)}", code=code) from error
    except (HTTPClientError, IncompleteReadError, ResponseParserError) as error:
        raise AmbiguousSinkError(f"{what}: {_sentence(error)}; {WAITS}") from error
    except BotoCoreError as error:
        # Nothing was sent: no connection came about, or there was nothing to sign with.
        raise TransientSinkError(f"{what}: {_sentence(error)}; {WAITS}") from error
    except KeyError as error:
        # botocore's, of XML that is no answer: the page of a proxy.
        raise TransientSinkError(f"{what}: the answer has no {error}; {WAITS}") from error


def _kind(code: str, status: int) -> type[TransientSinkError]:
    if code in THROTTLES:
        return ThrottledSinkError
    return AmbiguousSinkError if status in AMBIGUOUS_STATUS else TransientSinkError


def _refusal(response: dict[str, Any]) -> tuple[str, str]:
    """Return the code and the message of an error's answer; some have nothing but a status."""
    error = response.get("Error", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", "no status")
    return str(error.get("Code") or status), str(error.get("Message") or "no message").rstrip(".")


def _sentence(error: Exception) -> str:
    return str(error).rstrip(".").replace("\n", " ")

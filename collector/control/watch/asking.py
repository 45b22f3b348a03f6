"""
Asks CloudWatch, and turns what it refuses into what somebody can do about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from collector import aws
from collector.aws.words import DENIED, WAITS
from collector.errors import CannotLook, SinkError, ThrottledSinkError, TransientSinkError


def client(*, region: str, endpoint: str) -> aws.Client:
    """Make a client of CloudWatch; raises `CannotLook`."""
    if not aws.is_installed():
        raise CannotLook("CloudWatch needs boto3: pip install 'collector[aws]', or give --processed FILE")
    try:
        return aws.client("cloudwatch", region=region, endpoint=endpoint)
    except SinkError as error:
        raise CannotLook(f"{error}") from error


def ask(operation: str, method: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 -- boto3 ships no types
    """Call an operation of CloudWatch; raises `CannotLook`."""
    try:
        return aws.call(f"cloudwatch: {operation}", method, **arguments) or {}
    except ThrottledSinkError as error:
        raise CannotLook(f"{_said(error)}; look again in a minute") from error
    except TransientSinkError as error:
        advice = (
            f"; the role needs {_action(operation)}: docs/watch.md has the statement" if error.code in DENIED else ""
        )
        raise CannotLook(_said(error) + advice) from error


def _said(error: SinkError) -> str:
    """Return what was said without what is for sinks: no batch waits here."""
    said = str(error).removesuffix(f"; {WAITS}")
    for advice in ("; AWS asks for a slower pace, and the batch waits", "; let Collector's role do that there"):
        said = said.removesuffix(advice)
    return said


def _action(operation: str) -> str:
    return "cloudwatch:" + "".join(word.capitalize() for word in operation.split("_"))

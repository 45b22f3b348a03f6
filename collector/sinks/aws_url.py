"""
What the URLs of all AWS sinks have in common: where to, as whom, and no key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec

from collector import aws
from collector.sinks.objects import TENANT_ID
from collector.sinks.url import SinkUrl, read_options

_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)
#: What the name of a role's session may not hold, and how long it may be: STS's limits.
_NOT_IN_A_SESSION, _MOST_SESSION = re.compile(r"[^\w+=,.@-]", re.ASCII), 64


class AwsOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    `region` and `endpoint` take the place of those that boto3's default chain finds.

    `assume_role` is the ARN of a role to take on with the chain's credentials, and `tenant` a tag of that session: a
    policy that asks for `aws:PrincipalTag/tenant` narrows a route to its tenant.
    """

    region: str = ""
    endpoint: str = ""
    assume_role: str = ""
    tenant: str = ""


Options = TypeVar("Options", bound=AwsOptions)


def read_aws_options(url: SinkUrl, shape: type[Options]) -> Options:
    """Fill an AWS sink's options from its URL; raises `ValueError` for a mistake, and of a key without a word of it."""
    if "@" in url.host:
        raise ValueError(
            f"sink {url.scheme}://…@…: a key stands before its name; credentials come from boto3's default chain, such "
            f"as the task's role, and never from a URL: write {url.scheme}:// and the name alone"
        )
    return read_options(url, shape)


def common_options(url: SinkUrl) -> AwsOptions:
    """Return what all AWS sinks have in common, out of the URL of one that is in order."""
    return AwsOptions(**{name: url.options[name] for name in AwsOptions.__struct_fields__ if name in url.options})


def connector(service: str, url: SinkUrl, options: AwsOptions, *, writer_id: str = "") -> Callable[[], aws.Client]:
    """
    Return what makes the client of a sink, and asks nothing of AWS yet; raises `ValueError` for options that can't be.

    `writer_id` is the worker's: AWS's own log of who did what shows it, beside the tenant or the sink's name.
    """
    if options.endpoint and not options.endpoint.startswith(("http://", "https://")):
        raise ValueError(f"sink {url.text!r}: its endpoint is no http:// or https:// URL")
    if options.assume_role and not _ROLE.fullmatch(options.assume_role):
        raise ValueError(
            f"sink {url.text!r}: its assume_role is no ARN of a role; write arn:aws:iam::<account>:role/<name>, and "
            "%2B for a plus"
        )
    if options.tenant and not options.assume_role:
        raise ValueError(f"sink {url.text!r}: tenant= tags the session of a role; name that with assume_role=")
    if options.tenant and not TENANT_ID.fullmatch(options.tenant):
        raise ValueError(f"sink {url.text!r}: {options.tenant!r} can't be a tenant's id")
    if not aws.is_installed():
        raise ValueError(f"sink {url.text!r} needs boto3, which is not installed: pip install 'collector[aws]'")
    connect = partial(aws.client, service, region=options.region, endpoint=options.endpoint)
    if not options.assume_role:
        return connect
    session = _NOT_IN_A_SESSION.sub("-", f"collector-{writer_id}-{options.tenant or url.host}")
    return partial(connect, role=options.assume_role, tags=tags_of(options), session=session[:_MOST_SESSION])


def tags_of(options: AwsOptions) -> dict[str, str]:
    """Return the tags of a role's session."""
    return {"tenant": options.tenant} if options.tenant else {}

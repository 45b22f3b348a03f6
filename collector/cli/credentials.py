"""
What `collector check` tells of AWS: which credentials won, whose they are, and what must not be.
"""

from __future__ import annotations

from collections.abc import Mapping

from collector import aws
from collector.errors import SinkError
from collector.settings import Settings
from collector.sinks.registry import region_of

#: What the ECS agent tells a container, whose task has a role.
_ROLE_VARIABLES = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


def aws_regions(settings: Settings) -> list[str]:
    """List the regions that the settings' AWS sinks name, "" for the default chain's; none without such a sink."""
    sinks = [*settings.routes.values(), *([settings.rescue_sink] if settings.rescue_sink else [])]
    return [region for sink in sinks if (region := region_of(sink)) is not None]


def look(settings: Settings, environ: Mapping[str, str]) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Return rows for a table, what is wrong, and what may surprise; all empty without an AWS sink."""
    regions = aws_regions(settings)
    if not regions:
        return [], [], []
    try:
        found = aws.find(region=regions[0])
    except SinkError as error:
        return [("credentials", str(error))], [str(error)], []
    if found is None:
        told = "boto3's default chain finds no credentials here, and every batch for AWS would wait for some"
        return [("credentials", "none")], [], [told]
    allowed = (settings.aws_keys_allowed or "").split(",")
    problems = [
        f"{problem}; or name {found.provider} in COLLECTOR_AWS_KEYS_ALLOWED"
        for problem in aws.problems_of(found, has_task_role=any(map(environ.get, _ROLE_VARIABLES)), allowed=allowed)
    ]
    notes = []
    if found.temporary and not found.renewed:
        notes.append(f"the credentials of the provider {found.provider!r} end by themselves, and nobody renews them")
    if not found.account:
        notes.append(f"whose the credentials are could not be asked: {found.why}")
    lifetime = "temporary" if found.temporary else "for ever"
    rows = [
        ("credentials from", found.provider),
        ("they are", f"{lifetime}{', and renewed' if found.renewed else ''}"),
        ("account", found.account or "not told"),
    ]
    return rows, problems, notes

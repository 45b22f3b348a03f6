"""
What `collector check` tells of AWS: which credentials won, whose they are, and what must not be.
"""

from __future__ import annotations

from collections.abc import Mapping

from collector import aws
from collector.errors import SinkError
from collector.settings import Settings
from collector.sinks.aws_url import AwsOptions, tags_of
from collector.sinks.probing import Result, Told
from collector.sinks.registry import aws_options

#: What the ECS agent tells a container, whose task has a role.
_ROLE_VARIABLES = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")


def _wanted(settings: Settings) -> dict[str, AwsOptions]:
    """List what the settings' AWS sinks want of AWS, by what they are called here."""
    sinks = {f"route {name}": sink for name, sink in settings.routes.items()}
    if settings.rescue_sink:
        sinks["rescue sink"] = settings.rescue_sink
    return {name: options for name, sink in sinks.items() if (options := aws_options(sink)) is not None}


def look(settings: Settings, environ: Mapping[str, str]) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Return rows for a table, what is wrong, and what may surprise; all empty without an AWS sink."""
    wanted = _wanted(settings)
    if not wanted:
        return [], [], []
    try:
        found = aws.find(region=next(iter(wanted.values())).region)
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
    rows = [
        ("credentials from", found.provider),
        ("they are", _lifetime(found)),
        ("account", found.account or "not told"),
    ]
    roles, refused = _roles(wanted)
    return rows + roles, problems, notes + refused


def told_of(options: AwsOptions | None) -> Told:
    """Tell of the credentials that a sink acts with; of none for one that is not AWS's. Raises `SinkError`."""
    if options is None:
        return Told(Result.SKIPPED, "it needs none")
    found = aws.find(region=options.region)
    if found is None:
        return Told(Result.FAILED, "boto3's default chain finds no credentials here")
    account, why, acts = found.account, found.why, ""
    if options.assume_role:
        account, why = aws.whose(region=options.region, role=options.assume_role, tags=tags_of(options))
        if not account:
            return Told(Result.FAILED, f"they are from {found.provider}, and can't take on the role: {why}")
        acts = f", which take on {options.assume_role}"
    came = f"from {found.provider}, {_lifetime(found)}{acts}"
    if not account:
        return Told(Result.UNTOLD, f"{came}; whose they are could not be asked: {why}")
    return Told(Result.OK, f"{came}; account {account}")


def _lifetime(found: aws.Found) -> str:
    return f"{'temporary' if found.temporary else 'for ever'}{', and renewed' if found.renewed else ''}"


def _roles(wanted: Mapping[str, AwsOptions]) -> tuple[list[tuple[str, str]], list[str]]:
    """Take on the role of each sink that has one: a row for each, and a note for each that was not to be had."""
    rows, notes = [], []
    for name, options in wanted.items():
        if not options.assume_role:
            continue
        account, why = aws.whose(region=options.region, role=options.assume_role, tags=tags_of(options))
        tagged = f", tagged tenant={options.tenant}" if options.tenant else ""
        rows.append((name, f"takes on {options.assume_role}{tagged}: {f'account {account}' if account else 'refused'}"))
        if not account:
            notes.append(f"{name} can't take on its role, and its batches would wait: {why}")
    return rows, notes

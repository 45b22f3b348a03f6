"""The examples load, and say what is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from collector.settings import Settings, load, load_with_sources, parse_tenants
from collector.settings.reading import VARIABLES
from collector.tenant import Tenant

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

#: What full.env sets to something else than the default, and says so in the line above.
OTHER_THAN_DEFAULT = {
    "config", "bind", "admin_token", "sink", "rescue_sink", "claim_sink", "spool_dir", "dedupe_bytes",
    "spool_bytes", "workers", "read_at_s", "text_sha256",
    "routes", "tenants",
}  # fmt: skip


def variables(name: str) -> dict[str, str]:
    lines = (EXAMPLES / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("name", ["minimal.env", "full.env"])
def test_an_example_loads(name: str) -> None:
    """An example that does not work is worse than none."""
    settings = load(variables(name), cwd=EXAMPLES)

    assert ("app", "web", "old-partner") == tuple(tenant.id for tenant in settings.tenants)


def test_the_full_example_names_every_setting_and_no_other() -> None:
    """It is the reference that people copy from."""
    named = re.findall(r"^#? ?(COLLECTOR_[A-Z0-9_]+)=", (EXAMPLES / "full.env").read_text(), re.MULTILINE)

    assert sorted(VARIABLES) == sorted(named)


def test_what_the_full_example_calls_a_default_is_one() -> None:
    """A default that changed would go on being recommended."""
    settings, sources = load_with_sources(variables("full.env"), cwd=EXAMPLES)
    defaults = Settings()

    assert [] == [
        field
        for field in Settings.__struct_fields__
        if field not in OTHER_THAN_DEFAULT and getattr(defaults, field) != getattr(settings, field)
    ]
    assert OTHER_THAN_DEFAULT - {"read_at_s", "routes", "tenants", "text_sha256"} <= sources.keys()


def test_what_is_commented_out_in_the_full_example_works_too() -> None:
    """Taking a `#` away is how it is used."""
    text = (EXAMPLES / "full.env").read_text()
    hidden = dict(re.findall(r"^# (COLLECTOR_HEC_(?:URL|TOKEN))=(.*)$", text, re.MULTILINE))

    assert load({**variables("full.env"), **hidden}, cwd=EXAMPLES).hec_token


def test_the_example_of_tenants_shows_every_field() -> None:
    """It is the only list of them that stands beside a value."""
    text = (EXAMPLES / "collector.toml").read_text()
    tenants = parse_tenants(text, ("default", "archive"))
    shown = set(re.findall(r"^([a-z_]+) =", text[text.index("[tenants.web]") :], re.MULTILINE))

    assert set(Tenant.__struct_fields__) - {"id"} == shown
    assert 4 == len({key for tenant in tenants for key in tenant.keys})

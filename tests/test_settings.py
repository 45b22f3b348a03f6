"""The settings: what is read, what is refused, and in what words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import settings as public
from collector.errors import SettingsError
from collector.settings import (
    DEV_TENANT,
    SINK_SCHEMES,
    SNAPSHOT,
    Settings,
    dedupe_budget,
    from_json,
    is_loopback,
    load,
    load_for_worker,
    load_with_sources,
    locate,
    memory_limit_bytes,
    mount_size_bytes,
    parse_tenants,
    spool_budget,
    to_json,
)
from collector.settings.model import HEC_DRAIN_S
from collector.settings.places import file_system_type, read_mounts
from collector.settings.values import sink_url
from collector.sinks import registry
from collector.sinks.url import parse as parse_url
from collector.tenant import Ack, Tenant

DIGEST, OTHER_DIGEST = "a1" * 32, "b2" * 32
TENANTS = f'[tenants.app]\nkeys = ["{DIGEST}"]\n'
#: What lets the settings be reached by others without a complaint.
IN_PUBLIC = {"BIND": "0.0.0.0:8080", "SPOOL_DIR": "/run/collector/spool"}


def read(folder: Path, toml: str | None = None, **variables: str) -> Settings:
    """Load from variables without their prefix, and from a file if there is text for one."""
    environ = {f"COLLECTOR_{name}": value for name, value in variables.items()}
    if toml is not None:
        (folder / "c.toml").write_text(toml)
        environ["COLLECTOR_CONFIG"] = "c.toml"
    return load(environ, cwd=folder, cores=2)


def told_by(call: Callable[[], object]) -> list[str]:
    """Return what a call has to say, nothing if all is well."""
    try:
        call()
    except SettingsError as error:
        return error.problems
    return []


def problems(folder: Path, toml: str | None = None, **variables: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(folder, toml, **variables)
    return caught.value.problems


def only_problem(folder: Path, toml: str | None = None, **variables: str) -> str:
    (problem,) = problems(folder, toml, **variables)
    return problem


# -- what is read ------------------------------------------------------------------------------------------


def test_nothing_set_is_a_loopback_run_with_the_tenant_dev(tmp_path: Path) -> None:
    """`make run` works on a fresh clone without a file or a variable."""
    settings = read(tmp_path)

    assert ("127.0.0.1:8080", "127.0.0.1:8081") == (settings.bind, settings.admin_bind)
    assert 2 == settings.workers
    assert (DEV_TENANT,) == settings.tenants
    assert {"default": f"file:{tmp_path}/data"} == settings.routes
    assert settings.sink == settings.routes["default"]


def test_an_object_made_bare_has_the_default_route() -> None:
    """Tests and tools build settings without loading them."""
    assert {"default": "stdout:", "b": "file:b"} == Settings(sink="stdout:", routes={"b": "file:b"}).routes


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    """One image and one file serve several stages that differ in a variable."""
    settings = read(tmp_path, 'drain_s = 5\nlog_level = "debug"\n', DRAIN_S="7.5")

    assert (7.5, "debug") == (settings.drain_s, settings.log_level)


def test_each_setting_tells_where_it_was_written(tmp_path: Path) -> None:
    """Whoever wonders at a value looks in the right place first."""
    (tmp_path / "c.toml").write_text("drain_s = 5\nworkers = 3\n")
    environ = {"COLLECTOR_CONFIG": "c.toml", "COLLECTOR_DRAIN_S": "6"}

    _, sources = load_with_sources(environ, cwd=tmp_path)

    assert {"config": "COLLECTOR_CONFIG", "drain_s": "COLLECTOR_DRAIN_S", "workers": "`workers` in c.toml"} == sources


def test_an_empty_variable_counts_as_unset(tmp_path: Path) -> None:
    """Compose files and task definitions pass on variables that nobody set as empty ones."""
    assert None is read(tmp_path, RESCUE_SINK="", CONFIG="", WORKERS="").rescue_sink


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [("131072", 131072), ("16 MiB", 16 << 20), ("16MiB", 16 << 20), ("1GiB", 1 << 30), ("128 KiB", 131072)],
)
def test_a_size_is_written_as_people_write_it(tmp_path: Path, written: str, size_bytes: int) -> None:
    """Counting zeros is how a limit gets wrong by a factor of ten."""
    assert size_bytes == read(tmp_path, SEGMENT_BYTES=written).segment_bytes
    assert size_bytes == read(tmp_path, f'segment_bytes = "{written}"').segment_bytes


def test_a_size_in_toml_may_be_a_number(tmp_path: Path) -> None:
    """A TOML number is how a program writes it."""
    assert 99_999 == read(tmp_path, "segment_bytes = 99_999").segment_bytes


def test_relative_places_start_where_the_program_was_started(tmp_path: Path) -> None:
    """gunicorn, its workers and a reload must all find the same folder, wherever each stands."""
    (tmp_path / "m.json").write_text(json.dumps([{"containerPath": str(tmp_path), "size": 1}]))

    settings = read(
        tmp_path, SINK="file:out?fsync=0", RESCUE_SINK="file:/srv/rescue", TMPFS_MOUNTS="m.json", SPOOL_DIR="s"
    )

    assert (f"file:{tmp_path}/out?fsync=0", "file:/srv/rescue") == (settings.sink, settings.rescue_sink)
    assert f"{tmp_path}/s" == settings.spool_dir


def test_a_folder_with_odd_letters_survives_in_the_sinks_url(tmp_path: Path) -> None:
    """A URL has its own idea of %, ? and #, and a home directory may hold any of them."""
    odd = tmp_path / "50% ?#ü"
    odd.mkdir()

    url = sink_url(odd)("file:data")

    assert parse_url(url).path == f"{odd}/data"


def test_a_token_comes_from_a_file(tmp_path: Path) -> None:
    """Secret stores mount files, and editors end them with a newline."""
    (tmp_path / "token").write_text("s3cret\n")

    settings = read(tmp_path, HEC_URL="https://splunk:8088", HEC_TOKEN_FILE="token", ADMIN_TOKEN_FILE="token")

    assert ("s3cret", "s3cret") == (settings.hec_token, settings.admin_token)


def test_variables_of_kubernetes_service_links_are_left_alone(tmp_path: Path) -> None:
    """Beside a Service called collector, every container gets these, and nobody wrote them."""
    links = {
        "PORT": "tcp://10.0.0.1:8080",
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "8080",
        "SERVICE_PORT_HTTP": "8080",
        "PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "PORT_8080_TCP_PROTO": "tcp",
        "ADMIN_SERVICE_HOST": "10.0.0.2",
        "ADMIN_PORT": "tcp://10.0.0.2:8081",
    }

    assert read(tmp_path) == read(tmp_path, **links)


# -- what is refused ---------------------------------------------------------------------------------------


def test_all_mistakes_are_told_at_once_each_by_its_name(tmp_path: Path) -> None:
    """One failed start a mistake is how an evening is lost."""
    toml = f"""
        workers = "many"
        drain = 3
        [routes.a]
        sink = "ftp://x"
        [tenants.app]
        keys = ["my-secret-key"]
        share = 0
        burst = 2
        [tenants.web]
        keys = ["{DIGEST}"]
        route = "nowhere"
    """

    told = problems(tmp_path, toml, BIND="8080", WOKERS="2", SEGMENT_BYTES="4 MB", TRUSTED_HOPS="-1", LOG_LEVEL="loud")

    names = [
        "COLLECTOR_WOKERS", "COLLECTOR_BIND", "`workers` in c.toml", "COLLECTOR_SEGMENT_BYTES",
        "COLLECTOR_TRUSTED_HOPS", "COLLECTOR_LOG_LEVEL", "`drain` in c.toml", "[routes.a] sink", "[tenants.app] share",
        "[tenants.app] burst", "[tenants.app] keys[0]", "[tenants.web] route",
    ]  # fmt: skip
    assert sorted(names) == sorted(problem.split(": ")[0] for problem in told)


@pytest.mark.parametrize(
    ("variable", "written", "said"),
    [
        ("WORKERS", "four", "'four' is not a whole number; write one from 1 to 1024"),
        ("WORKERS", "0", "0 is out of bounds"),
        ("WORKERS", "2.5", "not a whole number"),
        ("DRAIN_S", "nan", "not a number; write a number of seconds of at least 0"),
        ("DRAIN_S", "inf", "not a number"),
        ("DRAIN_S", "-1", "-1 is out of bounds"),
        ("FLUSH_INTERVAL_S", "0", "write a number of seconds above 0"),
        ("KEEPALIVE_S", "0", "at least 1"),
        ("SPOOL_BYTES", "lots", "write bytes, or a whole number with KiB, MiB or GiB"),
        ("SPOOL_BYTES", "12", "12 bytes is too small"),
        ("LOG_LEVEL", "INFO", "is not one of debug, info, warning, error"),
        ("BIND", ":8080", "write host:port, for example 127.0.0.1:8080"),
        ("BIND", "127.0.0.1", "has no host"),
        ("BIND", "127.0.0.1:0", "has no port from 1 to 65535"),
        ("BIND", "127.0.0.1:65536", "has no port from 1 to 65535"),
        ("BIND", "127.0.0.1:http", "has no port from 1 to 65535"),
        ("BIND", "unix:/tmp/x:1", "IPv6"),
        ("BIND", "::1:8080", "write [::1]:8080"),
        ("BIND", "[::g]:8080", "no valid IPv6 address"),
        ("BIND", "a b:80", "no valid host"),
        ("BIND", "fd://x", "write fd://3 or higher"),
        ("BIND", "fd://1", "write fd://3 or higher"),
        ("BIND", "127.0.0.1:8081", "collides with COLLECTOR_ADMIN_BIND"),
        ("SINK", "data", "write file:DIR or stdout: or s3://bucket/prefix"),
        ("SINK", "ftp://x", "write file:DIR or stdout: or s3://bucket/prefix"),
        ("SINK", "file:", "names no directory"),
        ("SINK", "file://data", "write file:data, without the slashes"),
        ("SINK", "file:~/data", "names no directory"),
        ("AWS_KEYS_ALLOWED", "Env", "is no list of names; write them in lower case"),
        ("AWS_KEYS_ALLOWED", "env,,iam-role", "is no list of names"),
        ("RESCUE_SINK", "file:data", "is the same as the sink"),
        ("WOKERS", "2", "did you mean COLLECTOR_WORKERS?"),
        ("PORT", "9000", "there is no such setting"),
        ("TENANTS", "x", "write its path into COLLECTOR_CONFIG"),
        ("HEC_URL", "https://splunk:8088", "write COLLECTOR_HEC_TOKEN or COLLECTOR_HEC_TOKEN_FILE"),
        ("HEC_URL", "splunk:8088", "must be an http:// or https:// URL"),
        ("HEC_TOKEN", "t0ken", "has no use without COLLECTOR_HEC_URL"),
        ("HEC_TOKEN_FILE", "missing", "can't be read (No such file or directory)"),
        ("CONFIG", "missing.toml", "can't be read (No such file or directory); write the path of a TOML file"),
        ("MAX_INFLATED_BYTES", "1 MiB", "is below max_upload_bytes"),
        ("SPOOL_BYTES", "4 MiB", "write at least 8388608"),
        ("TMPFS_MOUNTS", "missing.json", "can't be read"),
        ("KEEPALIVE_S", "100", "must stay under 119 s"),
        ("DRAIN_S", "90", "90 is too long: lame_duck_s 3 + keepalive_s 65 + drain_s 90 + 2 must stay under 119 s"),
        ("BODY_DEADLINE_S", "90", "body_deadline_s 90 + ack_timeout_s 10 + drain_s 20 + 2 must stay under"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_what_to_write_instead(tmp_path: Path, variable: str, written: str, said: str) -> None:
    """A refusal that does not help is looked up in the source."""
    problem = only_problem(tmp_path, **{variable: written})

    assert said in problem
    assert problem.startswith(f"COLLECTOR_{variable}: ")


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("workers = true", "`workers` in c.toml: True (true or false) is not a whole number"),
        ("bind = 8080", "`bind` in c.toml: 8080 (a number) is no address"),
        ("sink = 3", "`sink` in c.toml: 3 (a number) is no sink"),
        ("drain_s = 1979-05-27", "(a date or time) is not a number"),
        ("flush_intervall_s = 1", "did you mean flush_interval_s?"),
        ('config = "x"', "only the variable COLLECTOR_CONFIG names the file"),
        ("zzz = 1", "`zzz` in c.toml: there is no such setting; leave it out"),
        ("routes = 3", "`routes` in c.toml: must be tables"),
        ('[routes.default]\nsink = "file:x"', "[routes.default]: the default route is the setting `sink`"),
        ('[routes."a/b"]\nsink = "file:x"', "[routes.a/b]: a route's name is 1 to 64 of"),
        ("[routes.a]", '[routes.a]: names no sink; write for example sink = "file:data/a"'),
        ('[routes.a]\nsink = "file:x"\nretry = 1', "[routes.a] retry: no such field"),
        ("tenants = 3", "`tenants` must be tables"),
        ("workers =", "the file is not TOML"),
        ("x = " + "[" * 5000, "the file is not TOML"),
        ("admin_token = 7", "`admin_token` in c.toml: must be text and not empty, not a number"),
    ],
)
def test_a_mistake_in_the_file_is_told_by_its_key(tmp_path: Path, toml: str, said: str) -> None:
    """What was written in a file is named as it stands in the file."""
    assert said in only_problem(tmp_path, toml)


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    """Editors of another age save another encoding."""
    (tmp_path / "c.toml").write_bytes(b'sink = "file:\xff"')

    assert "is not UTF-8" in only_problem(tmp_path, CONFIG="c.toml")


@pytest.mark.parametrize(("written", "is_on"), [("0", False), ("1", True)])
def test_a_switch_is_on_or_off(tmp_path: Path, written: str, is_on: bool) -> None:
    """It is thrown at 3 a.m., in a variable or in a file."""
    assert (is_on, is_on) == (
        read(tmp_path, HOT_DOOR=written).hot_door,
        read(tmp_path, f"hot_door = {written}\n").hot_door,
    )


def test_a_switch_is_nothing_but_on_or_off(tmp_path: Path) -> None:
    """What "no" would mean is a guess, and one day a wrong one."""
    assert "COLLECTOR_HOT_DOOR: 'no' is neither 1 (on) nor 0 (off); write one of them" == only_problem(
        tmp_path, HOT_DOOR="no"
    )


def test_secrets_are_never_quoted_back(tmp_path: Path) -> None:
    """What a start prints is kept in logs that many may read."""
    (tmp_path / "token").write_text("hush hush")
    toml = '[tenants.app]\nkeys = ["hush-key", 7]\n'

    told = problems(tmp_path, toml, ADMIN_TOKEN="hush hush", HEC_TOKEN="hush\thush", HEC_URL="https://hush:hush@splunk")
    told += problems(tmp_path, HEC_TOKEN_FILE="token", HEC_URL="https://splunk")

    assert 6 == len(told)
    assert "hush" not in "".join(told)


def test_secrets_are_masked_wherever_settings_are_shown(tmp_path: Path) -> None:
    """A traceback with a local variable in it is a log line too."""
    settings = read(tmp_path, ADMIN_TOKEN="hush", HEC_TOKEN="hush", HEC_URL="https://splunk")

    assert "hush" not in f"{settings!r} {settings} {settings.shown()}"
    assert "hush" == settings.admin_token


def test_a_token_beside_its_file_is_refused(tmp_path: Path) -> None:
    """Of two tokens the wrong one would be used."""
    (tmp_path / "token").write_text("t0ken")

    assert "set beside COLLECTOR_ADMIN_TOKEN_FILE" in only_problem(
        tmp_path, ADMIN_TOKEN="other", ADMIN_TOKEN_FILE="token"
    )


# -- what others can reach ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
def test_the_default_tenant_is_served_on_loopback(tmp_path: Path, host: str) -> None:
    """Its key is in the manual, and nobody else can bring it there."""
    assert is_loopback(read(tmp_path, BIND=f"{host}:80").bind)


@pytest.mark.parametrize("setting", ["BIND", "ADMIN_BIND"])
@pytest.mark.parametrize(
    "bind", ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "example.com:80", "127.0.0.1.evil:80", "fd://3"]
)
@pytest.mark.parametrize("toml", [None, "drain_s = 1"])
def test_the_default_tenant_is_refused_to_all_others(tmp_path: Path, setting: str, bind: str, toml: str | None) -> None:
    """A key that everybody knows is no key. What an inherited socket is bound to can't be told."""
    (problem,) = [
        told
        for told in problems(tmp_path, toml, **{setting: bind}, ADMIN_TOKEN="t0ken", SPOOL_DIR="/run/collector")
        if "key everyone knows" in told
    ]

    assert problem.startswith(f"COLLECTOR_{setting}: {bind} can be reached by others")


def test_a_file_with_tenants_may_be_served_to_all(tmp_path: Path) -> None:
    """Else there would be no production."""
    settings = read(tmp_path, TENANTS, **IN_PUBLIC)

    assert ("app",) == tuple(tenant.id for tenant in settings.tenants)


def test_the_key_of_the_manual_is_refused_under_any_tenant(tmp_path: Path) -> None:
    """Giving the tenant another name does not make its key a secret."""
    toml = f'[tenants.app]\nkeys = ["{DEV_TENANT.keys[0]}"]\n'

    assert "a key of [tenants.app] is the one that the manual prints" in only_problem(tmp_path, toml, **IN_PUBLIC)
    assert "app" == read(tmp_path, toml).tenants[0].id


def test_an_admin_listener_for_all_needs_a_token(tmp_path: Path) -> None:
    """The ledger names tenants and what they send."""
    exposed = {**IN_PUBLIC, "ADMIN_BIND": "0.0.0.0:8081"}

    assert "write COLLECTOR_ADMIN_TOKEN" in only_problem(tmp_path, TENANTS, **exposed)
    assert "t" == read(tmp_path, TENANTS, **exposed, ADMIN_TOKEN="t").admin_token


def test_a_file_that_cannot_be_read_is_the_only_thing_told(tmp_path: Path) -> None:
    """Its tenants are not known: to complain that there are none would send the operator the wrong way."""
    assert "COLLECTOR_CONFIG: " in only_problem(tmp_path, "tenants = [", **IN_PUBLIC)


# -- tenants -----------------------------------------------------------------------------------------------


def tenant_problems(toml: str, routes: tuple[str, ...] = ("default",)) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse_tenants(toml, routes)
    return caught.value.problems


def test_a_tenant_has_all_that_its_table_says() -> None:
    """Each field is read, none is another's."""
    toml = f"""
        [tenants.web]
        keys = ["{DIGEST.upper()}", "{OTHER_DIGEST}"]
        enabled = false
        ack = "sink"
        route = "archive"
        events_per_s = 10
        bytes_per_s = "1 MiB"
        burst_s = 2.5
        share = 3
        max_event_bytes = "64 KiB"
        anonymise_ip = true
        clevertap_account = "W8W"
    """

    (tenant,) = parse_tenants(toml, ("default", "archive"))

    assert tenant == Tenant(
        id="web", keys=(DIGEST, OTHER_DIGEST), enabled=False, ack=Ack.SINK, route="archive", events_per_s=10.0,
        bytes_per_s=1048576.0, burst_s=2.5, share=3.0, max_event_bytes=65536, anonymise_ip=True,
        clevertap_account="W8W",
    )  # fmt: skip
    assert isinstance(tenant.ack, Ack)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ('keys = "x"', "must list the SHA-256 of at least one key: run `collector key t`"),
        ("keys = []", "must list the SHA-256 of at least one key"),
        ('keys = ["plain"]', "keys[0]: looks like a plain key: run `collector key t`"),
        (f'keys = ["{DIGEST}", "{DIGEST}"]', "one key stands twice"),
        ("enabled = 1", "enabled: 1 (a number) is neither true nor false"),
        ('ack = "disk"', "ack: 'disk' is not one of spool, sink"),
        ('ack = ["sink"]', "(a list) is not one of spool, sink"),
        ('route = "x"', "route: 'x' is no route; there is default"),
        ('route = "defualt"', "did you mean default?"),
        ("events_per_s = -1", "events_per_s: -1 is out of bounds; write a number of at least 0"),
        ("bytes_per_s = -1", "bytes_per_s: -1 is out of bounds"),
        ('bytes_per_s = "x"', "write bytes, or a whole number with KiB, MiB or GiB"),
        ("burst_s = 0", "burst_s: 0 is out of bounds; write a number of seconds above 0"),
        ("share = 0", "share: 0 is out of bounds"),
        ("share = nan", "share: nan (a number) is not a number"),
        ("max_event_bytes = 0", "max_event_bytes: 0 bytes is too small"),
        ("anonymize_ip = true", "anonymize_ip: no such field; did you mean anonymise_ip?"),
        ("xyz = 1", "xyz: no such field; a tenant has keys, enabled, ack"),
        ('clevertap_account = ""', "clevertap_account: must be text and not empty"),
    ],
)
def test_a_wrong_field_of_a_tenant_is_told(field: str, said: str) -> None:
    """A limit with a typo in its name would be no limit."""
    own_keys = "" if field.startswith("keys") else f'keys = ["{DIGEST}"]\n'

    (problem,) = tenant_problems(f"[tenants.t]\n{own_keys}{field}\n")

    assert said in problem
    assert problem.startswith("[tenants.t] ")


def test_a_key_of_two_tenants_is_refused() -> None:
    """Whose events those are would be decided by the order of a file."""
    (problem,) = tenant_problems(f'{TENANTS}[tenants.b]\nkeys = ["{DIGEST.upper()}"]\n')

    assert "[tenants.b] keys: a1a1a1a1… is a key of [tenants.app] too" in problem


def test_an_account_of_two_tenants_is_refused() -> None:
    """A tenant's id is its account when it has no other."""
    (problem,) = tenant_problems(f'{TENANTS}[tenants.b]\nkeys = ["{OTHER_DIGEST}"]\nclevertap_account = "app"\n')

    assert "[tenants.b] clevertap_account: 'app' is the account of [tenants.app] too" in problem


@pytest.mark.parametrize("tenant_id", ["", "a b", "a/b", "x" * 65, "ü", "a\\u0000"])
def test_a_tenants_id_is_fit_for_a_path(tenant_id: str) -> None:
    """It names a folder of the sink."""
    assert "a tenant's id is 1 to 64 of" in tenant_problems(f'[tenants."{tenant_id}"]\nkeys = ["{DIGEST}"]\n')[0]


def test_a_route_that_came_with_a_reload_says_how_to_have_it() -> None:
    """Tenants reload by themselves, routes do not."""
    toml = f'[routes.new]\nsink = "file:x"\n{TENANTS}route = "new"\n'

    assert "reload with SIGHUP" in tenant_problems(toml)[0]


@pytest.mark.parametrize("toml", ["", "[tenants]", "drain_s = 3"])
def test_a_file_without_tenants_is_refused_unless_something_stands_in(toml: str) -> None:
    """A reload that loses them must not bring the default tenant."""
    assert "has no [tenants.<id>] table" in tenant_problems(toml)[0]
    assert (DEV_TENANT,) == parse_tenants(toml, ("default",), fallback=(DEV_TENANT,))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from([*Tenant.__struct_fields__, "x"])


@given(
    st.dictionaries(
        st.sampled_from(["a", "b b", ""]) | st.text(max_size=3), st.dictionaries(field_names, json_values) | json_values
    )
)
def test_no_table_of_tenants_brings_the_reader_down(tables: Mapping[str, Any]) -> None:
    """The reloader runs in every worker; what it can't take must come as sentences."""
    tenants: list[Tenant] = []

    told = told_by(lambda: tenants.extend(parse_tenants({"tenants": tables}, ("default",))))

    assert all(isinstance(problem, str) and problem for problem in told)
    assert told or set(tables) == {tenant.id for tenant in tenants}


@given(st.text(max_size=200))
def test_no_text_brings_the_reader_down(text: str) -> None:
    """A file half written, or none of TOML at all, is one sentence."""
    with pytest.raises(SettingsError):
        parse_tenants(text, ())


@given(
    st.dictionaries(
        st.sampled_from(sorted(Settings.__struct_fields__)),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    )
)
def test_no_variable_brings_the_reader_down(variables: dict[str, str]) -> None:
    """Whatever stands in the environment, the answer is settings or sentences that name variables."""
    environ = {f"COLLECTOR_{name.upper()}": value for name, value in variables.items()}

    told = told_by(lambda: load(environ, cwd=Path("/nowhere")))

    assert all(problem.startswith("COLLECTOR_") for problem in told)


# -- the spool's place and size ----------------------------------------------------------------------------


def mounts_file(folder: Path, *places: Path) -> str:
    file = folder / "mounts.json"
    file.write_text(json.dumps([{"containerPath": str(place), "size": 8, "mountOptions": ["rw"]} for place in places]))
    return str(file)


def test_the_spool_lies_on_a_mount_of_the_list(tmp_path: Path) -> None:
    """In the image every other place is read-only."""
    mounts = mounts_file(tmp_path, tmp_path / "mount")

    assert read(tmp_path, TMPFS_MOUNTS=mounts, SPOOL_DIR=f"{tmp_path}/mount").spool_dir
    assert read(tmp_path, TMPFS_MOUNTS=mounts, SPOOL_DIR=f"{tmp_path}/mount/a/b").spool_dir
    assert "is on no mount of mounts.json" in only_problem(
        tmp_path, TMPFS_MOUNTS=mounts, SPOOL_DIR=f"{tmp_path}/mountain"
    )


@pytest.mark.parametrize("way", ["mount/../disk", "mount/link", "mount/link/below"])
def test_a_way_round_about_does_not_leave_the_mount(tmp_path: Path, way: str) -> None:
    """A path says where it begins, not where it ends."""
    mount, disk = tmp_path / "mount", tmp_path / "disk"
    mount.mkdir()
    disk.mkdir()
    (mount / "link").symlink_to(disk)

    problem = only_problem(tmp_path, TMPFS_MOUNTS=mounts_file(tmp_path, mount), SPOOL_DIR=str(tmp_path / way))

    assert problem.startswith("COLLECTOR_SPOOL_DIR: ")
    assert f"for example {mount}/spool" in problem


def test_a_mount_that_is_named_by_a_link_is_that_mount(tmp_path: Path) -> None:
    """/var/run is /run."""
    (tmp_path / "mount").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "mount")

    settings = read(
        tmp_path, TMPFS_MOUNTS=mounts_file(tmp_path, tmp_path / "alias"), SPOOL_DIR=str(tmp_path / "mount/spool")
    )

    assert f"{tmp_path}/mount/spool" == settings.spool_dir


def test_only_a_loopback_run_may_use_dev_shm(tmp_path: Path) -> None:
    """A container's /dev/shm is 64 MiB that nobody planned; on a laptop it is what there is."""
    mounts = mounts_file(tmp_path, tmp_path)
    in_shm = {"TMPFS_MOUNTS": mounts, "SPOOL_DIR": "/dev/shm/x"}

    assert read(tmp_path, **in_shm).spool_dir
    assert "/dev/shm is only for a loopback run" in only_problem(tmp_path, TENANTS, **in_shm, BIND="0.0.0.0:80")
    assert "/dev/shm is only for a loopback run" in only_problem(
        tmp_path, TENANTS, **in_shm, ADMIN_BIND="0.0.0.0:80", ADMIN_TOKEN="t"
    )


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"containerPath": "/x"}]', '[{"containerPath": "x", "size": 1}]', "["])
def test_a_list_of_mounts_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    """The file is written by hand, and pasted into task definitions."""
    (tmp_path / "m.json").write_text(text)

    assert only_problem(tmp_path, TMPFS_MOUNTS="m.json").startswith(f"COLLECTOR_TMPFS_MOUNTS: {tmp_path}/m.json")


def test_the_budget_is_the_least_of_mount_and_memory() -> None:
    """tmpfs is memory: a mount larger than a quarter of it would have the task killed."""
    settings = Settings()

    assert 900 == spool_budget(settings, mount_bytes=1000, memory_limit=1_000_000)
    assert 250 == spool_budget(settings, mount_bytes=1_000_000, memory_limit=1000)
    assert 250 == spool_budget(settings, mount_bytes=0, memory_limit=1000)


def test_a_budget_that_is_written_is_taken_if_the_mount_can_hold_it() -> None:
    """The operator knows what else runs in the task, and not always the mount."""
    settings = Settings(spool_bytes=1000)

    assert 1000 == spool_budget(settings, mount_bytes=1000, memory_limit=1)
    with pytest.raises(SettingsError, match="COLLECTOR_SPOOL_BYTES: 1000 is more than the 999 bytes"):
        spool_budget(settings, mount_bytes=999, memory_limit=1_000_000)


def test_the_room_for_ids_is_a_small_part_of_what_there_is() -> None:
    """It is taken beside the spool, which has nine tenths of the mount."""
    settings = Settings()

    assert 64 << 20 == dedupe_budget(settings, mount_bytes=1 << 40, memory_limit=1 << 40)
    assert 50 == dedupe_budget(settings, mount_bytes=1000, memory_limit=1_000_000)
    assert 50 == dedupe_budget(settings, mount_bytes=1_000_000, memory_limit=1000)
    assert 50 == dedupe_budget(settings, mount_bytes=0, memory_limit=1000)
    assert 500 == dedupe_budget(Settings(dedupe_bytes=500), mount_bytes=1000, memory_limit=1)
    with pytest.raises(SettingsError, match="COLLECTOR_DEDUPE_BYTES: 501 is more than half of the 1000 bytes"):
        dedupe_budget(Settings(dedupe_bytes=501), mount_bytes=1000, memory_limit=1)


def test_the_mounts_size_is_known_before_the_spool_is_made() -> None:
    """`collector check` creates nothing."""
    status = os.statvfs("/dev/shm")

    assert status.f_frsize * status.f_blocks == mount_size_bytes("/dev/shm/not/there/yet")


# -- memory ------------------------------------------------------------------------------------------------


def machine(root: Path, cgroup: str, limits: Mapping[str, str]) -> str:
    """Make a root with 1000 KiB of memory, the cgroups of a process, and files below /sys/fs/cgroup."""
    files = {"proc/meminfo": "MemTotal:        1000 kB\nMemFree: 1 kB\n", "proc/self/cgroup": cgroup}
    files |= {f"sys/fs/cgroup/{name}": text for name, text in limits.items()}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


def test_without_a_limit_the_memory_is_all_there_is(tmp_path: Path) -> None:
    """A laptop has no cgroup of ours."""
    root = machine(tmp_path, "0::/user.slice\n", {"user.slice/memory.max": "max\n"})

    assert 1000 * 1024 == memory_limit_bytes(root)


def test_the_tightest_cgroup_above_us_counts(tmp_path: Path) -> None:
    """A limit on the task binds the container in it."""
    limits = {"task/memory.max": "500\n", "task/container/memory.max": "700\n"}

    assert 500 == memory_limit_bytes(machine(tmp_path, "0::/task/container\n", limits))


def test_a_container_finds_its_limit_at_the_top_of_its_tree(tmp_path: Path) -> None:
    """Its cgroup is named from outside, and mounted as if it were the root."""
    assert 600 == memory_limit_bytes(machine(tmp_path, "0::/ecs/abc/def\n", {"memory.max": "600\n"}))


def test_the_first_version_of_cgroups_is_understood(tmp_path: Path) -> None:
    """Fargate's older platform and many hosts still run it."""
    limits = {
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/ecs/abc/memory.limit_in_bytes": "400\n",
    }

    assert 400 == memory_limit_bytes(machine(tmp_path, "4:memory:/ecs/abc\n0::/\n", limits))


def test_a_limit_beyond_all_memory_is_none(tmp_path: Path) -> None:
    """That is how the first version writes `no limit`."""
    limits = {"memory/memory.limit_in_bytes": "9223372036854771712\n"}

    assert 1000 * 1024 == memory_limit_bytes(machine(tmp_path, "4:cpu,memory:/\n", limits))


def test_this_machines_memory_is_read() -> None:
    """The fakes above are of my making; this machine is not."""
    assert 0 < memory_limit_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + (1 << 20)


def test_the_file_system_of_a_directory_is_that_of_its_innermost_mount(tmp_path: Path) -> None:
    """A tmpfs lies on a disk's directory, and a path goes through both."""
    (tmp_path / "proc/self").mkdir(parents=True)
    deep = tmp_path / "a b" / "deep"
    deep.mkdir(parents=True)
    inner = str(tmp_path / "a b").replace(" ", "\\040")
    (tmp_path / "proc/self/mountinfo").write_text(
        f"1 0 8:1 / / rw - ext4 /dev/x rw\n2 1 0:5 / {inner} rw shared:1 - tmpfs none rw\n"
    )

    assert ("tmpfs", "ext4") == tuple(
        file_system_type(str(place), root=str(tmp_path)) for place in (deep / "new", tmp_path)
    )


# -- between processes -------------------------------------------------------------------------------------


def test_a_snapshot_carries_everything_to_a_worker(tmp_path: Path) -> None:
    """A worker that read the settings anew could be of another mind than its siblings."""
    settings = load({"COLLECTOR_ADMIN_TOKEN": "hush", "COLLECTOR_DRAIN_S": "3"}, cwd=tmp_path, cores=3, read_at_s=12.5)

    copy = load_for_worker({SNAPSHOT: to_json(settings).decode(), "COLLECTOR_DRAIN_S": "9"})

    assert settings == copy
    assert ("hush", 12.5, 3) == (copy.admin_token, copy.read_at_s, copy.workers)


def test_a_snapshot_tells_of_which_text_it_is(tmp_path: Path) -> None:
    """A worker sees by it that the file has not changed; without, each would parse it a second time."""
    text = '[tenants.a]\nkeys = ["' + 64 * "0" + '"]\n'
    (tmp_path / "collector.toml").write_text(text)
    settings = load({"COLLECTOR_CONFIG": "collector.toml"}, cwd=tmp_path)

    copy = load_for_worker({SNAPSHOT: to_json(settings).decode()})

    assert sha256(text.encode()).hexdigest() == copy.text_sha256
    assert "" == load({}, cwd=tmp_path).text_sha256
    assert "text_sha256" not in copy.shown()


def test_a_worker_without_a_snapshot_reads_for_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tools start a worker without our configuration of gunicorn."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLLECTOR_DRAIN_S", "9")

    assert (9.0, f"file:{tmp_path}/data") == (load_for_worker().drain_s, load_for_worker().sink)


@pytest.mark.parametrize("snapshot", [b"", b"{", b"[]", b'{"workers": "x"}'])
def test_a_snapshot_that_is_none_is_told(snapshot: bytes) -> None:
    """The variable can be set by hand."""
    with pytest.raises(SettingsError, match=SNAPSHOT):
        from_json(snapshot)


def test_a_start_with_a_snapshot_around_is_no_mistake(tmp_path: Path) -> None:
    """At a reload the settings are read in an environment that has the old snapshot."""
    assert read(tmp_path, SETTINGS_SNAPSHOT="{}")


@given(
    duck=st.floats(0, 119),
    keepalive=st.floats(1, 119),
    drain=st.floats(0, 119),
    body=st.floats(0.1, 119),
    ack=st.floats(0.1, 119),
)
def test_the_timeouts_nest_or_are_refused(duck: float, keepalive: float, drain: float, body: float, ack: float) -> None:
    """An inner wait that outlasts the outer one is cut off with events in it."""
    environ = {
        "COLLECTOR_LAME_DUCK_S": repr(duck),
        "COLLECTOR_KEEPALIVE_S": repr(keepalive),
        "COLLECTOR_DRAIN_S": repr(drain),
        "COLLECTOR_BODY_DEADLINE_S": repr(body),
        "COLLECTOR_ACK_TIMEOUT_S": repr(ack),
    }
    whole_s = duck + max(keepalive, body + ack) + 2 + drain
    try:
        settings = load(environ, cwd=Path("/nowhere"))
    except SettingsError:
        assert whole_s >= 119
    else:
        assert whole_s < settings.graceful_timeout_s < 120


def test_gunicorn_waits_for_the_last_lines_to_splunk_if_there_is_one() -> None:
    """A worker that is killed while it sends them loses those that say how its drain went."""
    with_splunk = Settings(hec_url="https://splunk.example.com:8088", hec_token="t").graceful_timeout_s

    assert Settings().graceful_timeout_s + HEC_DRAIN_S == with_splunk


def test_the_last_word_and_the_launcher_wait_for_splunk_after_the_workers_have(tmp_path: Path) -> None:
    """A stop before a dead Splunk takes three times its wait, and nobody is to be killed in the last of them."""
    most_s = 118 - 3 - 65 - 2
    splunk = {"HEC_URL": "https://splunk.example.com:8088", "HEC_TOKEN": "t"}

    read(tmp_path, DRAIN_S=str(most_s))
    read(tmp_path, DRAIN_S=str(most_s - 3 * HEC_DRAIN_S), **splunk)
    assert "drain_s 40 + 2 + 9 for Splunk must stay under 119 s" in only_problem(tmp_path, DRAIN_S="40", **splunk)


# -- what others hold on to --------------------------------------------------------------------------------


def test_the_settings_know_the_sinks_that_can_be_made() -> None:
    """The two lists lie on rows that may not see one another."""
    assert set(registry.SCHEMES) == set(SINK_SCHEMES)


@pytest.mark.parametrize("name", ["tmpfs-mounts.json", "gunicorn.conf.py", "wsgi.py"])
def test_what_is_shipped_beside_the_package_is_found(name: str) -> None:
    """`collector serve` is started from anywhere."""
    assert locate(name).is_file()


def test_a_file_that_is_not_shipped_is_told() -> None:
    """A broken installation says what is missing and where it was looked for."""
    with pytest.raises(SettingsError, match=r"nothing\.json is missing from .*share/collector/nothing\.json"):
        locate("nothing.json")


def test_the_shipped_mounts_can_be_read() -> None:
    """The settings are checked against this very file in the image."""
    assert "/run/collector" in [mount.container_path for mount in read_mounts(locate("tmpfs-mounts.json"))]


def test_every_name_that_the_package_offers_is_there() -> None:
    """The list is what other parts import by."""
    assert [] == [name for name in public.__all__ if not hasattr(public, name)]

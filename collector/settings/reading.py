"""
One reading of the settings: the values, where each was written, and every problem.

A mistake of the operator's raises nothing here, so that one run tells them all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from collector.errors import SettingsError
from collector.settings.model import DEFAULT_SINK, SNAPSHOT
from collector.settings.tenants import DEV_TENANT, parse_tenants, parse_toml
from collector.settings.values import (
    NAME,
    Parse,
    bind,
    choice,
    did_you_mean,
    http_url,
    names,
    path,
    seconds,
    sink_url,
    size,
    switch,
    token,
    whole,
)

#: How each setting that stands alone is read. Each is a variable too: COLLECTOR_ and the name in capitals.
_PARSERS: dict[str, Parse] = {
    "bind": bind,
    "admin_bind": bind,
    # gunicorn starts any number; 1024 is far beyond any machine and catches a slip.
    "workers": whole(at_least=1, at_most=1024),
    "spool_bytes": size(at_least=1 << 20),
    "admin_token": token,
    "hec_url": http_url,
    "hec_token": token,
    "hec_buffer_bytes": size(at_least=64 << 10),
    # Splunk Cloud is quoted with a limit of 1 MB.
    "hec_batch_bytes": size(at_least=4 << 10, at_most=1_000_000),
    "hec_linger_s": seconds(above=0),
    "hec_ack": switch,
    "hec_index": token,
    "task": token,
    "report_s": seconds(at_least=0),
    "drain_s": seconds(at_least=0),
    "lame_duck_s": seconds(at_least=0),
    "rescue_after_s": seconds(at_least=0),
    "max_lag_s": seconds(above=0),
    "hot_door": switch,
    "dedupe_bytes": size(at_least=1 << 20),
    "segment_bytes": size(at_least=64 << 10),
    "flush_interval_s": seconds(above=0),
    "flush_concurrency": whole(at_least=1, at_most=1024),
    "ack_timeout_s": seconds(above=0),
    "max_upload_bytes": size(at_least=1),
    "max_inflated_bytes": size(at_least=1),
    "max_events": whole(at_least=1),
    "body_deadline_s": seconds(above=0),
    "max_header_bytes": size(at_least=1 << 10),
    # gunicorn takes whole seconds, and 0 would remove its only limit on idle connections and slow headers.
    "keepalive_s": seconds(at_least=1),
    "worker_connections": whole(at_least=1),
    "trusted_hops": whole(at_least=0, at_most=16),
    "aws_keys_allowed": names,
    "log_level": choice("debug", "info", "warning", "error"),
}
_PATHS = ("spool_dir", "admin_token_file", "hec_token_file", "hec_ca_file", "tmpfs_mounts")
_SINKS = ("sink", "rescue_sink", "claim_sink")
_SINGLE = (*_PARSERS, *_PATHS, *_SINKS)
#: Every variable there is, with its setting.
VARIABLES = {f"COLLECTOR_{name.upper()}": name for name in (*_SINGLE, "config")}

#: What Kubernetes sets in every container beside a Service whose name begins with `collector`.
_SERVICE_LINK = re.compile(
    r"COLLECTOR_(.+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://.+:\d+")


class Reading:
    """
    One reading of the settings, under way.

    `values` are what parsed, by setting. `names` tell where each was written, as the person wrote it. `problems` are
    sentences. `cwd` is where relative paths start.
    """

    def __init__(self, cwd: Path) -> None:
        self._cwd = cwd
        self._unsound: set[str] = set()
        self.values: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.problems: list[str] = []

    def read(self, environ: Mapping[str, str]) -> None:
        """Take everything from the environment and from the file that it names."""
        self._find_unknown_variables(environ)
        table, file_name = self._read_file(environ.get("COLLECTOR_CONFIG", ""))
        for name in _SINGLE:
            variable = f"COLLECTOR_{name.upper()}"
            if written := environ.get(variable, ""):
                self._take(name, variable, written)
            elif name in table:
                self._take(name, f"`{name}` in {file_name}", table[name])
        for key in table.keys() - {*_SINGLE, "routes", "tenants"}:
            self._unknown_key(key, file_name)
        self._take_secret("admin_token")
        self._take_secret("hec_token")
        self._take_routes(table, file_name)
        self._take_tenants(table, file_name)

    def name(self, setting: str) -> str:
        """Name a setting as it was written, or by its variable when its default is at fault."""
        return self.names.get(setting, f"COLLECTOR_{setting.upper()}")

    def wrong(self, setting: str, sentence: str, *others: str) -> None:
        """Note a problem of a setting, unless it or the `others` it was held against did not even parse."""
        if not self._unsound & {setting, *others}:
            self.problems.append(f"{self.name(setting)}: {sentence}")

    def _find_unknown_variables(self, environ: Mapping[str, str]) -> None:
        for variable, written in sorted(environ.items()):
            if not variable.startswith("COLLECTOR_") or variable in VARIABLES or variable == SNAPSHOT:
                continue
            if _SERVICE_LINK.fullmatch(variable) or (variable.endswith("_PORT") and _SERVICE_URL.fullmatch(written)):
                continue
            if variable in {"COLLECTOR_ROUTES", "COLLECTOR_TENANTS"}:
                hint = "; routes and tenants are tables of a TOML file: write its path into COLLECTOR_CONFIG"
            else:
                hint = did_you_mean(variable, VARIABLES) or "; unset it, or give it another prefix"
            self.problems.append(f"{variable}: there is no such setting{hint}")

    def _unknown_key(self, key: str, file_name: str) -> None:
        if key == "config":
            hint = "; only the variable COLLECTOR_CONFIG names the file"
        else:
            hint = did_you_mean(key, (*_SINGLE, "routes", "tenants")) or "; leave it out"
        self.problems.append(f"`{key[:80]}` in {file_name}: there is no such setting{hint}")

    def _read_file(self, written: str) -> tuple[dict[str, Any], str]:
        """Return the file's top table and its name, both empty when there is none or it can't be read."""
        if not written:
            return {}, ""
        file = self._cwd / written
        self.names["config"] = "COLLECTOR_CONFIG"
        self.values["config"] = str(file)
        try:
            content = file.read_bytes()
            self.values["text_sha256"] = sha256(content).hexdigest()
            return parse_toml(content.decode()), file.name
        except UnicodeDecodeError:
            problem = f"{file} is not UTF-8; save it as UTF-8 text"
        except (OSError, ValueError) as error:
            problem = f"{written!r} can't be read ({getattr(error, 'strerror', error)}); write the path of a TOML file"
        except SettingsError as error:
            problem = f"{file}: {error.problems[0]}"
        self.problems.append(f"COLLECTOR_CONFIG: {problem}")
        # Whatever the file may say of tenants is not known now: no complaint may rest on it.
        self._unsound.add("tenants")
        return {}, ""

    def _take(self, setting: str, name: str, raw: object) -> None:
        self.names[setting] = name
        parse = _PARSERS.get(setting) or (path(self._cwd) if setting in _PATHS else sink_url(self._cwd))
        try:
            self.values[setting] = parse(raw)
        except ValueError as error:
            self._unsound.add(setting)
            self.problems.append(f"{name}: {error}")

    def _take_secret(self, setting: str) -> None:
        """Read a token from the file that stands in for it."""
        by_file = f"{setting}_file"
        if by_file not in self.values:
            if by_file in self._unsound:
                self._unsound.add(setting)
            return
        if setting in self.names:
            self.wrong(setting, f"is set beside {self.name(by_file)}; leave one of the two out", by_file)
            return
        try:
            self.values[setting] = token(Path(self.values[by_file]).read_bytes().decode())
        except OSError as error:
            problem = f"{self.values[by_file]} can't be read ({error.strerror}); write the path of a file"
        except UnicodeDecodeError:
            problem = f"{self.values[by_file]} holds no text; write a file with the token alone in it"
        except ValueError as error:
            problem = f"what {self.values[by_file]} holds {error}"
        else:
            return
        self.wrong(by_file, problem)
        self._unsound.add(setting)

    def _take_routes(self, table: dict[str, Any], file_name: str) -> None:
        routes = self.values["routes"] = {"default": self.values.setdefault("sink", sink_url(self._cwd)(DEFAULT_SINK))}
        tables = table.get("routes", {})
        if not isinstance(tables, dict):
            self.problems.append(f"`routes` in {file_name}: must be tables; write [routes.<name>] with a sink below")
            return
        for route, body in tables.items():
            self._take_route(route, body, routes)

    def _take_route(self, route: str, body: object, routes: dict[str, str]) -> None:
        at = f"[routes.{route[:80]}]"
        if route == "default":
            self.problems.append(f"{at}: the default route is the setting `sink`, or COLLECTOR_SINK; write it there")
        elif not NAME.fullmatch(route):
            self.problems.append(f"{at}: a route's name is 1 to 64 of A-Z, a-z, 0-9, _ and -; write it in these")
        elif not isinstance(body, dict) or "sink" not in body:
            routes[route] = ""
            self.problems.append(f'{at}: names no sink; write for example sink = "file:data/{route}" below it')
        else:
            # A route whose sink is wrong is a route all the same: its tenants must not be blamed too.
            routes[route] = ""
            for key in body.keys() - {"sink"}:
                self.problems.append(f"{at} {key[:80]}: no such field; a route has sink alone")
            try:
                routes[route] = sink_url(self._cwd)(body["sink"])
            except ValueError as error:
                self.problems.append(f"{at} sink: {error}")

    def _take_tenants(self, table: dict[str, Any], file_name: str) -> None:
        try:
            self.values["tenants"] = parse_tenants(table, self.values["routes"], fallback=(DEV_TENANT,))
        except SettingsError as error:
            self._unsound.add("tenants")
            self.problems += [f"{problem} (in {file_name})" for problem in error.problems]

"""
Packages the app: a .tar.gz that Splunk installs, the same bytes from the same files.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from configparser import ConfigParser
from pathlib import Path

from dashboards.confs import read_conf

_ROOT = Path(__file__).parent.parent
#: 2020-01-01, in seconds since the epoch: of every file, whenever it was made. Not 0, which some tools take for unset.
_MADE_AT_S = 1_577_836_800
#: What belongs to one installation, or to nobody.
_LEFT_OUT = {"local", "__pycache__", ".DS_Store"}


def package(app: Path, into: Path, *, setup: Path = _ROOT / "setup.cfg") -> Path:
    """
    Write `<id>-<version>.tar.gz` into a folder, and return it.

    ValueError when app.conf has not the version that setup.cfg has, or calls itself otherwise than its folder.
    """
    wanted = ConfigParser(interpolation=None)
    wanted.read_string(setup.read_text())
    version = wanted["metadata"]["version"]
    conf = read_conf(app / "default" / "app.conf")
    for stanza in ("launcher", "id"):
        if conf[stanza]["version"] != version:
            raise ValueError(
                f"default/app.conf: [{stanza}] version is {conf[stanza]['version']}, and setup.cfg says {version}; "
                "write the same in both"
            )
    for stanza, key in (("package", "id"), ("id", "name")):
        if conf[stanza][key] != app.name:
            raise ValueError(f"default/app.conf: [{stanza}] {key} is {conf[stanza][key]}, and the folder is {app.name}")
    into.mkdir(parents=True, exist_ok=True)
    file = into / f"{app.name}-{version}.tar.gz"
    file.write_bytes(gzip.compress(_archive(app), compresslevel=9, mtime=_MADE_AT_S))
    return file


def _archive(app: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in [app, *sorted(app.rglob("*"))]:
            if not _LEFT_OUT.intersection(path.relative_to(app.parent).parts):
                archive.add(path, path.relative_to(app.parent).as_posix(), recursive=False, filter=_nobodys)
    return buffer.getvalue()


def _nobodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Take away what differs from one checkout to the next."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = _MADE_AT_S
    member.mode = 0o755 if member.isdir() else 0o644
    return member

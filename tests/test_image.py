"""
The image and the one list of writable places agree, and the pins hold.

What is checked here needs no container engine; the image itself is run by the system tests.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Amazon ECS, API reference, type Tmpfs, member mountOptions: "Valid values", complete.
ECS_MOUNT_OPTIONS = frozenset(
    "defaults ro rw suid nosuid dev nodev exec noexec sync async dirsync remount mand nomand atime noatime diratime "
    "nodiratime bind rbind unbindable runbindable private rprivate shared rshared slave rslave relatime norelatime "
    "strictatime nostrictatime mode uid gid nr_inodes nr_blocks mpol".split()
)

# Amazon ECS, task size: the smallest Fargate task that can hold the default mounts and the workers beside them.
SMALLEST_TASK_MIB = 1024


def mounts() -> list[dict[str, Any]]:
    return list(json.loads((ROOT / "tmpfs-mounts.json").read_text()))


def instructions() -> list[tuple[str, str]]:
    """Read the Dockerfile as (instruction, rest) with continued lines joined and comments gone."""
    text = (ROOT / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", lines)
    return [
        (word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines()) if word
    ]


def final_stage() -> list[tuple[str, str]]:
    found = instructions()
    last = max(number for number, (word, _) in enumerate(found) if word == "FROM")
    return found[last:]


def environment() -> dict[str, str]:
    """Return what the last stage sets with ENV."""
    pairs = [pair for word, rest in final_stage() if word == "ENV" for pair in shlex.split(rest)]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def only(word: str) -> str:
    (rest,) = [rest for found, rest in final_stage() if found == word]
    return rest


def writable(path: str) -> bool:
    return any(PurePosixPath(path).is_relative_to(mount["containerPath"]) for mount in mounts())


def test_the_writable_places_are_in_the_shape_that_ecs_takes() -> None:
    """The file is copied into a task definition as it stands."""
    assert mounts()
    for mount in mounts():
        assert {"containerPath", "size", "mountOptions"} == set(mount)
        assert isinstance(mount["size"], int)
        assert mount["size"] > 0
        assert PurePosixPath(mount["containerPath"]).is_absolute()
        assert [] == [option for option in mount["mountOptions"] if option.split("=")[0] not in ECS_MOUNT_OPTIONS]


def test_no_writable_place_can_run_a_program_or_make_a_device() -> None:
    """What an intruder writes must stay data."""
    for mount in mounts():
        assert {"noexec", "nosuid", "nodev"} <= set(mount["mountOptions"])


def test_the_writable_places_do_not_overlap() -> None:
    """A mount over another hides what was written there, and the room is counted twice."""
    paths = [PurePosixPath(mount["containerPath"]) for mount in mounts()]

    assert [] == [(a, b) for a in paths for b in paths if a is not b and a.is_relative_to(b)]


def test_the_writable_places_fit_into_a_small_task() -> None:
    """A tmpfs counts against the memory of the task: a full one must not take it from the workers."""
    assert sum(mount["size"] for mount in mounts()) <= SMALLEST_TASK_MIB * 0.6


def test_the_image_writes_only_to_the_listed_places() -> None:
    """Two lists of writable places disagree sooner or later."""
    env = environment()

    assert writable(env["COLLECTOR_SPOOL_DIR"])
    assert writable(env["TMPDIR"])
    assert env["COLLECTOR_TMPFS_MOUNTS"].endswith("/share/collector/tmpfs-mounts.json")
    assert "1" == env["PYTHONDONTWRITEBYTECODE"]


def test_the_image_makes_no_volume() -> None:
    """A volume nobody mounted is a writable place on the host's disk, below a root said to be read-only."""
    assert "VOLUME" not in dict(final_stage())


def test_the_image_runs_as_the_user_who_owns_the_spool() -> None:
    """A spool of somebody else's answers 503 to everything."""
    uid, gid = only("USER").split(":")
    (spool,) = [mount for mount in mounts() if environment()["COLLECTOR_SPOOL_DIR"].startswith(mount["containerPath"])]

    assert "0" not in {uid, gid}
    assert {f"uid={uid}", f"gid={gid}", "mode=0700"} <= set(spool["mountOptions"])


@pytest.mark.parametrize("word", ["ENTRYPOINT", "CMD"])
def test_the_image_starts_without_a_shell(word: str) -> None:
    """A shell as PID 1 keeps SIGTERM to itself, and nothing drains."""
    assert isinstance(json.loads(only(word)), list)


def test_the_image_is_checked_and_stopped_as_the_program_expects() -> None:
    """SIGTERM is what drains; a check needs no program that the image has not."""
    assert "SIGTERM" == only("STOPSIGNAL")
    assert "/healthz" in only("HEALTHCHECK")
    assert "curl" not in only("HEALTHCHECK")


def test_the_image_carries_no_step_of_one_architecture() -> None:
    """One Dockerfile serves amd64 and arm64, so that both are the same program."""
    text = " ".join(rest for word, rest in instructions() if word != "LABEL").lower()

    assert [] == re.findall(r"amd64|arm64|x86_64|aarch64|--platform=linux", text)


def pins() -> list[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return [line.split("#")[0].strip() for line in config["options"]["install_requires"].splitlines() if line.strip()]


def test_each_dependency_is_pinned_to_one_version() -> None:
    """What runs is what was tested."""
    assert len(pins()) > 10
    assert [] == [pin for pin in pins() if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9.]+", pin)]


@pytest.mark.parametrize("pin", pins())
def test_the_version_that_is_installed_is_the_one_that_was_pinned(pin: str) -> None:
    """A resolver may fall back to an older gunicorn without a word."""
    name, _, wanted = pin.partition("==")

    assert wanted == version(name)

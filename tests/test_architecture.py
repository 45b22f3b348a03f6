"""
The tree stays true: who may import whom, how long a module may be, and what only one module may touch.

Each check is a function over sources, tried here on a small offender too, so that none of them can pass by
looking at nothing.
"""

from __future__ import annotations

import ast
import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "collector"

# A part is a module or a folder directly under collector/. It imports parts of the rows above it, and its own
# modules; never another part of its own row.
ROWS: tuple[frozenset[str], ...] = (
    frozenset({"event", "tenant", "outcome", "errors"}),
    frozenset({"clock"}),
    frozenset({"settings", "uuid7", "intervals", "drawing"}),
    frozenset({"telemetry", "aws"}),
    frozenset({"buffer", "sinks", "protocols"}),
    frozenset({"admission", "delivery"}),
    frozenset({"receiver", "control"}),
    frozenset({"bootstrap", "launcher"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
ROW = {part: number for number, row in enumerate(ROWS) for part in row}

# Names that say nothing about what is inside.
NAMELESS = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc", "base_utils"}

MAX_LINES = 300

# What reads a clock, or waits by one. Formatting a given time is no reading.
CLOCKS = {
    "time": {
        "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time",
        "process_time_ns", "thread_time", "thread_time_ns", "clock_gettime", "clock_gettime_ns", "sleep",
        "localtime", "ctime",
    },
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}  # fmt: skip
CLOCK_OWNERS = {
    "collector/clock.py": "it is the clock",
    "collector/receiver/worker.py": "gunicorn makes it, with no argument of ours, before ours may be imported",
    "collector/receiver/connection.py": "a part of the worker",
    "collector/receiver/timed_body.py": "a part of the worker",
    "collector/receiver/turns.py": "a part of the worker",
    "gunicorn.conf.py": "the master writes its own log lines with it, and imports nothing of ours",
}

ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
ENVIRONMENT_OWNERS = {
    "collector/settings/__init__.py": "it hands the environment on, whole, to those who read settings",
    "gunicorn.conf.py": "gunicorn runs it before anything of ours is there to ask",
}

# Modules that stand on gevent; the rest is plain threading, which the worker patches.
GEVENT_OWNERS = {
    "collector.bootstrap", "collector.receiver.cold", "collector.receiver.connection", "collector.receiver.door",
    "collector.receiver.lobby", "collector.receiver.outbox", "collector.receiver.threads",
    "collector.receiver.timed_body", "collector.receiver.turns",
    "collector.receiver.worker",
}  # fmt: skip

# Modules that stand on splunk-handler, and with it on requests and urllib3, which looks for IPv6 as it is imported.
SPLUNK_OWNERS = {"collector.telemetry.hec.handler", "collector.telemetry.hec.transport"}
LOOKS_FOR_IPV6 = re.compile(r"collector\.telemetry\.hec\.\w+: socket\.(__new__|bind)\b")

# A path of one machine works on that machine alone.
ONE_MACHINE = re.compile(rb"(?<![\w.>~)*])/(?:home|root|Users|work|farm|builds|var/lib/jenkins)/[\w.{]")


class Source(NamedTuple):
    """One Python file: its path from the root, with slashes, and its syntax tree."""

    path: str
    tree: ast.Module
    lines: int

    @classmethod
    def parse(cls, path: str, text: str) -> Source:
        return cls(path, ast.parse(text, path), len(text.splitlines()))

    @classmethod
    def read(cls, file: Path) -> Source:
        return cls.parse(file.relative_to(ROOT).as_posix(), file.read_text())


def sources() -> list[Source]:
    """All that runs in production."""
    files = [*PACKAGE.rglob("*.py"), *(ROOT / name for name in ("gunicorn.conf.py", "wsgi.py"))]
    return [Source.read(file) for file in sorted(files)]


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything imported, wherever in the file; names are absolute."""
    package = module_name(source.path).split(".")
    if not source.path.endswith("__init__.py"):
        package = package[:-1]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from collector import clock` names a part only in its last word.
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def part_of(dotted: str) -> str | None:
    """Name the part that a dotted name lies in; None outside of the package, or for the package itself."""
    words = dotted.split(".")
    return words[1] if words[0] == "collector" and len(words) > 1 else None


def row_offences(found: list[Source]) -> list[str]:
    """Say who imports whom against the rows, and which part has no row."""
    offences = []
    for source in found:
        if not source.path.startswith("collector/"):
            continue
        here = part_of(module_name(source.path))
        if here is None:
            offences += [f"{source.path}:{line} imports {name}: importing the package does nothing"
                         for line, name in imports(source) if part_of(name) is not None]  # fmt: skip
            continue
        if here not in ROW:
            offences.append(f"{source.path}: {here} has no row; say in ROWS where it stands")
            continue
        for line, name in imports(source):
            there = part_of(name)
            if there is None or there == here:
                continue
            if ROW.get(there, len(ROWS)) >= ROW[here]:
                offences.append(f"{source.path}:{line} ({here}, row {ROW[here]}) imports {there}, row {ROW.get(there)}")
    return offences


def touches(source: Source, owners: dict[str, set[str]]) -> Iterator[tuple[int, str]]:
    """Yield (line, name) where a file names `module.attribute` of `owners`, or imports the attribute from there."""
    called = {name: name for name in owners}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            called |= {alias.asname: alias.name for alias in node.names if alias.asname and alias.name in owners}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module in owners:
            yield from ((node.lineno, f"{node.module}.{a.name}") for a in node.names if a.name in owners[node.module])
        elif isinstance(node, ast.Attribute):
            value = node.value
            name = value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else ""
            if node.attr in owners.get(called.get(name, ""), ()):
                yield node.lineno, f"{called[name]}.{node.attr}"


def touch_offences(found: list[Source], owners: dict[str, set[str]], exempt: dict[str, str]) -> list[str]:
    return [
        f"{source.path}:{line} touches {name}, which belongs to {' and '.join(exempt)}"
        for source in found
        if source.path not in exempt
        for line, name in touches(source, owners)
    ]


def tracked_files() -> Iterator[Path]:
    """Yield every file that is not ignored; .gitignore holds plain names, some of the root, so no git is needed."""
    ignored = [".git", *(ROOT / ".gitignore").read_text().split()]

    def walk(folder: Path) -> Iterator[Path]:
        for entry in sorted(folder.iterdir()):
            names = {entry.name, f"/{entry.relative_to(ROOT)}"}
            if any(fnmatch.filter(names, pattern) for pattern in ignored) or entry.is_symlink():
                continue
            if entry.is_dir():
                yield from walk(entry)
            else:
                yield entry

    return walk(ROOT)


def test_a_part_imports_only_rows_above_it() -> None:
    """A byte's way through the tree is read from top to bottom, or not at all."""
    found = sources()

    assert len(found) > 20
    assert [] == row_offences(found)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("collector/buffer/spool.py", "from collector.sinks import registry"),  # the same row
        ("collector/buffer/spool.py", "import collector.delivery.flusher"),  # a row below
        ("collector/telemetry/ledger.py", "from collector import bootstrap"),  # named last
        ("collector/telemetry/ledger.py", "from ..receiver import app"),  # relative
        ("collector/sinks/__init__.py", "from ..buffer import spool"),  # relative, from a folder
        ("collector/event.py", "def f():\n    from collector.errors import SpoolFull"),  # hidden in a function
        ("collector/__init__.py", "from collector import event"),  # the package itself
        ("collector/gadget.py", "import os"),  # no row
        ("collector/errors.py", "import collector.gadget"),  # no row there
    ],
)
def test_an_import_against_the_rows_is_seen(path: str, text: str) -> None:
    """A check that overlooks one way to write an import holds nothing."""
    assert [path] == [offence.split(":")[0] for offence in row_offences([Source.parse(path, text)])]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("collector/delivery/flusher.py", "from collector.buffer.spool import Spool\nfrom collector import clock"),
        ("collector/telemetry/ledger.py", "from collector.telemetry.metrics import Metrics"),
        (
            "collector/telemetry/ledger.py",
            "from . import metrics\nfrom .metrics import Metrics\nfrom ..errors import X",
        ),
        ("collector/cli.py", "import click\nfrom collectors import x"),
    ],
)
def test_an_import_along_the_rows_is_left_alone(path: str, text: str) -> None:
    """A check that cries at everything is switched off."""
    assert [] == row_offences([Source.parse(path, text)])


def test_a_module_has_at_most_300_lines() -> None:
    """One that wants more has taken a second job."""
    assert [] == [(source.path, source.lines) for source in sources() if source.lines > MAX_LINES]


def test_a_module_is_named_for_what_it_holds() -> None:
    """A drawer called utils fills up with what nobody placed."""
    assert [] == [source.path for source in sources() if NAMELESS & set(module_name(source.path).split("."))]


def test_only_the_clock_reads_the_time() -> None:
    """Else no test can say what time it is, and the suite sleeps."""
    assert [] == touch_offences(sources(), CLOCKS, CLOCK_OWNERS)


def test_only_the_settings_read_the_environment() -> None:
    """One reader can name all mistakes at once; two readers disagree."""
    assert [] == touch_offences(sources(), {"os": ENVIRONMENT}, ENVIRONMENT_OWNERS)


@pytest.mark.parametrize(
    "text",
    [
        "import time\ntime.sleep(1)",
        "from time import monotonic",
        "import time as t\nt.time()",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.now(tz=None)",
        "from datetime import datetime as dt\ndt.utcnow()",
        "import os\nos.environ['X']",
        "from os import getenv",
        "import os as o\no.getenv('X')",
    ],
)
def test_a_second_reader_of_clock_or_environment_is_seen(text: str) -> None:
    """Each of these has been written by somebody in good faith."""
    source = Source.parse("collector/event.py", text)

    assert 1 == len(touch_offences([source], {**CLOCKS, "os": ENVIRONMENT}, CLOCK_OWNERS))


def test_only_the_worker_and_the_root_know_gevent() -> None:
    """The core runs under threads as well, which is how most of its tests run it."""
    assert [] == [
        f"{source.path}:{line} imports {name}"
        for source in sources()
        if module_name(source.path) not in GEVENT_OWNERS
        for line, name in imports(source)
        if name.split(".")[0] in {"gevent", "greenlet"}
    ]


def test_one_part_knows_aws() -> None:
    """What its errors mean is said once, and a worker that has no use for it never loads it."""
    assert [] == [
        f"{source.path}:{line} imports {name}"
        for source in sources()
        if not source.path.startswith("collector/aws/")
        for line, name in imports(source)
        if name.split(".")[0] in {"boto3", "botocore", "s3transfer"}
    ]


# Imports each module in the order given and reports, as JSON, what an import did that it must not.
_IMPORTER = """
import importlib, json, os, sys

WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
ACTS = ("socket.", "subprocess.", "shutil.", "tempfile.", "os.mkdir", "os.rename", "os.remove", "os.rmdir",
        "os.link", "os.symlink", "os.truncate", "os.fork", "os.exec", "os.posix_spawn", "os.system", "os.kill",
        "os.putenv", "os.unsetenv")
module, done = "", []

def forbid(owner, name):
    was = getattr(owner, name)
    def now(*args, **kwargs):
        if module:
            done.append(f"{module}: {name}")
        return was(*args, **kwargs)
    setattr(owner, name, now)

def watch(event, args):
    acted = event.startswith(ACTS)
    if event == "open":
        path, mode, flags = args
        acted = bool(set(mode or "") & set("wax+")) or (isinstance(flags, int) and flags & WRITE)
    if acted and module:
        done.append(f"{module}: {event} {[repr(a)[:80] for a in args]}")

# These two pass no audit hook.
import _thread, signal, threading
forbid(threading, "_start_new_thread")
forbid(_thread, "start_new_thread")
forbid(signal, "signal")
sys.addaudithook(watch)
seen = {}
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
    for heavy in ("gevent", "boto3", "botocore", "splunk_handler"):
        if heavy in sys.modules:
            seen.setdefault(heavy, module)
module = ""
print(json.dumps({"done": done, "seen": seen, "threads": threading.active_count()}))
"""


def run_importer(modules: list[str], folder: Path) -> dict[str, Any]:
    program = f"import sys; sys.path.insert(0, {str(folder)!r})\n{_IMPORTER}"
    child = subprocess.run(
        [sys.executable, "-B", "-c", program, json.dumps(modules)], capture_output=True, text=True, cwd="/", check=False
    )

    assert 0 == child.returncode, child.stderr

    return dict(json.loads(child.stdout))


def test_importing_collector_does_nothing() -> None:
    """What an import opens is opened in whichever process imports first, and nobody closes it."""
    modules = [module_name(source.path) for source in sources() if source.path.startswith("collector/")]
    # Those that may bring gevent come last, so that what others bring is seen before.
    owners = [*sorted(GEVENT_OWNERS, reverse=True), *sorted(SPLUNK_OWNERS)]
    ordered = [name for name in modules if name not in owners] + owners

    report = run_importer(ordered, ROOT)

    assert [] == [act for act in report["done"] if LOOKS_FOR_IPV6.match(act) is None]
    assert 1 == report["threads"]
    assert {"gevent", "splunk_handler"} >= set(report["seen"])
    assert report["seen"].get("gevent", "collector.bootstrap") in GEVENT_OWNERS
    assert report["seen"]["splunk_handler"] in SPLUNK_OWNERS


@pytest.mark.parametrize(
    "text",
    [
        "open('/dev/null', 'w')",
        "import os; os.close(os.open('/dev/null', os.O_RDWR))",
        "import socket; socket.socket().close()",
        "import threading; threading.Thread(target=int).start()",
        "import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
    ],
)
def test_an_import_that_acts_is_seen(text: str, tmp_path: Path) -> None:
    """The watcher is itself a part that can break."""
    (tmp_path / "offender.py").write_text(text)

    assert run_importer(["offender"], tmp_path)["done"]


def test_every_test_states_its_reason() -> None:
    """A test whose reason is not written down is deleted by the first whom it stops."""
    found = [Source.read(file) for file in (ROOT / "tests").rglob("test_*.py")]
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)

    assert [] == [
        f"{source.path}:{node.lineno} {node.name} says no reason"
        for source in found
        for node in ast.walk(source.tree)
        if isinstance(node, functions) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]


def test_no_file_names_a_path_of_one_machine() -> None:
    """What works on its author's machine alone is found out by everybody else."""
    files = list(tracked_files())

    assert len(files) > 40
    assert [] == [
        f"{file.relative_to(ROOT)}: {match.group().decode()}"
        for file in files
        for match in ONE_MACHINE.finditer(file.read_bytes())
    ]


def test_a_path_of_one_machine_is_seen() -> None:
    """The pattern knows such a path from a route or a division."""
    assert ONE_MACHINE.search(b"cd " + b"/wo" + b"rk/main")
    assert ONE_MACHINE.search(b'"/ho' + b'me/ann/x"')
    assert not ONE_MACHINE.search(b"lib/home/x, a.work/b, docs/root/c")

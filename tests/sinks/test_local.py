"""The `file:` sink before real directories, real refusals of the kernel, and real second writers."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import SinkError, TransientSinkError
from collector.event import Batch, Span
from collector.sinks import local
from collector.sinks.local import LocalSink
from collector.sinks.objects import compress
from tests.fakes import HOUR, FakeClock, batch

ROOT = Path(__file__).resolve().parents[2]
HOUR_PATH = "tenant=dev/date=2026-01-02/hour=03"
NAME = "w1-00000001-0000aaaa-00000000"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def sink(tmp_path: Path, clock: FakeClock) -> LocalSink:
    made = LocalSink(tmp_path / "data", clock=clock)
    made.start()
    return made


def files(directory: Path) -> list[str]:
    """Every file below a directory, hidden ones too, by its path from there."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def content(path: Path) -> bytes:
    """Read an object, which is one frame and not a byte more."""
    return zstandard.ZstdDecompressor().decompress(path.read_bytes(), allow_extra_data=False)


def test_an_object_lies_where_the_contract_says(sink: LocalSink, tmp_path: Path) -> None:
    """Readers find partitions by these names, and they are the same in S3."""
    sink.write(batch(b'{"id":"1"}'))

    assert [f"{HOUR_PATH}/{NAME}.ndjson.zst"] == files(tmp_path / "data")


def test_by_hour_the_events_of_all_tenants_share_an_object(tmp_path: Path, clock: FakeClock) -> None:
    """Of thousands of tenants each would have an object of its own every second."""
    sink = LocalSink(tmp_path, clock=clock, by="hour")
    spans = (Span("a", HOUR, 0, 1), Span("b", HOUR, 7, 8))

    sink.write(Batch(name=NAME, segment="w1-1", spans=spans, pieces=(b"one\n", b"two\n")))

    assert [f"date=2026-01-02/hour=03/{NAME}.ndjson.zst"] == files(tmp_path)
    assert b"one\ntwo\n" == content(tmp_path / f"date=2026-01-02/hour=03/{NAME}.ndjson.zst")


def test_by_hour_an_object_is_of_one_hour(tmp_path: Path, clock: FakeClock) -> None:
    """Who reads one hour would miss what lies in another."""
    spans = (Span("a", HOUR, 0, 1), Span("a", HOUR + 1, 0, 1))
    sink = LocalSink(tmp_path, clock=clock, by="hour")

    with pytest.raises(SinkError, match="is not one hour"):
        sink.write(Batch(name=NAME, segment="w1-1", spans=spans, pieces=(b"one\n", b"two\n")))
    assert [] == files(tmp_path)


@pytest.mark.parametrize(
    ("hour", "path"),
    [(0, "date=1970-01-01/hour=00"), (23, "date=1970-01-01/hour=23"), (493_967, "date=2026-05-08/hour=23")],
)
def test_the_hour_is_of_utc(hour: int, path: str, sink: LocalSink, tmp_path: Path) -> None:
    """Partitions of tasks in several zones must be the same, and an hour must not come twice in autumn."""
    sink.write(batch(b"{}", hour=hour))

    assert [f"tenant=dev/{path}/{NAME}.ndjson.zst"] == files(tmp_path / "data")


def test_an_object_is_one_frame_that_knows_its_size_and_checksum(sink: LocalSink, tmp_path: Path) -> None:
    """A reader sizes its buffer by the one and sees a flipped bit by the other."""
    sink.write(batch(b"a" * 1000, b"b" * 1000))

    frame = (tmp_path / "data" / HOUR_PATH / f"{NAME}.ndjson.zst").read_bytes()
    parameters = zstandard.get_frame_parameters(frame)
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    assert b"a" * 1000 + b"\n" + b"b" * 1000 + b"\n" == decompressor.decompress(frame)
    assert b"" == decompressor.unused_data
    assert 2002 == parameters.content_size
    assert parameters.has_checksum


@given(
    pieces=st.lists(
        st.one_of(st.binary(max_size=50), st.integers(0, 200_000).map(lambda size: b"{}\n" * (size // 3))), max_size=12
    ),
    as_views=st.booleans(),
)
def test_pieces_become_one_frame_of_all_of_them(pieces: list[bytes], as_views: bool) -> None:
    """They lie in the spool as uploads came; the object must not show where one ended."""
    given_: list[bytes | memoryview] = [memoryview(piece) if as_views else piece for piece in pieces]
    frame = compress(given_, 3)
    whole = b"".join(pieces)
    parameters = zstandard.get_frame_parameters(frame)
    reader = zstandard.ZstdDecompressor().decompressobj()

    assert whole == reader.decompress(frame)
    assert (b"", True) == (reader.unused_data, reader.eof)
    assert (len(whole), True) == (parameters.content_size, parameters.has_checksum)


def test_a_higher_level_makes_a_smaller_object(tmp_path: Path, clock: FakeClock) -> None:
    """The option would else be one that nobody notices to be ignored."""
    lines = [json.dumps({"n": n, "square": n * n, "name": f"event {n % 17}"}).encode() for n in range(5000)]
    sizes = []
    for level in (1, 19):
        LocalSink(tmp_path / str(level), clock=clock, level=level).write(batch(*lines))
        sizes.append((tmp_path / str(level) / HOUR_PATH / f"{NAME}.ndjson.zst").stat().st_size)

    assert sizes[1] < 0.8 * sizes[0]


def test_a_repeat_takes_the_place_of_the_object(sink: LocalSink, tmp_path: Path) -> None:
    """The name of a batch stands for its events; a second object of them would be duplicates."""
    sink.write(batch(b"first"))
    sink.write(batch(b"second"))

    data = tmp_path / "data"
    assert [f"{HOUR_PATH}/{NAME}.ndjson.zst"] == files(data)
    assert b"second\n" == content(data / HOUR_PATH / f"{NAME}.ndjson.zst")


@pytest.mark.parametrize(
    "tenant_id", ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "a\n", "ünïcode", "x" * 65, "a b", "dev\n"]
)
def test_a_tenant_id_that_is_no_name_reaches_no_path(tenant_id: str, sink: LocalSink, tmp_path: Path) -> None:
    """Ids are checked where they are read; should that check ever slip, this one must hold."""
    with pytest.raises(SinkError):
        sink.write(batch(b"{}", tenant_id=tenant_id))

    assert [] == files(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "a\0b", "a\n", "x" * 201])
def test_a_batch_name_that_is_no_file_name_reaches_no_path(name: str, sink: LocalSink, tmp_path: Path) -> None:
    """As for tenants; and a hidden name would be taken for a temporary file."""
    with pytest.raises(SinkError):
        sink.write(batch(b"{}", name=name))

    assert [] == files(tmp_path)


@given(tenant_id=st.text(max_size=70), name=st.text(max_size=210))
def test_no_name_leads_out_of_the_directory(
    tenant_id: str, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the names are, a file is in its partition or nowhere."""
    directory = tmp_path_factory.mktemp("any")
    try:
        LocalSink(directory / "data", clock=FakeClock(), fsync=False).write(batch(b"", tenant_id=tenant_id, name=name))
    except SinkError:
        assert [] == files(directory)
    else:
        assert [f"data/tenant={tenant_id}/date=2026-01-02/hour=03/{name}.ndjson.zst"] == files(directory)


def test_a_batch_of_two_partitions_is_a_defect(sink: LocalSink, tmp_path: Path) -> None:
    """One tenant's events in another's directory would be a leak, and no retry would mend it."""
    spans = (Span("dev", HOUR, 0, 1), Span("other", HOUR, 0, 1))

    with pytest.raises(SinkError) as raised:
        sink.write(Batch(name=NAME, segment="w1-1", spans=spans, pieces=(b"one\ntwo\n",)))

    assert not isinstance(raised.value, TransientSinkError)
    assert [] == files(tmp_path)


def test_a_directory_removed_meanwhile_is_made_again(sink: LocalSink, tmp_path: Path) -> None:
    """People tidy up; the next batch must not fail for it."""
    sink.write(batch(b"one", name="one"))
    shutil.rmtree(tmp_path / "data")

    sink.write(batch(b"two", name="two"))

    assert [f"{HOUR_PATH}/two.ndjson.zst"] == files(tmp_path / "data")


@pytest.mark.parametrize("in_the_way", ["data", "data/tenant=dev", f"data/{HOUR_PATH}"])
def test_a_file_in_the_place_of_a_directory_is_transient_and_named(
    in_the_way: str, tmp_path: Path, clock: FakeClock
) -> None:
    """Whoever put it there can take it away, and must be told which it is."""
    blocker = tmp_path / in_the_way
    blocker.parent.mkdir(parents=True, exist_ok=True)
    blocker.write_text("mine")
    sink = LocalSink(tmp_path / "data", clock=clock)

    with pytest.raises(TransientSinkError, match="move it away") as raised:
        sink.write(batch(b"{}"))
    blocker.unlink()

    assert str(tmp_path / "data") in str(raised.value)
    assert 1 == sink.write(batch(b"{}")).delivered


def test_a_start_that_can_not_have_its_directory_says_so(tmp_path: Path, clock: FakeClock) -> None:
    """At the start somebody is watching; an hour later nobody is."""
    (tmp_path / "data").write_text("a file")

    with pytest.raises(SinkError, match=str(tmp_path / "data")):
        LocalSink(tmp_path / "data", clock=clock).start()


def test_a_start_makes_the_directory_and_those_above(tmp_path: Path, clock: FakeClock) -> None:
    """`make run` on a fresh clone has no data directory."""
    LocalSink(tmp_path / "a/b/data", clock=clock).start()

    assert (tmp_path / "a/b/data").is_dir()


@pytest.mark.parametrize("failing", ["write", "fsync", "rename", "flock", "open"])
def test_whatever_step_is_refused_nothing_is_left(
    failing: str, sink: LocalSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half-written file that looks whole is the one thing worse than none."""
    sink.write(batch(b"warm up", name="before"))
    real = os.write

    def refuse(*args: object, **kwargs: object) -> int:
        if failing == "write" and len(memoryview(args[1])) > 1:  # type: ignore[arg-type]  # bytes, as os.write takes
            return real(args[0], memoryview(args[1])[:1])  # type: ignore[arg-type]  # as above: first a short write
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(fcntl if failing == "flock" else os, failing, refuse)
        with pytest.raises(TransientSinkError, match=r"No space left on device; free space, or inodes") as raised:
            sink.write(batch(b"x" * 5000))

    assert f"{HOUR_PATH}/{NAME}.ndjson.zst" in str(raised.value)
    left = files(tmp_path / "data")
    # A claim that was refused is not ours to remove: it may be another's. Its file is empty, hidden, and the
    # next write of this batch takes it.
    assert [f"{HOUR_PATH}/before.ndjson.zst"] == [name for name in left if not name.endswith(".tmp")]
    assert failing == "flock" or len(left) == 1

    sink.write(batch(b"x" * 5000))

    assert [f"{HOUR_PATH}/before.ndjson.zst", f"{HOUR_PATH}/{NAME}.ndjson.zst"] == files(tmp_path / "data")


def test_a_directory_that_can_not_be_synced_is_no_delivery(
    sink: LocalSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its name is on the disk a power cut takes the object, so it does not count as written."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(TransientSinkError, match="look at the disk"):
            sink.write(batch(b"{}"))

    assert 1 == sink.write(batch(b"{}")).delivered
    assert 1 == len(files(tmp_path / "data"))


def test_everything_is_synced_before_it_is_named(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is the promise: content, then name, then the directory that holds the name."""
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def note_fsync(fd: int) -> None:
        steps.append("sync " + os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), tmp_path))
        fsync(fd)

    def note_rename(source: str, target: str) -> None:
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "rename", note_rename)
    sink = LocalSink(tmp_path / "a/data", clock=clock)
    sink.start()
    sink.write(batch(b"{}", name="one"))

    assert [
        "sync .",
        "sync a",
        "sync a/data",
        "sync a/data/tenant=dev",
        "sync a/data/tenant=dev/date=2026-01-02",
        f"sync a/data/{HOUR_PATH}/.one.ndjson.zst.tmp",
        "rename",
        f"sync a/data/{HOUR_PATH}",
    ] == steps

    del steps[:]
    sink.write(batch(b"{}", name="two"))

    assert [f"sync a/data/{HOUR_PATH}/.two.ndjson.zst.tmp", "rename", f"sync a/data/{HOUR_PATH}"] == steps


def test_a_directory_that_another_made_is_synced_too(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other may be between making and syncing it, and our object would go with it."""
    (tmp_path / "data" / HOUR_PATH).mkdir(parents=True)
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))

    LocalSink(tmp_path / "data", clock=clock).write(batch(b"{}"))

    assert ["data", "tenant=dev", "date=2026-01-02"] == synced[:3]


def test_without_fsync_nothing_is_synced(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """`fsync=0` is for benches and throw-away runs, and has to be worth it."""

    def fsync(_: int) -> None:
        raise AssertionError("synced")

    monkeypatch.setattr(os, "fsync", fsync)
    sink = LocalSink(tmp_path / "data", clock=clock, fsync=False)
    sink.start()
    sink.write(batch(b"{}"))

    assert 1 == len(files(tmp_path / "data"))


def test_the_temporary_file_of_a_killed_writer_is_written_over(sink: LocalSink, tmp_path: Path) -> None:
    """Its batch is delivered again under the same name, so nothing else has to know of it."""
    temporary = tmp_path / "data" / HOUR_PATH / f".{NAME}.ndjson.zst.tmp"
    temporary.parent.mkdir(parents=True)
    temporary.write_bytes(b"half of something much longer" * 1000)

    sink.write(batch(b"{}"))

    assert [f"{HOUR_PATH}/{NAME}.ndjson.zst"] == files(tmp_path / "data")
    assert b"{}\n" == content(temporary.parent / f"{NAME}.ndjson.zst")


def test_a_temporary_file_in_use_is_left_to_its_writer(sink: LocalSink, tmp_path: Path) -> None:
    """A second write of the batch into the same file would make one broken object of two whole ones."""
    temporary = tmp_path / "data" / HOUR_PATH / f".{NAME}.ndjson.zst.tmp"
    temporary.parent.mkdir(parents=True)
    with temporary.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"theirs")
        other.flush()
        with pytest.raises(TransientSinkError, match="under way"):
            sink.write(batch(b"{}"))

        assert b"theirs" == temporary.read_bytes()

    assert 1 == sink.write(batch(b"{}")).delivered


def test_an_object_renamed_between_open_and_lock_is_not_emptied(
    sink: LocalSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The descriptor then is of the finished object, and to truncate it would lose what was delivered."""
    temporary = tmp_path / "data" / HOUR_PATH / f".{NAME}.ndjson.zst.tmp"
    finished = temporary.with_name("finished")
    temporary.parent.mkdir(parents=True)
    temporary.write_bytes(b"all of it")
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if not finished.exists():
            temporary.rename(finished)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    sink.write(batch(b"{}"))

    assert b"all of it" == finished.read_bytes()
    assert b"{}\n" == content(temporary.parent / f"{NAME}.ndjson.zst")


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(sink: LocalSink, tmp_path: Path) -> None:
    """It could lead anywhere, and what lies there would be emptied."""
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    temporary = tmp_path / "data" / HOUR_PATH / f".{NAME}.ndjson.zst.tmp"
    temporary.parent.mkdir(parents=True)
    temporary.symlink_to(precious)

    with pytest.raises(TransientSinkError):
        sink.write(batch(b"{}"))

    assert "keep me" == precious.read_text()


def test_a_start_sweeps_what_has_had_no_writer_for_an_hour(tmp_path: Path, clock: FakeClock) -> None:
    """A batch that went to the rescue sink instead never comes back to write over its temporary file."""
    hour = tmp_path / "data" / HOUR_PATH
    hour.mkdir(parents=True)
    now_s = clock.now_us() / 1_000_000
    for name, age_s in {
        ".old.ndjson.zst.tmp": 3601,
        ".young.ndjson.zst.tmp": 3599,
        ".other.tmp": 9999,
        "old.ndjson.zst": 9999,
    }.items():
        (hour / name).write_bytes(b"x")
        os.utime(hour / name, (now_s - age_s, now_s - age_s))

    LocalSink(tmp_path / "data", clock=clock).start()

    assert [".other.tmp", ".young.ndjson.zst.tmp", "old.ndjson.zst"] == files(hour)


def test_a_start_sweeps_what_lies_by_hour_too(tmp_path: Path, clock: FakeClock) -> None:
    """Nobody else would ever remove it."""
    temporary = tmp_path / "date=2026-01-02/hour=03/.old.ndjson.zst.tmp"
    temporary.parent.mkdir(parents=True)
    temporary.write_bytes(b"x")
    os.utime(temporary, (0, 0))

    LocalSink(tmp_path, clock=clock, by="hour").start()

    assert [] == files(tmp_path)


def test_a_start_sweeps_nothing_that_has_a_writer(tmp_path: Path, clock: FakeClock) -> None:
    """A disk may stand still for an hour, and its writer with it."""
    temporary = tmp_path / "data" / HOUR_PATH / ".slow.ndjson.zst.tmp"
    temporary.parent.mkdir(parents=True)
    with temporary.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        os.utime(temporary, (0, 0))
        LocalSink(tmp_path / "data", clock=clock).start()

        assert temporary.exists()


def test_a_start_sweeps_the_newest_hours_and_no_more_than_it_may(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Years of data must not hold up a start."""
    monkeypatch.setattr(local, "SWEEP_DIRECTORIES", 2)
    left = []
    for day in range(1, 5):
        temporary = tmp_path / f"data/tenant=t{day}/date=2026-01-0{day}/hour=00/.a.ndjson.zst.tmp"
        temporary.parent.mkdir(parents=True)
        temporary.write_bytes(b"x")
        os.utime(temporary, (0, 0))
        left.append(temporary)

    LocalSink(tmp_path / "data", clock=clock).start()

    assert [True, True, False, False] == [temporary.exists() for temporary in left]


def test_what_is_remembered_of_directories_is_bounded(
    sink: LocalSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand tenants make a thousand directories an hour, for months."""
    monkeypatch.setattr(local, "SYNCED_DIRECTORIES", 10)

    for hour in range(60):
        sink.write(batch(b"{}", hour=HOUR + hour))

    assert 60 == len(files(tmp_path / "data"))
    assert len(sink._synced) <= 10


def test_ten_thousand_tenants_are_remembered_all_at_once(sink: LocalSink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were they more than are remembered, each write would make and sync the tenant's directories again."""
    made: list[str] = []
    mkdir = os.mkdir

    def note(path: str) -> None:
        made.append(path)
        mkdir(path)

    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "mkdir", note)
    for _ in range(2):
        for n in range(10_000):
            sink.write(batch(b"{}", name="again", tenant_id=f"t{n}"))

    assert 30_000 == len([path for path in made if "tenant=" in path])


@pytest.mark.parametrize("lines", [1, 10_000])
def test_a_batch_that_follows_another_is_a_frame_of_its_own(lines: int, sink: LocalSink, tmp_path: Path) -> None:
    """Its compressor may have served another tenant a moment before: nothing of that may be in it."""
    for n in range(3):
        sink.write(batch(*[b'{"of":%d}' % n] * lines, name=f"n{n}"))
    contents = [(tmp_path / "data" / HOUR_PATH / f"n{n}.ndjson.zst").read_bytes() for n in range(3)]

    assert [b'{"of":%d}\n' % n * lines for n in range(3)] == [
        zstandard.ZstdDecompressor().decompress(frame) for frame in contents
    ]


def test_a_directory_that_may_not_be_written_to_is_transient() -> None:
    """A wrong owner is set right while the batches wait; root is never refused, so another user tries it."""
    program = """
import os, sys
from pathlib import Path
from collector.clock import SystemClock
from collector.errors import SinkError, TransientSinkError
from collector.sinks.objects import compress
from collector.sinks.local import LocalSink
from tests.fakes import batch

data = Path(sys.argv[1])
data.mkdir(mode=0o555)
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
sink = LocalSink(data, clock=SystemClock())
for attempt in (sink.start, lambda: sink.write(batch(b"{}"))):
    try:
        attempt()
    except TransientSinkError as exc:
        print(exc)
"""
    # Not in tmp_path, which nobody else may look into.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)
        done = subprocess.run(
            [sys.executable, "-c", program, f"{directory}/data"], cwd=ROOT, capture_output=True, text=True, check=False
        )

    assert "" == done.stderr
    assert 2 == done.stdout.count("let the user that Collector runs as write there")


def test_it_leaves_nothing_open_in_the_threads_of_a_gevent_worker(tmp_path: Path) -> None:
    """There os.close defers; a directory left open at each write is the end of the worker after an hour."""
    program = """
from gevent import monkey
monkey.patch_all()
import os, sys
import gevent
from gevent.threadpool import ThreadPool
from collector.clock import SystemClock
from collector.sinks.objects import compress
from collector.sinks.local import LocalSink
from tests.fakes import batch

sink = LocalSink(sys.argv[1], clock=SystemClock())
sink.start()
pool = ThreadPool(2)
def write(number):
    gevent.sleep(0)  # gives the thread a hub, as any waiting in it would
    before = len(os.listdir("/proc/self/fd"))
    sink.write(batch(b"{}", name=f"n{number}", hour=number))
    return len(os.listdir("/proc/self/fd")) - before
pool.apply(write, (0,))
print([pool.apply(write, (number,)) for number in range(1, 5)])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert ("[0, 0, 0, 0]\n", "") == (done.stdout, done.stderr)
    assert 5 == len(files(tmp_path))


@pytest.mark.system
def test_a_full_disk_and_a_read_only_one_are_survived(tmp_path: Path) -> None:
    """The kernel's own refusals, on a mount of its own: nothing partial, and delivery as soon as it is mended."""
    program = """
import os, subprocess, sys
from pathlib import Path
from collector.clock import SystemClock
from collector.errors import TransientSinkError
from collector.sinks.objects import compress
from collector.sinks.local import LocalSink
from tests.fakes import batch

mount = Path(sys.argv[1])
def run(*args): subprocess.run(args, check=True)
def files(): return sorted(path.name for path in mount.rglob("*") if path.is_file())
run("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount))
sink = LocalSink(mount / "data", clock=SystemClock())
sink.start()
noise = [os.urandom(120_000).hex().encode() for _ in range(2)]
sink.write(batch(noise[0], name="one"))
def refused(word):
    try:
        sink.write(batch(*noise, name="two"))
    except TransientSinkError as exc:
        assert word in str(exc), exc
    else:
        raise AssertionError("written")
    assert files() == ["one.ndjson.zst"], files()
refused("No space left on device")
run("mount", "-o", "remount,ro", str(mount))
refused("Read-only file system; mount the directory writable")
try:
    LocalSink(mount / "data", clock=SystemClock()).start()
except TransientSinkError as exc:
    assert "mount the directory writable" in str(exc), exc
else:
    raise AssertionError("started")
run("mount", "-o", "remount,rw,size=2m", str(mount))
assert sink.write(batch(*noise, name="two")).delivered == 2
assert files() == ["one.ndjson.zst", "two.ndjson.zst"], files()
print("survived")
"""
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ("survived\n", "") == (done.stdout, done.stderr)

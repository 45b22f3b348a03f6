"""The reading side of the `file:` sink: what is whole, what is not, and what it tidies."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import zstandard

from collector.errors import SinkError, TransientSinkError
from collector.sinks.files import claim_file
from collector.sinks.local import LocalSink
from collector.sinks.local_source import LocalSource, LocalStored
from tests.fakes import FakeClock, batch

HOUR_PATH = "tenant=dev/date=2026-01-02/hour=03"


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return tmp_path / "rescue"


@pytest.fixture(name="source")
def _source(folder: Path, clock: FakeClock) -> LocalSource:
    return LocalSource(folder, clock=clock)


def rescued(folder: Path, clock: FakeClock, *lines: bytes, name: str = "n1") -> Path:
    """Write a batch, and return its file."""
    LocalSink(folder / "route=default", clock=clock).write(batch(*lines, name=name))
    return folder / "route=default" / HOUR_PATH / f"{name}.ndjson.zst"


def only(source: LocalSource) -> LocalStored:
    (stored,) = source.stored("default")
    return stored


def test_a_file_that_is_cut_off_anywhere_is_not_read(source: LocalSource, folder: Path, clock: FakeClock) -> None:
    """A disk that was full, or a copy that broke off: half a batch must not pass for a whole one."""
    path = rescued(folder, clock, b'{"id":"1"}', b'{"id":"2"}' * 50)
    frame = path.read_bytes()
    for length in range(len(frame)):
        path.write_bytes(frame[:length])
        with pytest.raises(SinkError, match="can't be read back"):
            only(source).load()

        assert frame[:length] == path.read_bytes()


def test_a_file_with_something_behind_its_frame_is_not_read(
    source: LocalSource, folder: Path, clock: FakeClock
) -> None:
    """It may be a second batch, and to take the file away would lose that."""
    path = rescued(folder, clock, b"1")
    path.write_bytes(path.read_bytes() * 2)

    with pytest.raises(SinkError, match="can't be read back"):
        only(source).load()


def test_a_file_with_a_flipped_bit_is_not_read_as_another_batch(
    source: LocalSource, folder: Path, clock: FakeClock
) -> None:
    """A checksum stands over each; bits that mean nothing may flip."""
    lines = [b'{"id":"%d"}' % n for n in range(30)]
    path = rescued(folder, clock, *lines)
    frame = path.read_bytes()
    refused = 0
    for at in range(len(frame) * 8):
        bad = bytearray(frame)
        bad[at // 8] ^= 1 << at % 8
        path.write_bytes(bad)
        try:
            found = only(source).load()
        except SinkError:
            refused += 1
        else:
            assert found is not None
            assert lines == found.lines()

    assert refused > len(frame) * 7


def test_a_file_that_says_it_is_huge_is_refused_before_it_is_inflated(
    source: LocalSource, folder: Path, clock: FakeClock
) -> None:
    """A kilobyte may claim to hold a terabyte."""
    path = rescued(folder, clock, b"1")
    huge = zstandard.ZstdCompressor().compressobj(size=65 * 1024 * 1024)
    path.write_bytes(b"".join(huge.compress(b"x\n" * 512 * 1024) for _ in range(65)) + huge.flush())

    with pytest.raises(SinkError, match="it says that it holds"):
        only(source).load()


@pytest.mark.parametrize(
    "path",
    [
        "tenant=dev/date=2026-01-02/hour=03/readme.txt",
        "tenant=dev/date=2026-01-02/hour=24/n1.ndjson.zst",
        "tenant=dev/date=2026-13-02/hour=03/n1.ndjson.zst",
        "tenant=dev/date=yesterday/hour=03/n1.ndjson.zst",
        "tenant=a b/date=2026-01-02/hour=03/n1.ndjson.zst",
        "tenant=dev/date=2026-01-02/hour=03/a b.ndjson.zst",
    ],
)
def test_a_file_that_is_not_named_as_a_batch_is_told_and_left(
    path: str, source: LocalSource, folder: Path, clock: FakeClock
) -> None:
    """What is not ours we don't send anywhere; passed over in silence, it might be missed."""
    good = rescued(folder, clock, b"1").read_bytes()
    (folder / "route=default" / HOUR_PATH / "n1.ndjson.zst").unlink()
    strange = folder / "route=default" / path
    strange.parent.mkdir(parents=True, exist_ok=True)
    strange.write_bytes(good)

    with pytest.raises(SinkError, match=strange.name):
        only(source).load()

    assert good == strange.read_bytes()


def test_a_link_in_the_place_of_a_file_is_not_followed(
    source: LocalSource, folder: Path, clock: FakeClock, tmp_path: Path
) -> None:
    """It could lead to what is no batch of ours."""
    path = rescued(folder, clock, b"1")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(SinkError):
        only(source).load()


def test_temporary_files_are_no_batches(source: LocalSource, folder: Path, clock: FakeClock) -> None:
    """Each is somebody's write under way, or what is left of one that is written again."""
    path = rescued(folder, clock, b"1")
    path.with_name(".n2.ndjson.zst.tmp").write_bytes(b"half")

    assert ["n1"] == [stored.name for stored in source.stored("default")]


def test_a_write_of_the_same_batch_under_way_keeps_it_from_being_taken_away(
    source: LocalSource, folder: Path, clock: FakeClock
) -> None:
    """Its rename would come after our look and before our unlink, and be lost."""
    path = rescued(folder, clock, b"1")
    stored = only(source)
    stored.load()
    claim = claim_file(path.with_name(f".{path.name}.tmp"))
    with pytest.raises(TransientSinkError, match="another write of this batch is under way"):
        stored.keep(None)
    os.close(claim)

    assert path.exists()
    stored.keep(None)
    assert not path.exists()


def test_a_batch_that_is_written_anew_meanwhile_is_not_touched(
    source: LocalSource, folder: Path, clock: FakeClock
) -> None:
    """What was read is not what lies there: the next replay sees to it."""
    rescued(folder, clock, b"1")
    removed, replaced = only(source), only(source)
    removed.load()
    replaced.load()
    rescued(folder, clock, b"1", b"2")

    removed.keep(None)
    replaced.keep(batch(b"1"))

    assert [b"1", b"2"] == (only(source).load() or batch()).lines()


def test_folders_that_are_empty_then_go_and_writers_make_them_anew(
    source: LocalSource, folder: Path, clock: FakeClock
) -> None:
    """A year of short outages would be thousands of folders, looked into every half minute."""
    sink = LocalSink(folder / "route=default", clock=clock)
    for n in range(3):
        sink.write(batch(b"%d" % n, name=f"n{n}"))
        stored = only(source)
        stored.load()
        stored.keep(None)

        assert [] == list((folder / "route=default").iterdir())


def test_a_place_that_is_not_there_is_told(source: LocalSource, folder: Path) -> None:
    """A mistyped place would look like an empty one."""
    with pytest.raises(SinkError, match="can't be looked into: No such file or directory"):
        source.routes()


def test_taking_away_never_loses_what_a_writer_writes_anew_at_the_same_time(
    source: LocalSource, folder: Path, clock: FakeClock
) -> None:
    """In any order of their steps: the new one lies there at the end, or the writer is told to come again."""
    rng = random.Random(5)
    real_stat, real_unlink = Path.stat, Path.unlink
    outcomes = set()
    for step in range(40):
        path = rescued(folder, clock, b"old")
        stored = only(source)
        stored.load()
        written: list[bool] = []
        left = [rng.randrange(12)]

        def write(written: list[bool] = written, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                try:
                    LocalSink(folder / "route=default", clock=clock, fsync=False).write(
                        batch(b"old", b"new", name="n1")
                    )
                    written.append(True)
                except TransientSinkError:
                    written.append(False)

        def stat(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
            write()
            found = real_stat(self, follow_symlinks=follow_symlinks)
            write()
            return found

        def unlink(self: Path, missing_ok: bool = False) -> None:
            write()
            real_unlink(self, missing_ok)
            write()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Path, "stat", stat)
            patched.setattr(Path, "unlink", unlink)
            stored.keep(None)
        outcomes.add((written[:1] == [True], path.exists()))
        if written == [True]:
            assert [b"old", b"new"] == (only(source).load() or batch()).lines(), step
        path.unlink(missing_ok=True)

    assert (True, True) in outcomes
    assert (True, False) not in outcomes

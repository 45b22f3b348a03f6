"""The package is the app, whole, and the same bytes each time."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from dashboards import package as packaging
from dashboards.__main__ import main
from dashboards.views import APP


def copied(into: Path) -> Path:
    return Path(shutil.copytree(APP, into / "collector"))


def test_it_unpacks_to_the_app(tmp_path: Path) -> None:
    """A file that is left out is missed in production."""
    file = packaging.package(APP, tmp_path / "dist")
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path / "out", filter="data")

    def content(app: Path) -> dict[str, bytes]:
        return {path.relative_to(app).as_posix(): path.read_bytes() for path in app.rglob("*") if path.is_file()}

    assert ["collector"] == os.listdir(tmp_path / "out")
    assert content(APP) == content(tmp_path / "out" / "collector")
    assert {"default/app.conf", "default/savedsearches.conf", "metadata/default.meta", "README.md"} <= set(content(APP))


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    """Who rebuilds it can tell whether it is what was published: neither owner, nor time, nor order is in it."""
    app = copied(tmp_path / "b")
    for n, path in enumerate(sorted(app.rglob("*"), reverse=True)):
        os.utime(path, (n, n))
        path.chmod(0o700 if path.is_dir() else 0o600)

    one = packaging.package(APP, tmp_path / "one")
    two = packaging.package(app, tmp_path / "two")

    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as archive:
        assert {(0, 0, "", "")} == {(one.uid, one.gid, one.uname, one.gname) for one in archive}
        assert sorted(archive.getnames()) == sorted(set(archive.getnames()))


def test_who_packed_it_and_when_is_not_in_it(tmp_path: Path) -> None:
    """Two runs in one second, by one user, are the same without any care."""
    member = tarfile.TarInfo("collector/default")
    member.uid, member.gid, member.uname, member.gname, member.mtime = 1000, 100, "ann", "users", 7.0

    bare = packaging._nobodys(member)

    assert (0, 0, "", "") == (bare.uid, bare.gid, bare.uname, bare.gname)
    # The header of gzip has the time in bytes 4 to 7.
    head = packaging.package(APP, tmp_path).read_bytes()[:8]
    assert int.from_bytes(head[4:], "little") == bare.mtime == 1_577_836_800


def test_what_is_of_one_installation_stays_out(tmp_path: Path) -> None:
    """A folder local/ in a package would overrule every operator's own."""
    app = copied(tmp_path)
    (app / "local").mkdir()
    (app / "local" / "app.conf").write_text("[ui]\n")

    with tarfile.open(packaging.package(app, tmp_path / "dist")) as archive:
        assert not [name for name in archive.getnames() if "local" in name.split("/")]


@pytest.mark.parametrize("stanza", ["launcher", "id"])
def test_a_version_that_differs_is_refused(tmp_path: Path, stanza: str) -> None:
    """Splunk offers an upgrade by this number, and by no other."""
    app = copied(tmp_path)
    conf = app / "default" / "app.conf"
    before, title, after = conf.read_text().partition(f"[{stanza}]")
    conf.write_text(before + title + after.replace("version = 0", "version = 9", 1))

    with pytest.raises(ValueError, match=rf"\[{stanza}\] version is 9.*write the same in both"):
        packaging.package(app, tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize("setting", ["id = collector", "name = collector"])
def test_a_name_that_is_not_the_folders_is_refused(tmp_path: Path, setting: str) -> None:
    """Splunk installs it under one and looks for it under the other."""
    app = copied(tmp_path)
    conf = app / "default" / "app.conf"
    conf.write_text(conf.read_text().replace(setting, f"{setting}s"))

    with pytest.raises(ValueError, match="is collectors, and the folder is collector"):
        packaging.package(app, tmp_path / "dist")


def test_the_verb_writes_it_and_says_where(tmp_path: Path) -> None:
    """`make app` is this."""
    result = CliRunner().invoke(main, ["package", "--into", str(tmp_path / "dist")])

    assert 0 == result.exit_code, result.output
    assert Path(result.output.strip()).is_file()


def test_a_verb_that_fails_ends_with_a_sentence(tmp_path: Path) -> None:
    """A folder that is a file is no defect of ours."""
    (tmp_path / "dist").write_text("")

    result = CliRunner().invoke(main, ["package", "--into", str(tmp_path / "dist")])

    assert 1 == result.exit_code
    assert "Error: " in result.output
    assert isinstance(result.exception, SystemExit)

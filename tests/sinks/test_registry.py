"""What a sink's URL may say, and what it is told when it may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import aws
from collector.sinks.local import LocalSink
from collector.sinks.registry import SCHEMES, SINKS, open_sink
from collector.sinks.s3 import S3Sink
from collector.sinks.stdout import StdoutSink
from tests.fakes import batch


def test_the_schemes_are_those_of_the_table() -> None:
    """Messages and tests read SCHEMES; a second list would fall behind the first."""
    assert tuple(SINKS) == SCHEMES
    assert {"file", "stdout"} <= set(SCHEMES)


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("file:data", "data"),
        ("file:./data/", "data"),
        ("file:a/b/c?level=3", "a/b/c"),
        ("file:two%20words", "two words"),
        ("file:100%25", "100%"),
        ("FILE:data", "data"),
    ],
)
def test_a_relative_directory_is_under_the_working_directory(
    url: str, directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`file:data` is the default, and is looked for beside where the program was started."""
    monkeypatch.chdir(tmp_path)

    sink = open_sink(url, writer_id="w1")
    # A worker that changes directory later, or a test that does, must not move the data.
    monkeypatch.chdir("/")
    sink.start()
    sink.write(batch(b"{}"))

    assert 1 == len(list((tmp_path / directory).rglob("*.ndjson.zst")))


@pytest.mark.parametrize("form", ["file:{}", "file://{}", "file://localhost{}", "file:{}/?fsync=0&level=19"])
def test_an_absolute_directory_may_be_written_in_any_form_of_the_rfc(form: str, tmp_path: Path) -> None:
    """Each is a file URL by RFC 8089, and people write each."""
    sink = open_sink(form.format(tmp_path), writer_id="w1")
    sink.start()
    sink.write(batch(b"{}"))

    assert 1 == len(list(tmp_path.rglob("*.ndjson.zst")))


def test_opening_a_sink_touches_nothing(tmp_path: Path) -> None:
    """`collector check` opens sinks to see whether their URLs are right."""
    open_sink(f"file:{tmp_path}/data", writer_id="w1")

    assert [] == list(tmp_path.iterdir())


def test_each_scheme_opens_its_sink() -> None:
    """The table is literal, so a slip in it is seen only by opening."""
    assert isinstance(open_sink("file:data", writer_id="w1"), LocalSink)
    assert isinstance(open_sink("stdout:", writer_id="w1"), StdoutSink)
    assert isinstance(open_sink("s3://bucket/prefix", writer_id="w1"), S3Sink)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "has no scheme; for a directory write file:DIR"),
        ("data", "has no scheme; for a directory write file:data"),
        ("ftp:data", "there is no sink 'ftp'; the schemes are file, stdout, s3"),
        (":data", "there is no sink ''"),
        ("file:", "names no directory; write file:data"),
        ("file:?level=3", "names no directory"),
        ("file:~/data", "names no directory"),
        ("file://data", "write file:data for a relative directory, file:/data for an absolute one"),
        ("file://data/a", "write file:data/a for a relative directory, file:/data/a for an absolute one"),
        ("file:data?level=0", "`int` >= 1 - at `$.level`; its options are level, fsync"),
        ("file:data?level=20", "`int` <= 19"),
        ("file:data?level=high", "Expected `int`"),
        ("file:data?fsync=maybe", "Expected `bool`"),
        ("file:data?levle=3", "unknown field `levle`; its options are level, fsync"),
        ("file:data?level", "can't be read"),
        ("file:data?level=1&level=2", "says an option twice"),
        ("file:data#1", "holds a '#'; write %23"),
        ("file:da\nta", "can't be printed"),
        ("file:da%00ta", "holds a NUL"),
        ("file:%ff", "can't be read"),
        ("file://[data", "can't be read"),
        ("stdout:out", "the standard output has no path; write stdout:"),
        ("stdout://out", "the standard output has no path; write stdout:"),
        ("stdout:?level=1", "unknown field `level`; stdout: has no options"),
        ("s3:bucket", "'' is no name of a bucket; write s3://bucket/prefix"),
        ("s3:///prefix", "'' is no name of a bucket"),
        ("s3://Bucket/prefix", "'Bucket' is no name of a bucket"),
        ("s3://bucket:9000/prefix", "'bucket:9000' is no name of a bucket"),
        (f"s3://bucket/{'p' * 513}", "its prefix has over 512 bytes"),
        ("s3://bucket/a%0Ab", "or some that can't be printed"),
        ("s3://bucket?endpoint=127.0.0.1:9000", "its endpoint is no http:// or https:// URL"),
        ("s3://bucket?by=day", "Invalid enum value 'day'"),
        (
            "s3://bucket?access=AKIA",
            "unknown field `access`; its options are region, endpoint, assume_role, tenant, level",
        ),
        ("s3://bucket?assume_role=writer", "no ARN of a role; write arn:aws:iam::<account>:role/<name>, and %2B for"),
        ("s3://bucket?assume_role=arn:aws:iam::123456789012:user/u", "its assume_role is no ARN of a role"),
        ("s3://bucket?assume_role=arn:aws:iam::123456789012:role/a+b", "its assume_role is no ARN of a role"),
        ("s3://bucket?tenant=acme", "tenant= tags the session of a role; name that with assume_role="),
        (
            "s3://bucket?assume_role=arn:aws:iam::123456789012:role/r&tenant=a.b",
            "'a.b' can't be a tenant's id",
        ),
    ],
)
def test_a_mistake_is_named_with_what_to_write_instead(url: str, said: str) -> None:
    """Settings report it before a port opens; a traceback, or a directory named oddly, would come too late."""
    with pytest.raises(ValueError, match="sink") as raised:
        open_sink(url, writer_id="w1")

    assert said in str(raised.value)
    assert repr(url) in str(raised.value)


def test_a_key_in_a_url_is_refused_without_a_word_of_it() -> None:
    """What is said of a setting goes to a terminal and to a log."""
    with pytest.raises(ValueError, match="never from a URL: write s3:// and the name") as raised:
        open_sink("s3://AKIDKEY:secret@bucket/prefix", writer_id="w1")

    assert not any(word in str(raised.value) for word in ("AKIDKEY", "secret"))


def test_a_sink_whose_client_is_not_installed_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image without the extra is smaller, and is told before a port opens."""
    monkeypatch.setattr(aws, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs boto3, which is not installed: pip install 'collector\[aws\]'"):
        open_sink("s3://bucket", writer_id="w1")


_ODD = st.text(alphabet="file:/?&=%#[]@~.\x00 level1")


@given(url=st.text() | _ODD.map("file:".__add__) | _ODD.map("s3://".__add__))
def test_any_text_is_a_sink_or_a_sentence(url: str) -> None:
    """Whoever writes the settings sees a ValueError's sentence; any other exception would be a traceback."""
    try:
        said = f"sink {type(open_sink(url, writer_id='w1')).__name__}"
    except ValueError as exc:
        said = str(exc)

    assert said.startswith("sink ")

"""Lines are JSON, bounded, silent about secrets, and never in anybody's way."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from collector.errors import TransientSinkError
from collector.event import Event
from collector.outcome import Reason
from collector.telemetry import logs
from collector.telemetry.logs import build_logger, describe_error, rfc3339, scrub
from tests.fakes import FakeClock

SECRET = "hunter2-correct-horse"


def lines_of(out: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def logged(**fields: object) -> dict[str, Any]:
    """Log one line with these fields and read it back."""
    out = io.BytesIO()
    build_logger(out, "info", clock=FakeClock()).info("something.happened", **fields)
    (line,) = lines_of(out)
    return line


def caught(act: Callable[[], object]) -> BaseException:
    try:
        act()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what was asked for
        return error
    raise AssertionError("nothing was raised")


def test_a_line_begins_with_time_level_and_name_then_what_is_bound_then_its_fields() -> None:
    """People read the raw stream too, and their eyes need the same things in the same places."""
    out = io.BytesIO()
    logger = build_logger(out, "info", clock=FakeClock(), pid=7, owner="w1")

    logger.warning("batch.failed", route="default", attempts=3)

    assert (
        b'{"ts":"2026-01-02T03:04:05.678901Z","level":"warning","event":"batch.failed","pid":7,"owner":"w1",'
        b'"route":"default","attempts":3}\n'
    ) == out.getvalue()


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("WARN", ["warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_lines_below_the_level_are_not_written(level: str, expected: list[str]) -> None:
    """An operator who asks for less must get less."""
    out = io.BytesIO()
    logger = build_logger(out, level, clock=FakeClock())

    logger.debug("a.b")
    logger.info("a.b")
    logger.warning("a.b")
    logger.error("a.b")

    assert expected == [line["level"] for line in lines_of(out)]


def test_lines_of_a_process_have_its_boot_and_a_number_each_and_those_that_are_not_written_have_none() -> None:
    """A gap in the numbers is a lost line; a line below the level was never one."""
    out = io.BytesIO()
    logger = build_logger(out, "info", clock=FakeClock(), boot="a1b2c3", pid=7)

    logger.info("a.b")
    logger.debug("a.c")
    logger.bind(owner="w1").error("a.d", text={f"{n:0>5}": "x" * 4000 for n in range(60)}, more="\n" * 16384)

    first, second = lines_of(out)
    assert ["ts", "level", "event", "boot", "seq", "pid"] == list(first)
    assert [("a1b2c3", 1), ("a1b2c3", 2)] == [(line["boot"], line["seq"]) for line in (first, second)]


def test_each_line_is_handed_on_with_its_level_and_without_its_newline() -> None:
    """Splunk gets what the standard output gets."""
    out = io.BytesIO()
    handed: list[tuple[bytes, str]] = []
    logger = build_logger(out, "debug", clock=FakeClock(), also=lambda line, level: handed.append((line, level)))

    for say in (logger.debug, logger.info, logger.warning, logger.error):
        say("a.b")

    assert ["debug", "info", "warning", "error"] == [level for _, level in handed]
    assert out.getvalue().splitlines() == [line for line, _ in handed]


def test_building_a_logger_leaves_the_global_configuration_of_structlog_alone() -> None:
    """A library that is loaded beside us may have its own."""
    before = structlog.get_config()

    build_logger(io.BytesIO(), "info").info("a.b")

    assert before == structlog.get_config()
    assert not structlog.is_configured()


def test_two_loggers_do_not_share_what_is_bound() -> None:
    """Tests and a reload hold several loggers in one process."""
    out = io.BytesIO()

    build_logger(out, "info", owner="one").info("a.b")
    build_logger(out, "info").info("a.b")

    first, second = lines_of(out)
    assert "one" == first["owner"]
    assert "owner" not in second


def test_a_field_cannot_take_the_place_of_the_time_or_the_level() -> None:
    """A line whose level can be chosen by a field would hide from the alarm."""
    line = logged(ts="then", level="debug")

    assert ("2026-01-02T03:04:05.678901Z", "info") == (line["ts"], line["level"])


@pytest.mark.parametrize(
    ("us", "expected"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (1_767_323_045_000_000, "2026-01-02T03:04:05.000000Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_time_has_six_digits_even_when_they_are_zero(us: int, expected: str) -> None:
    """Lines are sorted as text."""
    assert expected == rfc3339(us)


@pytest.mark.parametrize(
    "name",
    [
        "key", "ingest_key", "apiKey", "X-Collector-Key", "keys", "token", "hec_token", "Authorization",
        "authorisation", "password", "secret", "credentials", "Set-Cookie", "bearer", "signature",
        "body", "request_body", "payload", "event_body", "event-json", "EventLine",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [SECRET, SECRET.encode(), [SECRET], {"a": SECRET}, 42, None])
def test_a_field_that_is_named_like_a_secret_or_like_content_is_withheld(name: str, value: object) -> None:
    """Whoever adds such a field in a hurry must not publish keys by it."""
    line = logged(**{name: value})

    assert "[withheld]" == line[name]
    assert SECRET not in json.dumps(line)


def test_a_secret_is_withheld_inside_lists_and_dicts_too() -> None:
    """Nobody looks for a header in a list of dicts, but it would be written all the same."""
    line = logged(headers=[{"Host": "a", "Authorization": SECRET, "more": {"api_key": SECRET}}])

    assert [{"Host": "a", "Authorization": "[withheld]", "more": {"api_key": "[withheld]"}}] == line["headers"]


def test_a_secret_that_was_bound_is_withheld_too() -> None:
    """What is bound would be on every line."""
    out = io.BytesIO()

    build_logger(out, "info", hec_token=SECRET).info("a.b")

    assert SECRET.encode() not in out.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("403: Bearer abc.def-ghi", "403: Bearer [withheld]"),
        ("Authorization: Splunk 1234-5678", "Authorization: Splunk [withheld]"),
        ('{"authorization": "Basic dXNlcg=="}', '{"authorization": "Basic [withheld]"}'),
        ("authorization=abc", "authorization=[withheld]"),
        ("GET https://h/x?a=1&key=abc&b=2", "GET https://h/x?a=1&key=[withheld]&b=2"),
        ("X-Amz-Signature=0f0f&x", "X-Amz-Signature=[withheld]&x"),
        ("https://user:pass@host/x", "https://user:[withheld]@host/x"),
        ("api_key='abc'", "api_key='[withheld]'"),
        ("{'api_key': 'abc'}", "{'api_key': '[withheld]'}"),
        ('{"token":"abc","a":1}', '{"token":"[withheld]","a":1}'),
        ("unknown_key: no such tenant", "unknown_key: no such tenant"),
        ("2026-01-02T03:04:05Z connect to 10.0.0.1:443 failed", "2026-01-02T03:04:05Z connect to 10.0.0.1:443 failed"),
    ],
)
def test_what_looks_like_a_secret_within_a_text_is_withheld(text: str, expected: str) -> None:
    """Libraries put URLs with their query into their messages."""
    assert expected == logged(error=text)["error"]


@pytest.mark.parametrize(
    "value",
    [
        b'{"email":"a@b.c"}',
        bytearray(b"a@b.c"),
        memoryview(b"a@b.c"),
        Event(index=0, id=b'"1"', body=b'{"email":"a@b.c"}'),
        msgspec.Raw(b'"a@b.c"'),
        {"a@b.c"},
    ],
)
def test_bytes_and_objects_are_named_by_their_type_and_never_shown(value: object) -> None:
    """Event content is bytes here, and structs that hold it: by their type alone they are not for a log."""
    line = logged(thing=value)

    assert f"[withheld: {type(value).__name__}]" == line["thing"]


def test_a_reason_is_written_as_its_value() -> None:
    """Searches and dashboards name reasons as the contract does."""
    assert "over_quota" == logged(reason=Reason.OVER_QUOTA)["reason"]


def test_a_long_text_is_cut_at_its_bound_and_says_so() -> None:
    """A sink's answer may be a page of HTML, in any script."""
    for text in ("x" * 5000, "é" * 2049, "€" * 100_000):
        shown = logged(error=text)["error"]

        assert shown.endswith("…[cut]")
        assert logs.MAX_VALUE_BYTES - 4 <= len(shown.encode()) <= logs.MAX_VALUE_BYTES
    assert "x" * 4096 == logged(error="x" * 4096)["error"]


def test_long_lists_big_dicts_and_deep_nesting_are_cut() -> None:
    """The bound of a text is none if a list may hold a million of them."""
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = [deep]

    line = logged(problems=["p"] * 1000, fields={str(n): n for n in range(1000)}, deep=deep)

    assert ["p"] * logs.MAX_ITEMS + ["[cut: 936 more]"] == line["problems"]
    assert logs.MAX_ITEMS + 1 == len(line["fields"])
    assert 936 == line["fields"]["cut"]
    assert [[[["[withheld: list]"]]]] == line["deep"]


def test_a_line_too_long_for_a_log_driver_gives_up_its_longest_fields() -> None:
    """A driver that splits a line makes two that nobody can parse; which tenant it was must stay readable."""
    out = io.BytesIO()
    texts = {f"text_{n}": "x" * (4000 - n) for n in range(6)}

    build_logger(out, "info", owner="w1").info("a.b", tenant_id="acme", **texts)

    assert len(out.getvalue()) <= logs.MAX_LINE_BYTES + 1
    (line,) = lines_of(out)
    assert ("acme", "w1", "a.b") == (line["tenant_id"], line["owner"], line["event"])
    assert "[cut: 4002 bytes]" == line["text_0"]
    assert texts["text_5"] == line["text_5"]


def test_a_line_of_nothing_but_long_names_keeps_only_its_head() -> None:
    """When nothing else helps the bound still holds."""
    out = io.BytesIO()

    build_logger(out, "info", owner="\n" * 4096).info("a.b", **{f"{n:0>5}" + "\t" * 900: n for n in range(60)})

    assert len(out.getvalue()) <= logs.MAX_LINE_BYTES + 1
    assert "a.b" == lines_of(out)[0]["event"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()) | st.integers(), inner) | st.tuples(inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters()), values))
@example({"huge": 10**6000, "surrogate \ud800": "\udfff", "big": 2**200, "nan": float("nan"), "nul": "\x00\n\r\u2028"})
def test_whatever_is_logged_comes_out_as_one_line_of_json(fields: dict[str, Any]) -> None:
    """A value that can't be encoded must not cost the line, nor the caller an exception."""
    out = io.BytesIO()
    logger = build_logger(out, "info")

    logger.bind(**{name: value for name, value in fields.items() if name != "event"}).info("a.b")

    assert out.getvalue().endswith(b"\n")
    assert 1 == out.getvalue().count(b"\n")
    assert "a.b" == lines_of(out)[0]["event"]


names_of_secrets = st.from_regex(r"[A-Za-z_-]{0,8}(key|Token|AUTHORIZATION|payload|body|event_body)[A-Za-z_]{0,8}")


@given(names_of_secrets, values, st.sampled_from(["flat", "dict", "list"]))
def test_no_name_that_holds_a_secret_word_lets_its_value_through(name: str, value: Any, where: str) -> None:
    """The defence must not depend on how the word is written or where the field lies."""
    field = {name: [SECRET, value, {"x": SECRET}]}
    places: dict[str, dict[str, Any]] = {"flat": field, "dict": {"a": field}, "list": {"a": [field]}}
    placed = places[where]

    line = json.dumps(scrub(None, "info", placed), default=repr)

    assert SECRET not in line
    assert "[withheld]" in line


@given(st.text(max_size=6000))
def test_no_text_takes_long_or_grows_beyond_its_bound(text: str) -> None:
    """The search for secrets makes a text longer where it finds one."""
    for hostile in (text, "key=a " * 1000, "a:a@" * 1500, "://" * 2000, "bearer " * 900, "bearer" + " " * 5000):
        assert len(str(logged(error=hostile + text)["error"]).encode()) <= logs.MAX_VALUE_BYTES


# -- exceptions -------------------------------------------------------------------------------------------------


def test_an_exception_becomes_one_field_with_the_way_that_led_to_it_and_no_locals() -> None:
    """Locals hold keys and events."""

    def parse(ingest_text: str) -> None:
        raise RuntimeError("no room")

    line = logged(exc_info=caught(lambda: parse(SECRET)))

    assert "exc_info" not in line
    assert line["traceback"].endswith("RuntimeError: no room\n")
    assert "in parse" in line["traceback"]
    assert "raise RuntimeError" in line["traceback"]
    assert SECRET not in line["traceback"]


@pytest.mark.parametrize(
    "act",
    [
        lambda: int(SECRET),
        lambda: dict[str, int]()[SECRET],
        lambda: list[str]().remove(SECRET),
        lambda: json.loads(f'"{SECRET}'),
        lambda: SECRET.encode().decode("utf-16-be") and (SECRET + "\ud800").encode(),
        lambda: msgspec.convert({"a": SECRET}, dict[str, int]),
    ],
)
def test_a_message_that_may_quote_what_an_error_choked_on_is_withheld(act: Callable[[], object]) -> None:
    """`invalid literal for int() with base 10: '…'` is event content in a log."""
    shown = describe_error(caught(act))

    assert "[message withheld]" in shown
    assert SECRET not in shown


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransientSinkError("503 Slow Down"), "collector.errors.TransientSinkError: 503 Slow Down"),
        (FileNotFoundError(2, "No such file", "a/b"), "FileNotFoundError: [Errno 2] No such file: 'a/b'"),
        (TypeError("'int' object is not callable"), "TypeError: 'int' object is not callable"),
        (TransientSinkError("GET /x?token=abc"), "collector.errors.TransientSinkError: GET /x?token=[withheld]"),
    ],
)
def test_a_message_about_the_system_or_of_our_own_is_shown(error: BaseException, expected: str) -> None:
    """An operator who reads only a type has to guess."""
    assert f"{expected}\n" == describe_error(error)


def test_a_library_that_makes_its_errors_of_oserror_is_not_trusted_with_its_message() -> None:
    """requests does, and quotes the URL with its query."""

    class RequestError(OSError):
        pass

    assert describe_error(RequestError(SECRET)).endswith(".RequestError: [message withheld]\n")


def test_causes_come_first_and_a_circle_of_them_ends() -> None:
    """A defect in an error must not hang the log of it."""
    first, second = RuntimeError("first"), RuntimeError("second")
    second.__cause__ = first
    first.__cause__ = second

    assert "RuntimeError: first\n\nRuntimeError: second\n" == describe_error(second)


def test_an_endless_recursion_fits_the_bound_and_keeps_both_ends() -> None:
    """The end says what went wrong, the beginning who called."""

    def deeper(n: int) -> int:
        return sideways(n) + 1

    def sideways(n: int) -> int:
        return deeper(n) + 1

    error = TransientSinkError("a" * 1500)
    error.__cause__ = caught(lambda: deeper(1))
    error.__cause__.__cause__ = caught(lambda: deeper(1))

    shown = logged(exc_info=error)["traceback"]

    assert len(shown.encode()) <= logs.MAX_TRACEBACK_BYTES
    assert "…[cut]…" in shown
    assert "aaaa\n" == shown[-5:]
    assert "in caught" in shown.split("\n")[0]


def test_of_a_deep_stack_the_first_and_the_last_frames_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Source lines are read from files, and a recursion is a thousand frames deep."""

    def down(n: int) -> None:
        if n == 0:
            raise RuntimeError("bottom")
        (up if n % 2 else down)(n - 1)

    def up(n: int) -> None:
        down(n)

    def bottom() -> None:
        down(300)

    monkeypatch.setattr(logs, "MAX_TRACEBACK_BYTES", 10**6)
    shown = describe_error(caught(bottom))

    assert logs.MAX_FRAMES == shown.count('File "')
    assert "in caught" in shown.split("\n")[0]
    assert shown.endswith('raise RuntimeError("bottom")\nRuntimeError: bottom\n')


def test_a_context_that_was_set_aside_is_not_shown() -> None:
    """`raise … from None` says that what came before is of no use here."""

    def act() -> None:
        try:
            raise RuntimeError("aside")
        except RuntimeError:
            raise RuntimeError("told") from None

    assert "aside" not in describe_error(caught(act)).replace('RuntimeError("aside")', "")


def test_an_error_whose_text_fails_is_still_logged() -> None:
    """The log is the last that may fail on a broken error."""

    class Broken(TransientSinkError):
        def __str__(self) -> str:
            raise ValueError(SECRET)

    shown = describe_error(Broken("never read"))

    assert shown.endswith("[message failed: ValueError]\n")

"""How many endpoints: the arithmetic, and what running tasks say of themselves."""

from __future__ import annotations

import math
import socket
import threading
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.control.hec import prediction
from collector.control.hec.exchange import read_head, written
from collector.control.hec.listening import Listening
from collector.control.hec.scraping import Page, fetch, rates, read
from collector.control.hec.sizing import Load, Plan, nodes_for, size
from collector.errors import ScrapeError


def load(**more: Any) -> Load:
    usual: dict[str, Any] = {
        "lines_per_s": 1000.0, "line_bytes": 400.0, "tasks": 20, "workers": 4, "wire_part": 0.2,
        "batch_bytes": 200_000.0, "linger_s": 1.0, "ceiling": 5e6, "buffer_bytes": 16 << 20,
    }  # fmt: skip
    return Load(**(usual | more))


def test_the_worked_example_comes_out() -> None:
    """20 tasks of 4 workers with 400 KB/s each: 32 MB/s, 1.5 times that over 5 MB/s a node, and a spare one."""
    sized = size(load(), Plan(outage_s=60.0), assumptions=[])

    assert (0.4e6, 32e6, 80) == (sized.load.worker_rate, sized.load.rate, sized.load.connections)
    assert (11, 6) == (sized.nodes, sized.nodes_few)
    assert (160.0, 200_000.0) == (sized.requests_per_s, sized.request_bytes)
    assert sized.wire_rate == pytest.approx(6.4e6)
    assert sized.head_room == pytest.approx(55 / 32)
    assert sized.bytes_a_day == pytest.approx(32e6 * 86_400)
    assert sized.drain == pytest.approx(55e6 / 80)
    assert sized.recovery_s == pytest.approx(prediction.usable_bytes(16 << 20) / (55e6 / 80 - 0.4e6))
    assert "the buffer in an outage" == sized.binds.limit
    assert sized.lost_part > 0
    assert {"a node takes", "head-room", "an outage", "load is even"} <= {one.name for one in sized.assumptions}
    assert all(one.source for one in sized.assumptions)


def test_a_few_lines_wait_for_linger_and_not_for_a_batch() -> None:
    """Requests a second are one a worker then, and nearly empty."""
    sized = size(load(lines_per_s=10.0), Plan(), assumptions=[])

    assert 4000.0 == sized.request_bytes
    assert 80.0 == sized.requests_per_s
    assert 400.0 == size(load(lines_per_s=0.1), Plan(), assumptions=[]).request_bytes


@given(st.floats(1.0, 1e10), st.floats(1e5, 1e8), st.floats(1.0, 5.0), st.integers(0, 3))
def test_nodes_hold_the_load_with_its_head_room_when_the_spare_ones_are_away(
    rate: float, per_node: float, head_room: float, spare: int
) -> None:
    """And not one of them is too many."""
    plan = Plan(head_room=head_room, spare=spare)
    nodes = nodes_for(rate, per_node, plan)

    assert (nodes - spare) * per_node >= rate * head_room * (1 - 1e-6)
    assert (nodes - spare - 1) * per_node < rate * head_room
    assert nodes > spare


def test_what_divides_evenly_takes_no_node_more() -> None:
    """30 times 1.1 is above 33 in a computer."""
    assert 3e6 * 1.1 / 1e5 > 33
    assert 34 == nodes_for(3e6, 1e5, Plan(head_room=1.1))


@pytest.mark.parametrize(
    ("more", "limit"),
    [
        ({"ceiling": 0.3e6, "buffer_bytes": 1 << 30}, "one connection"),
        ({"buffer_bytes": 1 << 20}, "the buffer in an outage"),
        ({"buffer_bytes": 1 << 30}, "HEC without its spare nodes"),
    ],
)
def test_what_binds_first_is_named(more: dict[str, Any], limit: str) -> None:
    """More nodes do not help a worker whose one connection is full."""
    sized = size(load(**more), Plan(), assumptions=[])

    assert limit == sized.binds.limit
    assert sorted((use.part for use in sized.uses), reverse=True) == [use.part for use in sized.uses]
    assert math.isinf(sized.recovery_s) == (limit == "one connection")


PAGE = """# TYPE collector_hec_emitted_lines_total counter
collector_hec_emitted_lines_total {emitted}
collector_hec_delivered_lines_total {emitted}
collector_hec_dropped_lines_total{{reason="full"}} {dropped}
collector_hec_dropped_lines_total{{reason="shutdown"}} {dropped}
collector_hec_line_bytes_total {bytes}
collector_hec_wire_bytes_total {wire}
collector_hec_requests_total{{result="taken"}} {requests}
collector_hec_requests_total{{result="unsent"}} 0
collector_hec_held_bytes 5
collector_hec_buffer_bytes 2e6
collector_hec_high_water_bytes {high}
collector_worker_start_time_seconds{{worker="a"}} 1
collector_worker_start_time_seconds{{worker="b"}} 2
"""


def page(n: int, *, high: int = 250_000) -> str:
    return PAGE.format(emitted=1000 * n, dropped=n, bytes=400_000 * n, wire=80_000 * n, requests=2 * n, high=high)


def test_rates_are_what_grew_between_two_looks() -> None:
    """Counters say what ever was; how much it is now is their difference."""
    before = {"a": read(page(5), url="a"), "b": read(page(1), url="b")}
    after = {"a": read(page(7), url="a"), "b": read(page(2, high=500_000), url="b")}
    seen = rates(before, after, seconds=10.0)

    assert (2, 4) == (seen.tasks, seen.workers)
    assert (300.0, 120_000.0, 24_000.0) == (seen.lines_per_s, seen.bytes_per_s, seen.wire_per_s)
    assert (0.6, 0.6) == (seen.requests_per_s, seen.dropped_per_s)
    assert 1_000_000 == seen.buffer_bytes
    assert 0.5 == seen.fullest


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [(page(5), page(1), "began to count anew"), (page(5), page(5), "no line was logged in the 10 s")],
)
def test_looks_that_say_nothing_are_refused(before: str, after: str, said: str) -> None:
    """A negative rate, or none, would be sized with one node and a straight face."""
    with pytest.raises(ScrapeError, match=said):
        rates({"u": read(before, url="u")}, {"u": read(after, url="u")}, seconds=10.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "says nothing of lines for Splunk"),
        ("up 1\n", "says nothing of lines for Splunk"),
        ("<html>", "is no page of metrics"),
        ("collector_hec_emitted_lines_total 1\n", "tells of no worker"),
        (page(1).replace("2e6", "0"), "tells of no worker"),
        (page(1).replace("2e6", "NaN"), "tells of no worker"),
    ],
)
def test_a_page_of_something_else_is_told(text: str, said: str) -> None:
    """Every exporter has a /metrics."""
    with pytest.raises(ScrapeError, match=said):
        read(text, url="http://t/metrics")


@given(
    st.text(max_size=200) | st.sampled_from([page(1)]).flatmap(lambda t: st.integers(0, len(t)).map(lambda n: t[:n]))
)
def test_any_text_is_read_or_refused(text: str) -> None:
    """What answers at a URL is a stranger."""
    with suppress(ScrapeError):
        found = read(text, url="u")
        assert isinstance(found, Page)
        assert found.workers > 0


def answering(status: int, body: bytes, seen: list[dict[str, str]]) -> Listening:
    def serve(link: socket.socket, _is_cut: threading.Event) -> None:
        with link.makefile("rb") as stream:
            head = read_head(stream)
            if head is not None:
                seen.append({**head.headers, "target": head.target})
                link.sendall(written(status, {}, body, keeps_alive=False))

    return Listening(serve)


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"up 1\n", ""),
        (401, b"", "wants a token: give --admin-token-file"),
        (403, b"", "wants a token"),
        (404, b"", "answered 404; is it the admin listener's /metrics"),
        (200, b"\xff", "something else than text"),
    ],
)
def test_a_page_is_fetched_with_the_token_or_it_is_said_why_not(status: int, body: bytes, said: str) -> None:
    """The admin listener answers strangers with 401, and that is told from a wrong path."""
    seen: list[dict[str, str]] = []
    there = answering(status, body, seen)
    there.listen()
    try:
        url = f"http://127.0.0.1:{there.port}"
        if said:
            with pytest.raises(ScrapeError, match=said):
                fetch(url, token="secret")
        else:
            assert "up 1\n" == fetch(url, token="secret")
            assert "up 1\n" == fetch(f"{url}/metrics?x=1", token="")
            assert ["/metrics", "/metrics?x=1"] == [head["target"] for head in seen]
            assert ["Bearer secret", None] == [head.get("authorization") for head in seen]
    finally:
        there.close()


@pytest.mark.parametrize("url", ["host:8081/metrics", "ftp://h/metrics", "http://", "http://h:x/metrics"])
def test_a_url_that_is_none_is_told(url: str) -> None:
    """Before anything is asked."""
    with pytest.raises(ScrapeError, match=r"is no URL of metrics|can't be asked"):
        fetch(url, token="")


def test_a_task_that_does_not_answer_is_named() -> None:
    """Of twenty URLs one may be wrong."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ScrapeError, match=rf"http://127.0.0.1:{port}/metrics does not answer: .*refused"):
        fetch(f"http://127.0.0.1:{port}/metrics", token="")

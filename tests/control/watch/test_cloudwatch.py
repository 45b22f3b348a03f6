"""Reading CloudWatch: what is asked, what of its answers counts, and what is said when it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from collector.control.watch.cloudwatch import MINUTES_KEPT, MOST_POINTS, chunks, processed_bytes, read, stat_of
from collector.control.watch.series import DAY, Metric, moment_of, parse_minute
from collector.errors import CannotLook
from tests.standins import sdk
from tests.standins.shared import started_moto

NAME = "app/hec/50dc6c495c0c9188"
METRIC = processed_bytes(NAME)
SENT = Metric("Collector", "Sent", (("Service", "a"),))
NOW = parse_minute("2026-01-20T12:00Z")
START, END = NOW - 10, NOW


@pytest.fixture(name="stub")
def _stub() -> Iterator[tuple[Any, Stubber]]:
    """Give a client whose calls and answers the model of the service has to allow, and that reaches nobody."""
    client = sdk.client("cloudwatch", 9)
    with Stubber(client) as stubber:
        yield client, stubber
        stubber.assert_no_pending_responses()


def result(name: str, points: dict[int, float], *, code: str = "Complete", **more: Any) -> dict[str, Any]:
    return {
        "Id": name, "Label": name, "StatusCode": code, "Timestamps": [moment_of(one) for one in points],
        "Values": list(points.values()), **more,
    }  # fmt: skip


def wanted(metrics: list[Metric], **more: Any) -> dict[str, Any]:
    return {
        "MetricDataQueries": [
            {"Id": f"m{n}", "MetricStat": stat_of(one, 60), "ReturnData": True} for n, one in enumerate(metrics)
        ],
        "StartTime": moment_of(START), "EndTime": moment_of(END), "ScanBy": "TimestampAscending",
        "MaxDatapoints": MOST_POINTS, **more,
    }  # fmt: skip


def test_what_is_asked_is_the_sum_of_each_minute_of_the_load_balancer(stub: tuple[Any, Stubber]) -> None:
    """The end is no part of the time, and the dimensions have to be all of them."""
    client, stubber = stub
    stubber.add_response(
        "get_metric_data", {"MetricDataResults": [result("m0", {START: 7.0, END - 1: 9.0})]}, wanted([METRIC])
    )
    found = read(client, [METRIC], start=START, end=END, now=NOW)

    assert [{START: 7.0, END - 1: 9.0}] == found.points
    assert ("AWS/ApplicationELB", "ProcessedBytes", (("LoadBalancer", NAME),)) == (
        METRIC.namespace, METRIC.name, METRIC.dimensions,
    )  # fmt: skip
    assert "AWS/NetworkELB" == processed_bytes("net/hec/50dc6c495c0c9188").namespace


def test_pages_are_put_together_and_the_last_word_on_a_metric_counts(stub: tuple[Any, Stubber]) -> None:
    """A first page is PartialData by nature; to stop there would make zeros of what comes after."""
    client, stubber = stub
    both = [METRIC, SENT]
    first = {
        "MetricDataResults": [result("m0", {START: 1.0}, code="PartialData"), result("m1", {START: 5.0})],
        "NextToken": "more", "Messages": [{"Code": "MaxMetricsExceeded", "Value": "a word"}],
    }  # fmt: skip
    stubber.add_response("get_metric_data", first, wanted(both))
    stubber.add_response(
        "get_metric_data", {"MetricDataResults": [result("m0", {START + 1: 2.0})]}, wanted(both, NextToken="more")
    )
    found = read(client, both, start=START, end=END, now=NOW)

    assert [{START: 1.0, START + 1: 2.0}, {START: 5.0}] == found.points
    assert ["MaxMetricsExceeded: a word"] == found.messages


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("PartialData", "not to be taken for zeros"),
        ("InternalError", "look again in a minute"),
        ("Forbidden", "cloudwatch:GetMetricData"),
    ],
)
def test_a_metric_that_was_not_read_whole_is_no_zeros(stub: tuple[Any, Stubber], code: str, said: str) -> None:
    """What is missing would be judged as an outage."""
    client, stubber = stub
    messages = [{"Code": "ArithmeticError", "Value": "why"}]
    answer = {"MetricDataResults": [result("m0", {START: 1.0}, code=code, Messages=messages)]}
    stubber.add_response("get_metric_data", answer)

    with pytest.raises(CannotLook, match=f"AWS/ApplicationELB/ProcessedBytes.*{code}.*ArithmeticError: why.*{said}"):
        read(client, [METRIC], start=START, end=END, now=NOW)


def test_a_metric_that_is_not_in_the_answer_was_not_read(stub: tuple[Any, Stubber]) -> None:
    """An answer to another question has no zeros for this one."""
    client, stubber = stub
    stubber.add_response("get_metric_data", {"MetricDataResults": [result("m0", {START: 1.0})]})

    with pytest.raises(CannotLook, match="Collector/Sent,Service=a: InternalError"):
        read(client, [METRIC, SENT], start=START, end=END, now=NOW)


def test_pages_without_an_end_are_told(stub: tuple[Any, Stubber]) -> None:
    """A watch that hangs says as little as one that was never started."""
    client, stubber = stub
    for _ in range(2):
        stubber.add_response("get_metric_data", {"MetricDataResults": [], "NextToken": "same"})

    with pytest.raises(CannotLook, match="without an end"):
        read(client, [METRIC], start=START, end=END, now=NOW)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("AccessDenied", "the role needs cloudwatch:GetMetricData: docs/watch.md"),
        ("ThrottlingException", "look again in a minute"),
        ("InvalidParameterCombination", "$"),
    ],
)
def test_what_aws_refuses_is_told_with_what_to_do(stub: tuple[Any, Stubber], code: str, said: str) -> None:
    """No batch waits here, as the words for sinks say."""
    client, stubber = stub
    stubber.add_client_error("get_metric_data", code, "hm.", 400)

    with pytest.raises(CannotLook, match=f"^cloudwatch: get_metric_data: {code}: hm.*{said}") as raised:
        read(client, [METRIC], start=START, end=END, now=NOW)
    assert "batch" not in str(raised.value)


def test_a_point_of_five_minutes_is_shared_among_them(stub: tuple[Any, Stubber]) -> None:
    """CloudWatch puts minutes together after 15 days, and windows are of five."""
    client, stubber = stub
    old = NOW - 20 * DAY
    stubber.add_response("get_metric_data", {"MetricDataResults": [result("m0", {old: 50.0})]})
    found = read(client, [METRIC], start=old, end=old + 10, now=NOW)

    assert [dict.fromkeys(range(old, old + 5), 10.0)] == found.points


@given(
    st.integers(0, 100_000), st.integers(1, 63 * DAY), st.integers(-5000, 100_000), st.integers(1, 500),
)  # fmt: skip
def test_whatever_the_time_it_is_asked_for_whole_once_and_in_calls_that_are_allowed(
    start: int, length: int, kept_from: int, queries: int
) -> None:
    """A minute asked for twice is sent twice; one left out is an outage."""
    parts = list(chunks(start, start + length, kept_from=kept_from, queries=queries))

    assert start - start % 5 <= parts[0][0] <= start
    assert start + length == parts[-1][1]
    assert all(before[1] == after[0] for before, after in pairwise(parts))
    for first, last, minutes in parts:
        assert queries * -(-(last - first) // minutes) <= MOST_POINTS
        assert minutes == 1 or (first % 5 == 0 and first < kept_from)
        assert minutes == 1 or last % 5 == 0 or last == start + length
        assert minutes == 5 or first >= min(kept_from, start + length)


@pytest.mark.parametrize(
    "name", ["", "hec", "app/hec", "gwy/hec/50dc6c495c0c9188", "app/hec/50dc6c495c0c9188/", "app/h c/50dc6c495c0c9188"]
)
def test_what_names_no_load_balancer_is_refused_with_an_example(name: str) -> None:
    """CloudWatch knows no such thing as a wrong name: it has no data of it."""
    with pytest.raises(CannotLook, match="app/hec/50dc6c495c0c9188"):
        processed_bytes(name)


def test_a_load_balancer_is_known_by_its_arn(stub: tuple[Any, Stubber]) -> None:
    """It is what the console lets one copy."""
    assert METRIC == processed_bytes(f"arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/{NAME}")


def test_what_a_server_holds_is_read_as_it_was_put() -> None:
    """The stub knows the shapes; only a server knows what a minute is."""
    client = sdk.client("cloudwatch", started_moto().port)
    now = int(datetime.now(UTC).timestamp()) // 60
    metric = Metric("Watched", "Bytes", (("LoadBalancer", NAME),))
    for minute, amounts in ((now - 30, (1.0, 2.0)), (now - 28, (4.0,)), (now - 20, (8.0,))):
        for amount in amounts:
            client.put_metric_data(
                Namespace=metric.namespace,
                MetricData=[{
                    "MetricName": metric.name, "Value": amount, "Timestamp": moment_of(minute),
                    "Dimensions": [{"Name": "LoadBalancer", "Value": NAME}],
                }],
            )  # fmt: skip
    found = read(client, [metric], start=now - 30, end=now - 20, now=now)

    assert {now - 30: 3.0, now - 28: 4.0} == {minute: value for minute, value in found.points[0].items() if value}
    assert MINUTES_KEPT < 15 * DAY

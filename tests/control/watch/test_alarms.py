"""Installing: what the service's own model allows, what is there afterwards, and that all of it goes away again."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator

from collector.control.watch.alarms import NOT_OURS, PREFIX, Wanted, detector
from collector.control.watch.cloudwatch import processed_bytes
from collector.control.watch.installing import Step, calls, carry_out, plan, plan_away
from collector.control.watch.series import Metric
from collector.errors import CannotLook
from tests.standins import sdk
from tests.standins.shared import started_moto

TOPIC = "arn:aws:sns:us-east-1:123456789012:hec"
SENT = Metric("Collector", "Sent", (("Service", "a"),))
_NUMBERS = itertools.count(1)


class Cloud:
    """
    CloudWatch: alarms as moto keeps them, and anomaly detectors, which moto has not, kept here.

    Whatever is asked for is held to the model of the service.
    """

    def __init__(self) -> None:
        self._moto = sdk.client("cloudwatch", started_moto().port)
        self.detectors: list[dict[str, Any]] = []
        self.done: list[str] = []
        self.refuses = ""

    def __getattr__(self, operation: str) -> Callable[..., dict[str, Any]]:
        def call(**arguments: Any) -> dict[str, Any]:
            name = "".join(word.capitalize() for word in operation.split("_"))
            model = self._moto.meta.service_model.operation_model(name)
            report = ParamValidator().validate(arguments, model.input_shape)
            assert not report.has_errors(), report.generate_report()
            if operation == self.refuses:
                raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, name)
            if not operation.startswith("describe"):
                self.done.append(operation)
            mine = getattr(type(self), f"_{operation}", None)
            answer: dict[str, Any] = mine(self, **arguments) if mine else getattr(self._moto, operation)(**arguments)
            return answer

        return call

    def _put_anomaly_detector(self, **arguments: Any) -> dict[str, Any]:
        self.detectors.append({**arguments, "StateValue": "PENDING_TRAINING"})
        return {}

    def _delete_anomaly_detector(self, SingleMetricAnomalyDetector: dict[str, Any]) -> dict[str, Any]:  # noqa: N803
        self.detectors = [
            one for one in self.detectors if one["SingleMetricAnomalyDetector"] != SingleMetricAnomalyDetector
        ]
        return {}

    def _describe_anomaly_detectors(self, **_: Any) -> dict[str, Any]:
        return {"AnomalyDetectors": self.detectors}

    def alarms(self) -> dict[str, dict[str, Any]]:
        """Return all alarms that are there, by name."""
        return {one["AlarmName"]: one for one in self._moto.describe_alarms(MaxRecords=100)["MetricAlarms"]}

    def put_other(self, name: str) -> None:
        """Put an alarm of somebody else's."""
        self._moto.put_metric_alarm(
            AlarmName=name, MetricName="m", Namespace="n", Statistic="Sum", Period=60, EvaluationPeriods=1,
            Threshold=1.0, ComparisonOperator="GreaterThanThreshold",
        )  # fmt: skip

    def close(self) -> None:
        """Hold nothing."""


def a_load_balancer() -> Metric:
    return processed_bytes(f"app/hec/{next(_NUMBERS):016x}")


def install(cloud: Cloud, wanted: Wanted) -> list[Step]:
    steps = plan(cloud, wanted)
    carry_out(cloud, steps)
    return steps


def uninstall(cloud: Cloud, metric: Metric) -> list[Step]:
    steps = plan_away(cloud, metric)
    carry_out(cloud, steps)
    return steps


def ours(cloud: Cloud, metric: Metric) -> dict[str, dict[str, Any]]:
    """Return the alarms of a load balancer by their middle word."""
    end = metric.dimensions[0][1].replace("/", ".")
    return {
        name.split("-")[2]: alarm
        for name, alarm in cloud.alarms().items()
        if name.startswith(PREFIX) and name.endswith(end)
    }


def test_what_is_installed_is_a_detector_and_an_alarm_for_each_thing_that_can_be_seen() -> None:
    """Between two looks it is CloudWatch that looks."""
    cloud, metric = Cloud(), a_load_balancer()
    steps = install(cloud, Wanted(metric, TOPIC, SENT, ratio=1.031))
    found = ours(cloud, metric)

    assert ["put_anomaly_detector", *["put_metric_alarm"] * 3] == cloud.done
    assert ["not there"] * 4 == [one.before for one in steps]
    assert [detector(metric)] == [{k: v for k, v in one.items() if k != "StateValue"} for one in cloud.detectors]
    assert {"band", "zero", "ratio"} == set(found)
    assert all([TOPIC] == one["AlarmActions"] == one["OKActions"] and one["ActionsEnabled"] for one in found.values())
    band, zero, ratio = found["band"], found["zero"], found["ratio"]
    assert ("band", "LessThanLowerOrGreaterThanUpperThreshold", "breaching") == (
        band["ThresholdMetricId"], band["ComparisonOperator"], band["TreatMissingData"],
    )  # fmt: skip
    assert "ANOMALY_DETECTION_BAND(m1, 3)" in [one.get("Expression") for one in band["Metrics"]]
    assert ("ProcessedBytes", 60, 0.0, "breaching", "LessThanOrEqualToThreshold") == (
        zero["MetricName"], zero["Period"], zero["Threshold"], zero["TreatMissingData"], zero["ComparisonOperator"],
    )  # fmt: skip
    assert "100 * ABS(FILL(m1, 0) / (sent * 1.031) - 1)" in [one.get("Expression") for one in ratio["Metrics"]]


def test_to_install_twice_is_to_install_once() -> None:
    """It is in somebody's deploy, and runs with each."""
    cloud, metric = Cloud(), a_load_balancer()
    install(cloud, Wanted(metric, TOPIC, SENT))
    cloud.done.clear()
    again = install(cloud, Wanted(metric, TOPIC, SENT))

    assert [] == cloud.done
    assert {"as it was"} == {one.after for one in again}


def test_what_has_changed_is_shown_and_put_alone() -> None:
    """Before and after are what somebody approves."""
    cloud, metric = Cloud(), a_load_balancer()
    install(cloud, Wanted(metric, "", SENT, ratio=1.03))
    cloud.done.clear()
    steps = {
        one.name.split("-")[2]: one for one in install(cloud, Wanted(metric, "", SENT, ratio=1.05)) if "-" in one.name
    }

    assert ["put_metric_alarm"] == cloud.done
    assert "as it was" == steps["band"].after == steps["zero"].after
    assert "1.03" in steps["ratio"].before
    assert "1.05" in steps["ratio"].after


def test_without_a_metric_of_what_was_sent_an_alarm_on_the_ratio_is_left_alone() -> None:
    """To forget an option must not take an alarm away."""
    cloud, metric = Cloud(), a_load_balancer()
    install(cloud, Wanted(metric, "", SENT))
    install(cloud, Wanted(metric))

    assert {"band", "zero", "ratio"} == set(ours(cloud, metric))
    uninstall(cloud, metric)
    assert {} == ours(cloud, metric)


def test_what_was_put_is_taken_away_and_nothing_else() -> None:
    """Somebody else's alarms have names that begin the same."""
    cloud, metric, other = Cloud(), a_load_balancer(), a_load_balancer()
    install(cloud, Wanted(metric, "", SENT))
    install(cloud, Wanted(other))
    cloud.put_other(f"{PREFIX}-band-app.hec.mine")
    before = set(cloud.alarms())
    steps = uninstall(cloud, metric)

    assert ["taken away"] * 4 == [one.after for one in steps]
    assert {f"{PREFIX}-{one}-{metric.dimensions[0][1].replace('/', '.')}" for one in ("band", "zero", "ratio")} == (
        before - set(cloud.alarms())
    )
    assert [detector(other)["SingleMetricAnomalyDetector"]] == [
        one["SingleMetricAnomalyDetector"] for one in cloud.detectors
    ]
    assert {"not there"} == {one.after for one in uninstall(cloud, metric)}


def test_a_detector_that_was_there_before_stays() -> None:
    """It has learned for weeks what somebody else's alarm goes by."""
    cloud, metric = Cloud(), a_load_balancer()
    cloud.put_anomaly_detector(**detector(metric))
    install(cloud, Wanted(metric))
    install(cloud, Wanted(metric))

    assert ours(cloud, metric)["band"]["AlarmDescription"].endswith(NOT_OURS)
    assert 1 == len(cloud.detectors)
    uninstall(cloud, metric)
    assert 1 == len(cloud.detectors)


def test_a_detector_of_another_statistic_is_another_detector() -> None:
    """A band on averages is not the one that the alarm goes by."""
    cloud, metric = Cloud(), a_load_balancer()
    single = {**detector(metric)["SingleMetricAnomalyDetector"], "Stat": "Average"}
    cloud.put_anomaly_detector(SingleMetricAnomalyDetector=single)
    install(cloud, Wanted(metric))

    assert 2 == len(cloud.detectors)


def test_what_is_refused_half_way_says_what_was_done() -> None:
    """Whoever reads it has to know whether there is anything to take back."""
    cloud, metric = Cloud(), a_load_balancer()
    cloud.refuses = "put_metric_alarm"

    with pytest.raises(CannotLook, match=r"cloudwatch:PutMetricAlarm.*done before that: anomaly detector"):
        install(cloud, Wanted(metric))
    cloud.refuses = "describe_alarms"
    with pytest.raises(CannotLook, match="cloudwatch:DescribeAlarms"):
        install(cloud, Wanted(metric))


def test_a_dry_run_prints_what_a_first_installation_calls() -> None:
    """Else it is a promise of something else."""
    cloud, wanted = Cloud(), Wanted(a_load_balancer(), TOPIC, SENT)

    assert calls(wanted) == [one.call for one in plan(cloud, wanted)]


@pytest.mark.parametrize("topic", ["hec", "arn:aws:sns:eu-west-1:1:hec", "arn:aws:sqs:us-east-1:123456789012:hec"])
def test_what_is_no_topic_is_refused(topic: str) -> None:
    """An alarm with an action that is none tells nobody, at night."""
    with pytest.raises(CannotLook, match="--sns-topic"):
        calls(Wanted(a_load_balancer(), topic))

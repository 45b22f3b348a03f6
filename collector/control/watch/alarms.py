"""
The alarms of CloudWatch that see, between two looks, what is coarse enough for them; and the band that one goes by.

Their names follow from the load balancer's, so that to install them twice is to install them once. An alarm on a band
can't have actions of Auto Scaling; that is why actions are a topic of SNS and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from collector.control.watch.cloudwatch import named, stat_of
from collector.control.watch.series import Metric
from collector.errors import CannotLook

PREFIX = "collector-watch"
#: Of what installing an alarm says, what is compared with what is there.
COMPARED = (
    "AlarmDescription", "ActionsEnabled", "AlarmActions", "OKActions", "Namespace", "MetricName", "Dimensions",
    "Statistic", "Period", "EvaluationPeriods", "DatapointsToAlarm", "Threshold", "ComparisonOperator",
    "TreatMissingData", "Metrics", "ThresholdMetricId",
)  # fmt: skip
#: What the band alarm says of a detector that was there before it, and is not taken away with it.
NOT_OURS = "The anomaly detector was there before, and stays."
_TOPIC = re.compile(r"arn:[a-z0-9-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?")
#: Standard deviations of the band, and five minutes three times in a row. Choices.
_BAND, _FIVE_S, _TIMES = 3, 300, 3
#: So many minutes without a byte in a row. Nothing is reported of such a minute, hence `breaching`.
_EMPTY_MINUTES = 10


class Call(msgspec.Struct, frozen=True):
    """A call of CloudWatch."""

    operation: str
    arguments: Mapping[str, Any]


class Wanted(msgspec.Struct, frozen=True):
    """
    What is to be installed of a load balancer: its metric, where alarms go, and what the tasks sent, if that is one.

    `ratio` is what is normally processed of a byte that is sent, `off_percent` from how far off it is an alarm.
    """

    processed: Metric
    topic: str = ""
    sent: Metric | None = None
    ratio: float = 1.03
    off_percent: float = 5.0

    def check(self) -> None:
        """Raise `CannotLook` for what CloudWatch would refuse later, or never do."""
        if self.topic and not _TOPIC.fullmatch(self.topic):
            raise CannotLook(
                f"--sns-topic {self.topic!r} is no topic: write its ARN, such as arn:aws:sns:eu-west-1:123456789012:hec"
            )


def name_of(processed: Metric, what: str) -> str:
    """Return the name of an alarm: `what` is `band`, `zero` or `ratio`."""
    return f"{PREFIX}-{what}-{processed.dimensions[0][1].replace('/', '.')}"


def names_of(processed: Metric) -> list[str]:
    """Return the names of all alarms that may have been installed."""
    return [name_of(processed, what) for what in ("band", "zero", "ratio")]


def detector(processed: Metric) -> dict[str, Any]:
    """Return the anomaly detector, as CloudWatch names one."""
    return {"SingleMetricAnomalyDetector": {**named(processed), "Stat": "Sum"}}


def alarms(wanted: Wanted, *, is_detector_ours: bool) -> list[Call]:
    """Return the calls that put the alarms."""
    puts = [_band(wanted, is_detector_ours=is_detector_ours), _zero(wanted)]
    puts += [_ratio(wanted, wanted.sent)] if wanted.sent else []
    return [Call("put_metric_alarm", one) for one in puts]


def _band(wanted: Wanted, *, is_detector_ours: bool) -> dict[str, Any]:
    return {
        **_common(
            wanted, "band",
            "ProcessedBytes left the band that CloudWatch expects. Look with: collector watch processed-bytes. "
            + ("" if is_detector_ours else NOT_OURS),
        ),
        "Metrics": [
            {"Id": "m1", "MetricStat": stat_of(wanted.processed, _FIVE_S), "ReturnData": True},
            {"Id": "band", "Expression": f"ANOMALY_DETECTION_BAND(m1, {_BAND})", "ReturnData": True},
        ],
        "ThresholdMetricId": "band",
        "ComparisonOperator": "LessThanLowerOrGreaterThanUpperThreshold",
        "EvaluationPeriods": _TIMES,
        "DatapointsToAlarm": _TIMES,
        "TreatMissingData": "breaching",
    }  # fmt: skip


def _zero(wanted: Wanted) -> dict[str, Any]:
    return {
        **_common(wanted, "zero", f"No byte was processed for {_EMPTY_MINUTES} minutes."),
        **named(wanted.processed),
        "Statistic": "Sum",
        "Period": 60,
        "EvaluationPeriods": _EMPTY_MINUTES,
        "DatapointsToAlarm": _EMPTY_MINUTES,
        "Threshold": 0.0,
        "ComparisonOperator": "LessThanOrEqualToThreshold",
        "TreatMissingData": "breaching",
    }


def _ratio(wanted: Wanted, sent: Metric) -> dict[str, Any]:
    usual = f"{wanted.ratio:g}"
    return {
        **_common(
            wanted, "ratio",
            f"Processed / sent is {wanted.off_percent:g} % or more from {usual}: what the tasks send does not come "
            "through, or others send.",
        ),
        "Metrics": [
            {"Id": "m1", "MetricStat": stat_of(wanted.processed, _FIVE_S), "ReturnData": False},
            {"Id": "sent", "MetricStat": stat_of(sent, _FIVE_S), "ReturnData": False},
            {
                "Id": "off", "Label": "percent off", "ReturnData": True,
                "Expression": f"100 * ABS(FILL(m1, 0) / (sent * {usual}) - 1)",
            },
        ],
        "Threshold": wanted.off_percent,
        "ComparisonOperator": "GreaterThanOrEqualToThreshold",
        "EvaluationPeriods": _TIMES,
        "DatapointsToAlarm": _TIMES,
        # While the tasks say nothing there is no ratio: that is no alarm of this one.
        "TreatMissingData": "missing",
    }  # fmt: skip


def _common(wanted: Wanted, what: str, words: str) -> dict[str, Any]:
    actions = [wanted.topic] if wanted.topic else []
    return {
        "AlarmName": name_of(wanted.processed, what),
        "AlarmDescription": words.strip(),
        "ActionsEnabled": bool(actions),
        "AlarmActions": actions,
        "OKActions": actions,
    }

"""
Puts the alarms of a load balancer where they are not, or not as they are to be, and takes them away again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from collector import aws
from collector.control.watch.alarms import COMPARED, NOT_OURS, Call, Wanted, alarms, detector, name_of, names_of
from collector.control.watch.asking import ask
from collector.control.watch.series import Metric
from collector.errors import CannotLook

_DETECTOR = "anomaly detector"
#: A load balancer's metric has one detector of a kind; more pages than this are no answer.
_MOST_PAGES = 100


class Step(msgspec.Struct, frozen=True):
    """What is done to one thing: what it is called, how it was, how it is then, and the call, if it takes one."""

    name: str
    before: str
    after: str
    call: Call | None


def calls(wanted: Wanted) -> list[Call]:
    """Return the calls of an installation where nothing is there yet."""
    wanted.check()
    return [Call("put_anomaly_detector", detector(wanted.processed)), *alarms(wanted, is_detector_ours=True)]


def plan(client: aws.Client, wanted: Wanted) -> list[Step]:
    """Look at what is there, and say what is to be done; raises `CannotLook`."""
    wanted.check()
    there, is_there = _alarms(client, wanted.processed), _has_detector(client, wanted.processed)
    band = there.get(name_of(wanted.processed, "band"))
    # Whose it is, the band alarm remembers: a detector has no room for a word.
    is_ours = NOT_OURS not in str(band.get("AlarmDescription")) if band else not is_there
    steps = [
        Step(_DETECTOR, "there", "as it was", None)
        if is_there
        else Step(_DETECTOR, "not there", "put", Call("put_anomaly_detector", detector(wanted.processed)))
    ]
    for call in alarms(wanted, is_detector_ours=is_ours or not is_there):
        name = call.arguments["AlarmName"]
        before = there.pop(name, None)
        if before is None:
            steps.append(Step(name, "not there", "put", call))
            continue
        changed = [key for key in COMPARED if _plain(before.get(key)) != _plain(call.arguments.get(key))]
        if changed:
            was = ", ".join(f"{key} {_plain(before.get(key))!r}" for key in changed)
            now = ", ".join(f"{key} {_plain(call.arguments.get(key))!r}" for key in changed)
            steps.append(Step(name, was, now, call))
        else:
            steps.append(Step(name, "there", "as it was", None))
    # The alarm on the ratio, where this time no metric of what was sent was named.
    steps += [Step(name, "there", "as it was", None) for name in there]
    return steps


def plan_away(client: aws.Client, processed: Metric) -> list[Step]:
    """Say what is to be taken away: what an installation has put, and is still there; raises `CannotLook`."""
    there = _alarms(client, processed)
    steps = [
        Step(name, "there", "taken away", Call("delete_alarms", {"AlarmNames": [name]}))
        if name in there
        else Step(name, "not there", "not there", None)
        for name in names_of(processed)
    ]
    band = there.get(name_of(processed, "band"))
    if not _has_detector(client, processed):
        return [*steps, Step(_DETECTOR, "not there", "not there", None)]
    if band is None or NOT_OURS in str(band.get("AlarmDescription")):
        return [*steps, Step(_DETECTOR, "there, and not known to be ours", "as it was", None)]
    # After its alarm: that can't be without one.
    return [*steps, Step(_DETECTOR, "there", "taken away", Call("delete_anomaly_detector", detector(processed)))]


def carry_out(client: aws.Client, steps: Sequence[Step]) -> None:
    """Do what is to be done, in order; raises `CannotLook` at the first that is refused, and says what was done."""
    done: list[str] = []
    for step in steps:
        if step.call is None:
            continue
        try:
            ask(step.call.operation, getattr(client, step.call.operation), **step.call.arguments)
        except CannotLook as error:
            before = f"; done before that: {', '.join(done)}" if done else "; nothing was changed"
            raise CannotLook(f"{error}{before}; the same command goes on from there") from error
        done.append(step.name)


def _alarms(client: aws.Client, processed: Metric) -> dict[str, dict[str, Any]]:
    answer = ask("describe_alarms", client.describe_alarms, AlarmNames=names_of(processed), AlarmTypes=["MetricAlarm"])
    return {one["AlarmName"]: one for one in answer.get("MetricAlarms", ())}


def _has_detector(client: aws.Client, processed: Metric) -> bool:
    wanted = detector(processed)["SingleMetricAnomalyDetector"]
    asked = {name: wanted[name] for name in ("Namespace", "MetricName", "Dimensions")}
    more: dict[str, str] = {}
    for _ in range(_MOST_PAGES):
        answer = ask(
            "describe_anomaly_detectors", client.describe_anomaly_detectors,
            AnomalyDetectorTypes=["SINGLE_METRIC"], **asked, **more,
        )  # fmt: skip
        for one in answer.get("AnomalyDetectors", ()):
            single = one.get("SingleMetricAnomalyDetector") or one
            if all(_plain(single.get(key)) == _plain(value) for key, value in wanted.items()):
                return True
        if not answer.get("NextToken"):
            return False
        more = {"NextToken": answer["NextToken"]}
    raise CannotLook("cloudwatch: describe_anomaly_detectors: it goes on without an end; try again in a minute")


def _plain(value: object) -> object:
    """Make two ways to say the same equal: an empty list and nothing, defaults that are filled in, orders of pairs."""
    if isinstance(value, dict):
        told = {key: _plain(one) for key, one in sorted(value.items())}
        return {key: one for key, one in told.items() if one is not None and one is not True}
    if isinstance(value, list | tuple):
        listed = [_plain(one) for one in value]
        return sorted(listed, key=str) if listed else None
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

"""
What Collector's log lines hold, for whoever reads searches: out of the catalogue of signals, and nowhere else.
"""

from __future__ import annotations

import inspect
from functools import cache

from collector.outcome import Outcome, Reason
from collector.telemetry.catalogue import SIGNALS
from collector.telemetry.hec.buffer import Drop
from collector.telemetry.hec.options import SOURCETYPE
from collector.telemetry.signals import Signals
from dashboards.spl.state import Schema, Source

#: What every line has, whatever its signal.
COMMON = frozenset({"ts", "level", "event", "boot", "seq", "pid"})
#: Lines that are not of the catalogue: gunicorn's own, in our form.
_GUNICORN = frozenset({"message"})
_FLAG = frozenset({"true", "false"})
_LEVELS = frozenset({"debug", "info", "warning", "error"})

#: What Splunk says of its own HTTP Event Collector, as its documentation names it: not ours to check.
_HEC_METRICS = frozenset({"data.series", "data.token_name", "data.num_of_events", "data.num_of_errors"})
_SPLUNKD = frozenset({"component", "log_level", "event_message"})


def _fields(name: str) -> frozenset[str]:
    """Return the fields of a signal as Splunk calls them: of a list with {} behind its name."""
    signal = SIGNALS[name]
    annotations = inspect.get_annotations(getattr(Signals, signal.method))
    lists = {field for field, kind in annotations.items() if str(kind).startswith("list[")}
    # owner is bound to the lines of workers; a signal that has it of its own has it anyway.
    return frozenset({"owner", *(f"{field}{{}}" if field in lists else field for field in signal.fields)})


@cache
def schema() -> Schema:
    """Return what can be searched for in an index that Collector's lines come to."""
    # One without a level has no line.
    spoken = [name for name, signal in SIGNALS.items() if signal.levels]
    lines = Source(
        common=COMMON,
        signals={**{name: _fields(name) for name in spoken}, "gunicorn": _GUNICORN},
        levels={**{name: frozenset(SIGNALS[name].levels) for name in spoken}, "gunicorn": _LEVELS},
    )
    return Schema(
        sources={
            SOURCETYPE: lines,
            "http_event_collector_metrics": Source(common=_HEC_METRICS),
            "splunkd": Source(common=_SPLUNKD),
        },
        values={
            "level": _LEVELS,
            "outcome": frozenset(Outcome),
            "reason": frozenset(Reason) | frozenset(Drop),
            "scope": frozenset({"worker", "task"}),
            **dict.fromkeys(("balanced", "killed", "parked", "spool_refusing"), _FLAG),
            "event": frozenset(lines.signals),
        },
    )

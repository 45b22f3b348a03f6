"""
Every metric and every signal that Collector has, declared: what operators, dashboards and alarms may build on.
"""

from __future__ import annotations

from collector.telemetry.catalogue.kinds import SPAN, Kind, Labels, Metric, Signal
from collector.telemetry.catalogue.metrics import METRICS
from collector.telemetry.catalogue.signals import SIGNALS

__all__ = ["METRICS", "SIGNALS", "SPAN", "Kind", "Labels", "Metric", "Signal"]

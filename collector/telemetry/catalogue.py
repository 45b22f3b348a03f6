"""
Every metric and every signal that Collector has, declared: what operators, dashboards and alarms may build on.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

Labels = tuple[str, ...]


class Kind(StrEnum):
    """What a metric is, and of a gauge also how the values of several workers become one."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE_SUM = "gauge, summed over workers"
    GAUGE_MAX = "gauge, the highest of all workers"
    GAUGE_EACH = "gauge of each worker, labelled with it"


class Metric(msgspec.Struct, frozen=True):
    """One declared metric. The unit is in its name; `bounds` are the upper bounds of a histogram's buckets."""

    name: str
    kind: Kind
    help: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()

    @property
    def series_labels(self) -> Labels:
        """Name the labels that its series carry in a snapshot and on the page."""
        return (*self.labels, "worker") if self.kind is Kind.GAUGE_EACH else self.labels


# In seconds. A request takes 50 µs to some ms; 20 s is the deadline of a body. A batch takes as long as a store does.
_REQUEST_S = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_BATCH_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_C, _H, _SUM, _MAX, _EACH = Kind.COUNTER, Kind.HISTOGRAM, Kind.GAUGE_SUM, Kind.GAUGE_MAX, Kind.GAUGE_EACH
_TP = ("tenant", "protocol")
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("collector_uploads_total", _C, "Uploads answered as taken, whole or in part.", _TP),
        Metric("collector_upload_events_total", _C, "Events of uploads that were taken.", _TP),
        Metric("collector_upload_bytes_total", _C, "Bytes of events that were taken, as kept in the spool.", _TP),
        Metric("collector_uploads_refused_total", _C, "Uploads refused; the device keeps them.", (*_TP, "reason")),
        Metric("collector_uploads_unconfirmed_total", _C, "Uploads whose sink did not confirm in time.", _TP),
        Metric("collector_events_rejected_total", _C, "Events refused in uploads that were taken.", (*_TP, "reason")),
        Metric("collector_request_seconds", _H, "Time from head to answer of an upload.", ("protocol",), _REQUEST_S),
        Metric("collector_batches_delivered_total", _C, "Batches that a sink confirmed.", ("route",)),
        Metric("collector_batch_events_total", _C, "Events of batches that a sink confirmed.", ("route",)),
        Metric("collector_batch_bytes_total", _C, "Bytes of batches that a sink confirmed.", ("route",)),
        Metric("collector_batch_seconds", _H, "Time that a sink took to confirm a batch.", ("route",), _BATCH_S),
        Metric("collector_batch_failures_total", _C, "Batches that went back to be tried again.", ("route",)),
        Metric("collector_events_lost_total", _C, "Taken events that do not arrive.", ("tenant", "outcome", "reason")),
        Metric("collector_spool_bytes", _SUM, "Bytes held in the spool."),
        Metric("collector_spool_budget_bytes", _SUM, "Bytes that the spool may hold."),
        Metric("collector_spool_refusing", _SUM, "Workers that refuse uploads because their spool can't take them."),
        Metric("collector_segments_adopted_total", _C, "Segments taken over from workers that died."),
        Metric("collector_frames_corrupt_total", _C, "Frames in the spool whose checksum did not match."),
        Metric("collector_tails_cut_total", _C, "Torn ends of segments, never acknowledged, that were cut off."),
        Metric("collector_ledger_imbalances_total", _C, "Times that a ledger did not balance: defects."),
        Metric("collector_tenants", _MAX, "Tenants loaded."),
        Metric("collector_tenants_reloads_total", _C, "Loads of the tenants.", ("result",)),
        Metric("collector_worker_start_time_seconds", _EACH, "Unix time of the worker's start."),
        Metric("collector_worker_resident_memory_bytes", _EACH, "Resident memory of the worker."),
        Metric("collector_worker_stops_total", _C, "Workers that stopped and said so.", ("clean",)),
        Metric("collector_drains_total", _C, "Drains, by whether events were left behind.", ("complete",)),
        Metric("collector_internal_errors_total", _C, "Errors that nobody expected.", ("where",)),
        Metric("collector_log_lines_lost_total", _C, "Log lines that stdout did not take."),
        Metric("collector_log_keys_folded_total", _C, "Signals logged together, there being too many kinds."),
        Metric("collector_metric_series_folded_total", _C, "Counts made under no own labels, there being too many."),
    )
}  # fmt: skip

#: The fields of a line that stands for several occurrences.
SPAN = ("count", "first", "last")


class Signal(msgspec.Struct, frozen=True):
    """One declared signal. `name` is the line's `event`, and with `_` the method's name; no level, no line."""

    name: str
    levels: tuple[str, ...]
    metrics: tuple[str, ...]
    fields: tuple[str, ...]
    help: str

    @property
    def method(self) -> str:
        """Name the method of `Signals`."""
        return self.name.replace(".", "_")

    @property
    def aggregated(self) -> bool:
        """Tell whether its lines stand for several occurrences: `count` of them, the `first` and the `last` time."""
        return self.fields[-3:] == SPAN


SIGNALS: dict[str, Signal] = {
    signal.name: signal
    for signal in (
        Signal(
            "worker.started", ("info",), ("collector_worker_start_time_seconds",), ("pid", "owner"),
            "A worker takes uploads; owner is its directory in the spool.",
        ),
        Signal(
            "worker.stopped", ("info", "warning"), ("collector_worker_stops_total",), ("owner", "clean"),
            "A worker has drained and ends. Not clean: events are left in its spool, for another worker to adopt.",
        ),
        Signal(
            "drain.done", ("info", "warning"), ("collector_drains_total",),
            ("accepted", "delivered", "rescued", "rejected_by_sink", "dropped", "left"),
            "All workers have stopped: the ledger of the task; what is left waits in the spool for the next start.",
        ),
        Signal(
            "upload.accepted", (),
            ("collector_uploads_total", "collector_upload_events_total", "collector_upload_bytes_total"),
            (), "An upload was taken, whole or in part.",
        ),
        Signal(
            "upload.refused", ("warning",), ("collector_uploads_refused_total",),
            ("tenant", "protocol", "reason", *SPAN),
            "Uploads were refused; the devices keep them. No tenant: the key is unknown.",
        ),
        Signal(
            "upload.unconfirmed", ("warning",), ("collector_uploads_unconfirmed_total",),
            ("tenant", "protocol", "receipt", "events"),
            "A sink did not confirm in time: the upload was answered 503, and its events arrive all the same.",
        ),
        Signal(
            "events.rejected", ("warning",), ("collector_events_rejected_total",),
            ("tenant", "protocol", "reason", *SPAN),
            "Events of taken uploads were refused; the answers named them.",
        ),
        Signal(
            "batch.delivered", ("debug",),
            (
                "collector_batches_delivered_total", "collector_batch_events_total", "collector_batch_bytes_total",
                "collector_batch_seconds",
            ),
            ("route", "events", "bytes", "seconds"), "A sink confirmed a batch.",
        ),
        Signal(
            "batch.failed", ("warning",), ("collector_batch_failures_total",),
            ("route", "error", "attempts", "retry_in_s"),
            "A sink did not take a batch; it stays in the spool and is tried again.",
        ),
        Signal(
            "events.lost", ("error", "warning"), ("collector_events_lost_total",),
            ("tenant", "outcome", "reason", "count", "segment"),
            "Taken events will not arrive: dropped (error), or rejected by the sink for good (warning).",
        ),
        Signal(
            "spool.refusing", ("error",), ("collector_spool_refusing",), ("cause",),
            "The spool can't take events, and uploads are answered 503 until it recovers.",
        ),
        Signal("spool.recovered", ("info",), ("collector_spool_refusing",), (), "The spool takes events again."),
        Signal(
            "segment.adopted", ("warning",), ("collector_segments_adopted_total",), ("owner", "segments", "events"),
            "A worker took over what a dead one, owner, had left in the spool.",
        ),
        Signal(
            "frame.corrupt", ("error",), ("collector_frames_corrupt_total",), ("segment", "offset", *SPAN),
            "Frames of a segment can't be read back, the first at offset; events.lost tells what was in them.",
        ),
        Signal(
            "tail.cut", ("warning",), ("collector_tails_cut_total",), ("segment", "bytes"),
            "A segment ended in a torn frame, which was never acknowledged; it was cut off.",
        ),
        Signal(
            "ledger.imbalance", ("error",), ("collector_ledger_imbalances_total",),
            ("tenant", "accepted", "accounted"), "Events are without a fate, or have two: a defect of Collector's.",
        ),
        Signal(
            "tenants.loaded", ("info",), ("collector_tenants", "collector_tenants_reloads_total"),
            ("count", "version"), "The tenants were read and are in force.",
        ),
        Signal(
            "tenants.rejected", ("error",), ("collector_tenants_reloads_total",), ("problems",),
            "The tenants could not be read; the old ones stay in force.",
        ),
        Signal(
            "internal.error", ("error",), ("collector_internal_errors_total",), ("where", "error", "traceback", *SPAN),
            "Something happened that nobody expected. The first of its kind comes at once, with its traceback.",
        ),
    )
}  # fmt: skip

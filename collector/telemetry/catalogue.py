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
        Metric("collector_events_deduplicated_total", _C, "Events taken before, answered and not kept again.", _TP),
        Metric("collector_dedupe_unchecked_events_total", _C, "Events taken with no look at their ids.", ("tenant",)),
        Metric("collector_dedupe_forgotten_ids_total", _C, "Ids forgotten before their window was over."),
        Metric("collector_connections", _SUM, "Open connections."),
        Metric("collector_connections_evicted_total", _C, "Connections closed to let others in.", ("state",)),
        Metric("collector_lag_seconds", _MAX, "Longest wait of a request for its turn, or of the loop, in a second."),
        Metric("collector_request_seconds", _H, "Time from head to answer of an upload.", ("protocol",), _REQUEST_S),
        Metric("collector_batches_delivered_total", _C, "Batches that a sink confirmed.", ("route",)),
        Metric("collector_batch_events_total", _C, "Events of batches that a sink confirmed.", ("route",)),
        Metric("collector_batch_bytes_total", _C, "Bytes of batches that a sink confirmed.", ("route",)),
        Metric("collector_batch_seconds", _H, "Time that a sink took to confirm a batch.", ("route",), _BATCH_S),
        Metric("collector_batch_failures_total", _C, "Batches that went back to be tried again.", ("route",)),
        Metric("collector_batches_throttled_total", _C, "Batches whose sink asked for a slower pace.", ("route",)),
        Metric("collector_route_concurrency", _SUM, "Batches of a route that may be under way at once.", ("route",)),
        Metric("collector_possible_duplicate_events_total", _C, "Events sent again in doubt.", ("route",)),
        Metric("collector_claimed_events_total", _C, "Events that lie in the object store of claims.", ("route",)),
        Metric(
            "collector_sink_refused_events_total", _C, "Events that a sink refuses for good.",
            ("route", "reason", "parked"),
        ),
        Metric("collector_batches_rescued_total", _C, "Batches that the rescue sink confirmed.", ("route", "cause")),
        Metric("collector_rescued_events_total", _C, "Events that the rescue sink confirmed.", ("route", "cause")),
        Metric("collector_rescued_unreadable_total", _C, "Rescued batches that could not be read back."),
        Metric("collector_replayed_events_total", _C, "Rescued events that workers sent on.", ("outcome",)),
        Metric("collector_events_lost_total", _C, "Taken events that do not arrive.", ("tenant", "outcome", "reason")),
        Metric("collector_spool_bytes", _SUM, "Bytes held in the spool."),
        Metric("collector_spool_budget_bytes", _SUM, "Bytes that the spool may hold."),
        Metric("collector_spool_refusing", _SUM, "Workers that refuse uploads because their spool can't take them."),
        Metric("collector_memory_used_bytes", _MAX, "Memory in use of the limit that is the nearest."),
        Metric("collector_memory_limit_bytes", _MAX, "The limit of memory that is the nearest."),
        Metric("collector_memory_refusing", _SUM, "Workers that refuse uploads because memory is short."),
        Metric("collector_segments_adopted_total", _C, "Segments taken over from workers that died."),
        Metric("collector_frames_corrupt_total", _C, "Frames in the spool whose checksum did not match."),
        Metric("collector_tails_cut_total", _C, "Torn ends of segments, never acknowledged, that were cut off."),
        Metric("collector_ledger_imbalances_total", _C, "Times that a ledger did not balance: defects."),
        Metric("collector_tenants", _MAX, "Tenants loaded."),
        Metric("collector_tenants_reloads_total", _C, "Loads of the tenants.", ("result",)),
        Metric("collector_worker_start_time_seconds", _EACH, "Unix time of the worker's start."),
        Metric("collector_worker_resident_memory_bytes", _EACH, "Resident memory of the worker."),
        Metric("collector_drains_total", _C, "Drains, by whether events were left behind.", ("scope", "complete")),
        Metric("collector_generations_ready_total", _C, "Generations of workers that came to accept connections."),
        Metric("collector_generations_ended_total", _C, "Generations that ended, or were ended.", ("killed",)),
        Metric("collector_reloads_total", _C, "Reloads of code and settings.", ("result",)),
        Metric("collector_masters_died_total", _C, "Masters of gunicorn that ended by themselves and were replaced."),
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
            "drain.done", ("info", "warning"), ("collector_drains_total",),
            (
                "scope", "owner", "accepted", "delivered", "rescued", "rejected_by_sink", "dropped", "deduplicated",
                "left",
            ),
            "A worker, or with its last one the task, has drained: its ledger; what is left waits in the spool.",
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
            "connection.evicted", ("warning",), ("collector_connections_evicted_total",), ("state", *SPAN),
            "There were too many connections: those that had waited longest were closed.",
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
            "batch.throttled", ("warning",), ("collector_batches_throttled_total",), ("route", *SPAN),
            "A sink asked for a slower pace. Its batches wait, and fewer of them are under way at once for a while.",
        ),
        Signal(
            "batch.in_doubt", ("warning",), ("collector_possible_duplicate_events_total",), ("route", *SPAN),
            "So many events were sent, and no true answer came. They are sent again, and may be there twice.",
        ),
        Signal(
            "events.refused", ("warning",), ("collector_sink_refused_events_total",),
            ("route", "reason", "parked", "cause", *SPAN),
            "A sink refuses so many events for good. Parked: they are kept in the rescue sink.",
        ),
        Signal(
            "event.claimed", ("info",), ("collector_claimed_events_total",), ("route", *SPAN),
            "Events too large for their sink lie whole in the store of claims, and their claims went in their place.",
        ),
        Signal(
            "batch.rescued", ("warning",), ("collector_batches_rescued_total", "collector_rescued_events_total"),
            ("route", "cause", *SPAN),
            "So many events went to the rescue sink: their own is unavailable, or a drain is near its end.",
        ),
        Signal(
            "rescue.unreadable", ("error",), ("collector_rescued_unreadable_total",), ("place", "cause"),
            "A rescued batch can't be read back, and stays where it is. Told once by each worker that meets it.",
        ),
        Signal(
            "replay.done", ("info", "warning"), ("collector_replayed_events_total",),
            ("found", "delivered", "rejected", "left"),
            "Rescued events were sent on to their own sinks; what is left waits for the next replay.",
        ),
        Signal(
            "events.lost", ("error", "warning"), ("collector_events_lost_total",),
            ("tenant", "outcome", "reason", "count", "segment"),
            "Taken events will not arrive: dropped (error), or rejected by the sink for good (warning).",
        ),
        Signal(
            "events.deduplicated", (), ("collector_events_deduplicated_total",), (),
            "Events were copies of others that came within their tenant's window: answered as taken, and not kept.",
        ),
        Signal(
            "dedupe.unchecked", ("error",), ("collector_dedupe_unchecked_events_total",), ("tenant", "cause", *SPAN),
            "The store of ids can't be had: events are taken without a look at their ids, and may arrive twice.",
        ),
        Signal(
            "dedupe.shortened", ("warning",), ("collector_dedupe_forgotten_ids_total",), SPAN,
            "The store of ids is too small for the window: the oldest ids were forgotten. Raise dedupe_bytes.",
        ),
        Signal(
            "spool.refusing", ("error",), ("collector_spool_refusing",), ("cause",),
            "The spool can't take events, and uploads are answered 503 until it recovers.",
        ),
        Signal("spool.recovered", ("info",), ("collector_spool_refusing",), (), "The spool takes events again."),
        Signal(
            "memory.short", ("error",), ("collector_memory_refusing",), ("used_bytes", "limit_bytes", "held_bytes"),
            "The task is near its limit of memory, and uploads are answered 503 until it is not; held are the bytes of "
            "this worker's events.",
        ),
        Signal(
            "memory.recovered", ("info",), ("collector_memory_refusing",), ("used_bytes", "limit_bytes"),
            "Memory is to be had again, and uploads are taken.",
        ),
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
            "generation.ready", ("info",), ("collector_generations_ready_total",),
            ("generation", "pid", "workers", "seconds"),
            "All workers of a generation accept connections, so many seconds after its start; pid is their master.",
        ),
        Signal(
            "generation.ended", ("info", "warning"), ("collector_generations_ended_total",),
            ("generation", "pid", "status", "killed", "seconds"),
            "Nothing of a generation lives any more, so long after it was to end; killed: it took too long (warning).",
        ),
        Signal(
            "reload.done", ("info",), ("collector_reloads_total",), ("generation", "seconds"),
            "New code and settings are in force, so long after they were asked for; the generation before them drains.",
        ),
        Signal(
            "reload.rejected", ("error",), ("collector_reloads_total",), ("stage", "problem"),
            "New code or settings do not load, or did not come to be ready; the running generation goes on.",
        ),
        Signal(
            "master.died", ("warning",), ("collector_masters_died_total",),
            ("generation", "pid", "status", "restart_in_s"),
            "gunicorn's master ended by itself. Its workers drain, and a new generation with its settings is started.",
        ),
        Signal(
            "internal.error", ("error",), ("collector_internal_errors_total",), ("where", "error", "traceback", *SPAN),
            "Something happened that nobody expected. The first of its kind comes at once, with its traceback.",
        ),
    )
}  # fmt: skip

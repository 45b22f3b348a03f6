"""
Every signal.
"""

from __future__ import annotations

from collector.telemetry.catalogue.kinds import SPAN, Signal

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
            "stdout.lost", ("error",), ("collector_log_lines_lost_total",), SPAN,
            "Log lines that the standard output did not take: nobody read it fast enough. Splunk has them.",
        ),
        Signal(
            "hec.dropped", ("error",), ("collector_hec_dropped_lines_total",), ("reason", *SPAN),
            "Log lines that Splunk will not get. The standard output has them; in Splunk their seq is missing.",
        ),
        Signal(
            "hec.failing", ("warning",), ("collector_hec_failing",), ("cause", "retry_in_s"),
            "Splunk has not taken log lines several times in a row. They wait, and are tried again.",
        ),
        Signal(
            "hec.refused", ("error",), ("collector_hec_failing",), ("cause", "retry_in_s"),
            "Splunk refuses all log lines, for the token, the index or the URL: that needs a human. They wait.",
        ),
        Signal(
            "hec.unconfirmed", ("error",), ("collector_hec_unconfirmed",), ("cause",),
            "COLLECTOR_HEC_ACK is on and Splunk confirms nothing. Its answer alone counts as delivered from now on.",
        ),
        Signal(
            "hec.recovered", ("info",), ("collector_hec_failing",), ("seconds",),
            "Splunk takes log lines again, after so long.",
        ),
        Signal(
            "intake.report", ("info",),
            (
                "collector_uploads_total", "collector_upload_events_total", "collector_upload_bytes_total",
                "collector_uploads_refused_total", "collector_events_rejected_total",
                "collector_events_deduplicated_total",
            ),
            ("tenant", "seconds", "uploads", "events", "bytes", "refused", "rejected", "deduplicated"),
            "What came from a tenant to this worker since its last report; bytes as kept in the spool, refused are "
            "uploads, rejected are events. Of many tenants the smallest are told as (others).",
        ),
        Signal(
            "route.report", ("info",),
            (
                "collector_batches_delivered_total", "collector_batch_events_total", "collector_batch_bytes_total",
                "collector_batch_failures_total", "collector_batches_throttled_total",
                "collector_possible_duplicate_events_total", "collector_route_concurrency",
            ),
            ("route", "seconds", "batches", "events", "bytes", "failures", "throttled", "in_doubt", "width"),
            "What this worker sent on to a route since its last report; width is how many batches may be under way.",
        ),
        Signal(
            "worker.report", ("info",),
            (
                "collector_connections", "collector_lag_seconds", "collector_worker_resident_memory_bytes",
                "collector_memory_used_bytes", "collector_memory_limit_bytes", "collector_spool_bytes",
                "collector_spool_budget_bytes", "collector_spool_refusing",
            ),
            (
                "connections", "lag_s", "resident_bytes", "memory_used_bytes", "memory_limit_bytes", "spool_bytes",
                "spool_budget_bytes", "spool_refusing",
            ),
            "How this worker is: its spool is its own, the memory that of the limit that is the nearest.",
        ),
        Signal(
            "ledger.report", ("info",), ("collector_ledger_imbalances_total",),
            (
                "accepted", "delivered", "rescued", "rejected_by_sink", "dropped", "deduplicated", "pending",
                "balanced",
            ),
            "The ledger of the whole task since its start, told by one of its workers.",
        ),
        Signal(
            "hec.report", ("info",),
            (
                "collector_hec_emitted_lines_total", "collector_hec_delivered_lines_total",
                "collector_hec_dropped_lines_total", "collector_hec_queued_lines", "collector_hec_in_flight_lines",
                "collector_hec_held_bytes", "collector_hec_buffer_bytes", "collector_hec_high_water_bytes",
                "collector_hec_oldest_age_seconds", "collector_hec_line_bytes_total",
                "collector_hec_wire_bytes_total", "collector_hec_possible_duplicate_lines_total",
            ),
            (
                "emitted", "delivered", "dropped", "queued", "in_flight", "held_bytes", "buffer_bytes",
                "high_water_bytes", "oldest_age_s", "bytes_in", "bytes_wire", "requests", "retries",
                "possible_duplicates",
            ),
            "The accounts of this process's log lines for Splunk since its start: emitted = delivered + dropped + "
            "queued + in_flight. This line itself is not in them.",
        ),
        Signal(
            "internal.error", ("error",), ("collector_internal_errors_total",), ("where", "error", "traceback", *SPAN),
            "Something happened that nobody expected. The first of its kind comes at once, with its traceback.",
        ),
    )
}  # fmt: skip

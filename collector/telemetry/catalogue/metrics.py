"""
Every metric.
"""

from __future__ import annotations

from collector.telemetry.catalogue.kinds import Kind, Metric

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
        Metric("collector_hec_emitted_lines_total", _C, "Log lines that were to go to Splunk."),
        Metric("collector_hec_delivered_lines_total", _C, "Log lines that Splunk took; with acks, that it confirmed."),
        Metric("collector_hec_dropped_lines_total", _C, "Log lines that Splunk will not get.", ("reason",)),
        Metric("collector_hec_queued_lines", _SUM, "Log lines that wait to be sent to Splunk."),
        Metric("collector_hec_in_flight_lines", _SUM, "Log lines under way to Splunk, or to be sent again."),
        Metric("collector_hec_held_bytes", _SUM, "Bytes of log lines queued and in flight, with their envelopes."),
        Metric("collector_hec_buffer_bytes", _SUM, "Bytes of log lines that may be held."),
        Metric("collector_hec_high_water_bytes", _MAX, "Most bytes of log lines that a worker has ever held."),
        Metric("collector_hec_oldest_age_seconds", _MAX, "Age of the oldest log line that Splunk has not taken."),
        Metric("collector_hec_line_bytes_total", _C, "Bytes of log lines that were to go, with their envelopes."),
        Metric("collector_hec_wire_bytes_total", _C, "Bytes of requests to Splunk: compressed, and with their heads."),
        Metric("collector_hec_requests_total", _C, "Requests with log lines, by what came of them.", ("result",)),
        Metric("collector_hec_possible_duplicate_lines_total", _C, "Log lines sent again in doubt."),
        Metric("collector_hec_failing", _SUM, "Processes whose log lines Splunk does not take at the moment."),
        Metric("collector_hec_unconfirmed", _SUM, "Processes that want acknowledgements of Splunk and get none."),
        Metric("collector_log_keys_folded_total", _C, "Signals logged together, there being too many kinds."),
        Metric("collector_metric_series_folded_total", _C, "Counts made under no own labels, there being too many."),
    )
}  # fmt: skip

"""
The composition root: wires one worker together. It opens nothing; `Runtime.start` does.
"""

from __future__ import annotations

import os
import random
import sys
from functools import partial
from pathlib import Path

import gevent
from gevent import get_hub

from collector.admission.dedupe import Dedupe
from collector.admission.gate import Gate
from collector.admission.memory import Memory, return_large_buffers
from collector.admission.quota import Quota
from collector.admission.tenants import TenantBook
from collector.buffer.room import Bounds
from collector.buffer.spool import Spool
from collector.clock import SystemClock
from collector.delivery.aside import Claims, Parking
from collector.delivery.flusher import Flusher
from collector.delivery.replayer import Replayer
from collector.delivery.retry import Backoff
from collector.receiver.admin import Admin
from collector.receiver.answers import cors
from collector.receiver.app import INGEST, BodyLimits, Doors, admin_app, device_app
from collector.receiver.body import BodyRoom
from collector.receiver.hot import HotDoor
from collector.receiver.intake import Intake, UploadLimits, refuse
from collector.receiver.runtime import Runtime, Times
from collector.receiver.shed import Shedder
from collector.receiver.threads import Backstage, off_hub
from collector.settings import (
    Settings,
    dedupe_budget,
    load_for_worker,
    memory_limit_bytes,
    mount_size_bytes,
    spool_budget,
)
from collector.sinks.base import Opened
from collector.sinks.registry import (
    can_be_read_back,
    open_claim_store,
    open_parked,
    open_rescue_sink,
    open_sink,
    open_source,
)
from collector.telemetry.logbook import Logbook
from collector.telemetry.metrics import Metrics
from collector.telemetry.reporter import Reporter
from collector.uuid7 import Uuid7

#: How long a thread that computes, as for a page or the tenants, keeps the interpreter when the loop wants it back, in
#: seconds. The loop lets go of it with every system call: with Python's 5 ms, an upload beside such a thread takes
#: 13 ms where it takes 1 (measured, ten thousand tenants).
SWITCH_S = 0.0005
#: A pause in the middle of long work, in seconds: of no length, and yet the loop looks at its sockets in it. After one
#: of 0 it would look only when 50 callbacks are through, and an upload that has just come would wait for all the work.
_BREATH_S = 1e-6
#: How many of the largest uploads one worker reads at once, about. With 4 MiB each it is half of the 120 MiB that a
#: worker may have.
_LARGEST_AT_ONCE = 16


def create_app() -> Doors:
    """Build the WSGI callable of one worker from the settings; gunicorn calls it after it patched the worker."""
    return_large_buffers()
    sys.setswitchinterval(SWITCH_S)
    return build(load_for_worker())


def build(settings: Settings) -> Doors:
    """Wire a worker."""
    clock = SystemClock()
    rng = random.Random()
    new_id = Uuid7(clock)
    # Sorts by age, tells the process, and is like no other, whatever pids come again.
    owner = f"{clock.now_us():016d}-{os.getpid()}-{new_id()[-8:]}"
    counts = Metrics(worker=owner)
    log = Logbook(settings, clock=clock, counts=counts, rest=gevent.sleep, owner=owner)
    signals = log.signals

    spool_dir = Path(settings.spool_dir)
    mount_bytes, memory_limit = mount_size_bytes(settings.spool_dir), memory_limit_bytes()
    budget = spool_budget(settings, mount_bytes=mount_bytes, memory_limit=memory_limit)
    bounds = Bounds(task_bytes=budget, worker_bytes=budget // settings.workers, segment_bytes=settings.segment_bytes)
    spool = Spool(spool_dir, owner, bounds, clock=clock, signals=signals, breathe=partial(gevent.sleep, _BREATH_S))
    tenants = TenantBook(
        settings.config,
        spool_dir / "tenants",
        initial=settings.tenants,
        routes=tuple(settings.routes),
        clock=clock,
        signals=signals,
        read_at_s=settings.read_at_s,
        text_sha256=settings.text_sha256,
        spawn=gevent.spawn,
        offload=off_hub,
    )
    ids_bytes = dedupe_budget(settings, mount_bytes=mount_bytes, memory_limit=memory_limit)
    dedupe = Dedupe(spool, size_bytes=ids_bytes, clock=clock, signals=signals)
    spool.may_adopt = dedupe.may_adopt
    quota = Quota(
        spool_dir / "quota",
        clock,
        max_events=settings.max_events,
        max_bytes=settings.max_inflated_bytes,
        is_alone=settings.workers == 1,
    )
    memory = Memory(held=lambda: spool.used_bytes, workers=settings.workers, clock=clock, signals=signals)
    gate = Gate(
        spool,
        quota,
        memory=memory,
        slot_of=tenants.slot,
        is_sole=lambda: len(tenants.table) == 1,
        max_lag_s=settings.max_lag_s,
        clock=clock,
        rng=rng,
    )
    sinks = {route: open_sink(url, writer_id=owner, offload=off_hub) for route, url in settings.routes.items()}
    rescue = settings.rescue_sink
    rescues = (
        {route: open_rescue_sink(rescue, route=route, writer_id=owner, offload=off_hub) for route in sinks}
        if rescue
        else {}
    )
    # A batch that hangs holds a thread: each may, and the usual ones are still there for all else.
    most_batches = settings.flush_concurrency * (len(sinks) + len(rescues))
    get_hub().threadpool.maxsize += most_batches
    beside: list[Opened] = []
    claims = None
    if settings.claim_sink:
        store = open_claim_store(settings.claim_sink, writer_id=owner, offload=off_hub)
        beside.append(store)
        claims = Claims(store, offload=off_hub)
    replayer, parking = None, None
    if rescue and can_be_read_back(rescue):
        open_place = partial(open_parked, rescue, writer_id=owner, offload=off_hub)
        parking = Parking(lambda route, reason: open_place(route=route, reason=reason), offload=off_hub)
        source = open_source(rescue, offload=off_hub)
        beside += [parking, source]
        replayer = Replayer(
            source,
            sinks,
            signals=signals,
            spawn=gevent.spawn,
            rest=gevent.sleep,
            offload=off_hub,
            spool=spool,
            claims=claims,
        )
    flusher = Flusher(
        spool,
        sinks,
        backoff=Backoff(rng=rng),
        clock=clock,
        signals=signals,
        max_age_s=settings.flush_interval_s,
        concurrency=settings.flush_concurrency,
        rescues=rescues,
        rescue_after_s=settings.rescue_after_s,
        spawn=gevent.spawn,
        offload=off_hub,
        offload_quietly=Backstage(most_batches).run,
        breathe=partial(gevent.sleep, _BREATH_S),
        parking=parking,
        claims=claims,
    )
    reporter = Reporter(
        every_s=settings.report_s,
        lock=spool_dir / "speaker",
        ledger=spool.books.totals,
        signals=signals,
        clock=clock,
        offload=off_hub,
    )
    runtime = Runtime(
        spool=spool,
        flusher=flusher,
        replayer=replayer,
        sinks=[*sinks.values(), *rescues.values(), *beside],
        tenants=tenants,
        quota=quota,
        dedupe=dedupe,
        gate=gate,
        clock=clock,
        signals=signals,
        counts=counts,
        log=log,
        reporter=reporter,
        times=Times(
            lame_duck_s=settings.lame_duck_s,
            drain_s=settings.drain_s,
            body_deadline_s=settings.body_deadline_s,
            max_header_bytes=settings.max_header_bytes,
        ),
        spawn=gevent.spawn,
        rest=gevent.sleep,
    )
    intake = Intake(
        tenants=lambda: tenants.table,
        gate=gate,
        dedupe=dedupe,
        spool=spool,
        wake_flusher=flusher.wake,
        new_id=new_id,
        limits=UploadLimits(
            max_inflated_bytes=settings.max_inflated_bytes,
            max_events=settings.max_events,
            ack_timeout_s=settings.ack_timeout_s,
        ),
        clock=clock,
        signals=signals,
        metrics=counts,
        offload=off_hub,
    )
    admin = Admin(
        gate=gate,
        spool=spool,
        tenants=tenants,
        snapshot=runtime.snapshot,
        token=settings.admin_token,
        offload=off_hub,
    )
    limits = BodyLimits(
        max_upload_bytes=settings.max_upload_bytes,
        trusted_hops=settings.trusted_hops,
    )
    shedder = Shedder(dict(INGEST), verdict=gate.open, refuse=partial(refuse, intake), cors=cors)
    room = BodyRoom(_LARGEST_AT_ONCE * settings.max_upload_bytes)
    hot = None
    if settings.hot_door:
        hot = HotDoor(
            intake,
            dict(INGEST),
            room=room,
            max_upload_bytes=settings.max_upload_bytes,
            trusted_hops=settings.trusted_hops,
        )
    return Doors(device_app(intake, admin, limits, room), admin_app(admin, signals), runtime, shedder, hot)

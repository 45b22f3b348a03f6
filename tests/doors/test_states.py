"""Where no upload is taken, or not for much longer, both doors say so in the same words."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

from collector.receiver.body import FREE_BYTES
from tests.doors import odd
from tests.doors.pair import MAX_UPLOAD, Case, Twin, explain, running, same, told
from tests.server import wait_for


def is_unready(twin: Twin) -> bool:
    return twin.server.readyz().status == 503


def has_ended(twin: Twin) -> bool:
    return not twin.server.is_running


CASES = [Case((data,), asks=True) for data in (*odd.HOT.values(), *odd.MIXED.values())]


def test_a_full_spool_is_refused_at_both_doors_in_the_same_words(tmp_path: Path) -> None:
    """Nothing leaves this spool, and at last one event more has no room."""
    with running(tmp_path, spool_bytes=1 << 20, segment_bytes=1 << 20, flush_interval_s=60) as doors:
        for size in (1900, 500, 1):  # the smaller ones fill what the larger ones leave
            events = json.dumps([{"x": "y" * size}] * 20).encode()
            while 200 in doors.agree(Case((odd.request(odd.HOST, odd.KEY, body=events),))).statuses:
                pass
        differences = doors.differences(CASES)
        statuses = doors.agree(CASES[0]).statuses

    assert [503, 400] == statuses
    assert [] == differences, told(differences)


def test_a_server_that_goes_says_so_at_both_doors(tmp_path: Path) -> None:
    """Answers end their connections, so that who asks again finds another server."""
    with running(tmp_path, lame_duck_s=40) as doors:
        for twin in (doors.plain, doors.hot):
            twin.server.signal(signal.SIGTERM)
        for twin in (doors.plain, doors.hot):
            wait_for(partial(is_unready, twin), "a server that goes to be unready")
        differences = doors.differences(CASES)
        for twin in (doors.plain, doors.hot):
            (pid,) = twin.server.worker_pids()
            os.kill(pid, signal.SIGQUIT)  # it need not wait any longer
            wait_for(partial(has_ended, twin), "the server to end")

    assert [] == differences, told(differences)


def test_large_uploads_that_stall_leave_no_room_at_either_door(tmp_path: Path) -> None:
    """The bytes that bodies may hold together are bounded; how many fit hangs on the steps in which a door reads."""
    most = 4 * MAX_UPLOAD
    large = odd.request(odd.HOST, odd.KEY, body=b"[" + b" " * (most - 2) + b"]")

    with running(tmp_path, max_upload_bytes=most, max_inflated_bytes=most, body_deadline_s=2) as doors:
        plain, hot = doors.stall([large[: most - 50_000]] * 40)

    assert same(plain[0])[:2] == same(hot[0])[:2]
    assert same(plain[-1])[:2] == same(hot[-1])[:2]
    assert {408, 503} == {one.statuses[0] for one in plain} == {one.statuses[0] for one in hot}


def test_an_upload_whose_last_piece_finds_no_room_is_refused_at_both_doors(tmp_path: Path) -> None:
    """It has arrived, and yet must not be worked on: its bytes are not among those that the bound counts."""
    # Each counts without its first bytes, and at Flask's door by steps of 64 KiB: these take all that 16 of the largest
    # may, to the byte.
    most, sent, count = 200 << 10, 192 << 10, 20
    stalling = odd.request(odd.HOST, odd.KEY, length=b"%d" % most, body=b"[" + b" " * (sent - 1))
    large = odd.request(odd.HOST, odd.KEY, body=b'[{"n":1}' + b" " * FREE_BYTES + b"]")
    case = Case((odd.PLAIN + large[:-1000], large[-1000:]))

    with running(tmp_path, max_upload_bytes=most, max_inflated_bytes=most, body_deadline_s=30) as doors:
        alone = doors.agree(case)
        plain, hot = (twin.tell_beside([stalling] * count, case) for twin in (doors.plain, doors.hot))

    assert [200, 200] == alone.statuses
    assert [200, 503] == hot.statuses
    assert b'"error":"backpressure"' in hot.answers
    assert same(plain) == same(hot), explain(case, plain, hot)

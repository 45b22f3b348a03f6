"""What the load consists of."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter

import pytest

from bench.uploads import EVENT_BYTES, POOL_UPLOADS, Case, bodies, event, key, names, requests


def test_every_event_has_its_size_and_an_id_of_its_own() -> None:
    """The table says 360 bytes; and events that repeat compress and cache better than any device's."""
    uploads = bodies(7, "plain", seed=1, count=40)
    events = [one for upload in uploads for one in json.loads(upload)]

    assert {2 + 7 * EVENT_BYTES + 6} == {len(upload) for upload in uploads}
    assert 7 * 40 == len({one["id"] for one in events})
    assert {36} == {len(one["id"]) for one in events}


def test_an_event_is_360_bytes_whatever_chance_puts_in() -> None:
    """The room that is left for the filling text is never negative."""
    rng = random.Random(5)

    assert {EVENT_BYTES} == {len(event(rng)) for _ in range(2000)}


def test_a_compressed_upload_is_the_plain_one() -> None:
    """Plain and gzip are compared, so they must say the same."""
    packed = bodies(5, "gzip", seed=3, count=4)

    assert bodies(5, "plain", seed=3, count=4) == [gzip.decompress(one) for one in packed]


@pytest.mark.parametrize(
    ("case", "header", "there"),
    [
        (Case(1), b"\r\nContent-Encoding:", False),
        (Case(1, "gzip"), b"\r\nContent-Encoding: gzip\r\n", True),
        (Case(1), b"\r\nCollector-Ack:", False),
        (Case(1, ack="sink"), b"\r\nCollector-Ack: sink\r\n", True),
    ],
)
def test_a_request_says_what_its_case_is(case: Case, header: bytes, there: bool) -> None:
    """A header that is missing measures another case under this one's name."""
    head, _, body = requests(case)[0].partition(b"\r\n\r\n")

    assert there == (header in head)
    assert b"\r\nContent-Length: %d" % len(body) in head


@pytest.mark.parametrize("tenants", [1, 3, POOL_UPLOADS + 9])
def test_every_tenant_uploads_as_often_as_any_other(tenants: int) -> None:
    """With a tenant that never comes, a curve by tenants has fewer of them than it says."""
    made = requests(Case(1), tenants=tenants)
    shown = [re.search(rb"Authorization: Bearer (.*)\r\n", one) for one in made]
    counts = Counter(one[1].decode() for one in shown if one)

    assert {key(name) for name in names(tenants)} == set(counts)
    assert len(made) == counts.total() >= POOL_UPLOADS
    assert 1 >= max(counts.values()) - min(counts.values())

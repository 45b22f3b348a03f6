"""What lies in a sink is asked by programs that know nothing of Collector."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import pytest

from collector.event import Envelope, Event
from collector.receiver.lines import lines
from collector.sinks.registry import open_sink
from tests.fakes import batch

README = Path(__file__).resolve().parents[2] / "README.md"
US = 1_795_000_000_123_456


@pytest.mark.parametrize("options", ["", "?by=hour", "?level=19"])
def test_the_query_of_the_readme_answers_over_the_files_of_the_sink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    """The analyst copies it, and has nothing else to go by."""
    monkeypatch.chdir(tmp_path)
    sink = open_sink(f"file:data{options}", writer_id="w1")
    for tenant in ("acme", "zeta"):
        bodies = [json.dumps({"event": name, "odd": "ü \U0001f9a9 \n"}).encode() for name in ("view", "buy", "view")]
        events = [Event(n, f'"{tenant}-{n}"'.encode(), body) for n, body in enumerate(bodies)]
        made = lines(Envelope(tenant, "native", f"r-{tenant}", US, "::1", events))
        sink.write(batch(*made.split(b"\n")[:-1], name=f"w1-{tenant}", tenant_id=tenant))
    (query,) = re.findall(r"```sql\n(.*?)```", README.read_text(), re.DOTALL)
    rows = duckdb.execute(query).fetchall()

    assert [("acme", "buy", 1), ("acme", "view", 2), ("zeta", "buy", 1), ("zeta", "view", 2)] == [
        row[:3] for row in rows
    ]
    assert {US} == {round(row[3].timestamp() * 1_000_000) for row in rows}

"""What SQS does not take is known before it is sent: one such message would cost the whole call."""

from __future__ import annotations

import pytest

from collector.outcome import Reason
from collector.sinks.registry import open_sink
from tests.fakes import batch
from tests.standins.engine import Engine
from tests.standins.sdk import ENVIRON

#: The characters at the edges of what XML 1.0 has.
TAKEN = "\t\r\x20\x7f\x80\x85\x9f\ud7ff\ue000\ufffd\U00010000\U0001fffe\U0010ffff"
NOT_TAKEN = "\x00\x08\x0b\x0c\x0e\x1b\x1f\ufffe\uffff"


def test_a_message_holds_the_characters_of_xml_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words for it; a character too many here is an event that never leaves, one too few an event lost."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    lines = [f'{{"text":"ü{one}"}}'.encode() for one in TAKEN + NOT_TAKEN]
    with Engine() as engine:
        sink = open_sink(f"sqs://a?endpoint=http://127.0.0.1:{engine.port}&aggregate_kib=0", writer_id="w1")
        receipt = sink.write(batch(*lines))
        sink.close()

    assert [(len(TAKEN) + n, Reason.SINK_INVALID) for n in range(len(NOT_TAKEN))] == [*receipt.rejected]
    assert lines[: len(TAKEN)] == [one.payload for one in engine.taken]
    # None of them was for the queue to find.
    assert 2 == engine.calls["SendMessageBatch"]

"""What the faults tell the sinks of a task, whoever tells it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.system.chaos.world import World

HANDS = 4
TIMES = 200


def test_two_hands_may_tell_the_sinks_how_to_behave_at_once(tmp_path: Path) -> None:
    """The hand that ends processes does it too, while the other one has them down."""
    world = World.__new__(World)
    world.folder = tmp_path
    together = threading.Barrier(HANDS)

    def tell(mode: str) -> None:
        together.wait()
        for _ in range(TIMES):
            world.set_mode(mode)

    with ThreadPoolExecutor(HANDS) as pool:
        for told in [pool.submit(tell, mode) for mode in ("down", "part", "lost", "ok")]:
            told.result()

    assert {"down", "part", "lost", "ok"} >= {file.read_text() for file in tmp_path.iterdir()}
    assert {".mode"} == {file.suffix for file in tmp_path.iterdir()}

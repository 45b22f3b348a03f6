"""
Samples the stacks of a process with py-spy.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from bench.servers import ServerError

_PROGRAM = Path(sys.executable).with_name("py-spy")
#: Stacks a second. Each stops the process for a moment, and what it does next is slower: with 100, an upload costs up
#: to 20 % more (measured).
RATE = 100
#: For its start and its end, in seconds; and no run samples longer than this.
_PATIENCE_S, _MOST_S = 20.0, 600
_POLL_S = 0.02
_SAMPLES = "Sampling process"


@contextmanager
def sampling(pid: int, folder: Path) -> Iterator[Path]:
    """
    Sample a process until the block is left; raises ServerError.

    Then the file that is given has its stacks, folded, those of each thread apart.
    """
    if not _PROGRAM.exists():
        raise ServerError("py-spy is missing: `make profile` installs it")
    folded, words = folder / f"stacks-{pid}", folder / f"py-spy-{pid}"
    command = [str(_PROGRAM), "record", "--pid", str(pid), "--format", "raw", "--threads", "--rate", str(RATE),
               "--duration", str(_MOST_S), "--output", str(folded)]  # fmt: skip
    folded.unlink(missing_ok=True)
    with words.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        _await_start(process, words)
        yield folded
        process.send_signal(signal.SIGINT)
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        raise ServerError(f"py-spy does not end: {words.read_text()[-500:]}") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if not folded.exists():
        raise ServerError(f"py-spy has sampled nothing: {words.read_text()[-500:]}")


def _await_start(process: subprocess.Popen[bytes], words: Path) -> None:
    deadline = monotonic() + _PATIENCE_S
    while monotonic() < deadline and process.poll() is None:
        if _SAMPLES in words.read_text(errors="replace"):
            return
        sleep(_POLL_S)
    raise ServerError(f"py-spy does not sample: {words.read_text(errors='replace')[-500:]}")

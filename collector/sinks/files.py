"""
What the `file:` sink and its reading side do with files: claim, write, sync, and say what was refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from collector.errors import TransientSinkError

#: How often a claim is tried again because the file it had opened was renamed under it.
CLAIM_ATTEMPTS = 8

#: What can be done about a refusal of the file system.
ADVICE = {
    errno.EACCES: "let the user that Collector runs as write there",
    errno.EAGAIN: "another write of this batch is under way, and this one is tried again",
    errno.EDQUOT: "raise the disk quota, or free space",
    errno.EIO: "look at the disk",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOSPC: "free space, or inodes, on that file system",
    errno.ENOTDIR: "a file lies where a directory should be; move it away",
    errno.EPERM: "let the user that Collector runs as write there",
    errno.EROFS: "mount the directory writable, or name another one",
}


def claim_file(temporary: str | Path) -> int:
    """
    Open a temporary file for this writer alone, emptied; `BlockingIOError` while another has it.

    The lock goes when the descriptor is closed, so a killed writer holds nothing. A batch may be written twice
    at once: its first write is late, has been given up on, and its retry has begun.
    """
    for _ in range(CLAIM_ATTEMPTS):
        claim = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between open and lock the file may have become the finished object: emptying it would lose it.
            with suppress(FileNotFoundError):
                mine = os.fstat(claim)
                if os.path.samestat(mine, os.stat(temporary, follow_symlinks=False)):
                    if mine.st_size:
                        os.ftruncate(claim, 0)
                    return claim
        except BaseException:
            os.close(claim)
            raise
        os.close(claim)
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def write_all(claim: int, frame: bytes) -> None:
    """Write to the end, however little a write takes."""
    rest = memoryview(frame)
    while rest:
        rest = rest[os.write(claim, rest) :]


def sync_directory(directory: str | Path) -> None:
    """Bring a directory's entries to the disk; raises OSError."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    except OSError as exc:
        # Some network file systems sync no directories; they answer EINVAL.
        if exc.errno != errno.EINVAL:
            raise
    finally:
        # In a worker os.close is gevent's, and may leave a directory open for ever in a thread of its pool.
        os.closerange(opened, opened + 1)


def folders(directory: Path, prefix: str) -> list[Path]:
    """List the entries of a directory whose names begin so; none when it can't be read."""
    with suppress(OSError):
        return [Path(entry.path) for entry in os.scandir(directory) if entry.name.startswith(prefix)]
    return []


def refused(path: str | Path, exc: OSError) -> TransientSinkError:
    """Say what the file system refused, and what can be done about it."""
    advice = ADVICE.get(exc.errno or 0, "the batch is kept and tried again")
    return TransientSinkError(f"file: can't write {path}: {exc.strerror or exc}; {advice}")

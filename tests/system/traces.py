"""What a program did to file systems, read from what strace wrote down."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator
from pathlib import Path

# One traced call: its name, what was passed, what it returned.
_CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>.*)$")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FOLDER = re.compile(r"^(?:AT_FDCWD|\d+)<([^>]*)>")
_OPENED = re.compile(r"^\d+<([^>]*)>")
_WRITING = re.compile(r"O_(?:WRONLY|RDWR|CREAT|TRUNC|APPEND|TMPFILE)")
_OPENING = {"open", "openat", "openat2", "creat"}
_CHANGING = {
    "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2", "link", "linkat", "symlink",
    "symlinkat", "unlink", "unlinkat", "rmdir", "truncate", "chmod", "fchmodat", "fchmodat2", "chown", "lchown",
    "fchownat", "utime", "utimes", "utimensat", "futimesat", "setxattr", "lsetxattr", "removexattr", "bind",
}  # fmt: skip
# The place was there already, or the thing was not: nothing was asked of the file system that it could have done.
_IDLE = ("-1 EEXIST", "-1 ENOENT")


def changes(watched: Path) -> Iterator[tuple[str, str]]:
    """Yield (path, line) for each attempt to open for writing, make, rename or remove something, failed or not."""
    for file in sorted(watched.parent.glob(f"{watched.name}.*")):
        for line in file.read_text(errors="replace").splitlines():
            call = _CALL.match(line)
            if call is None or call["result"].startswith(_IDLE):
                continue
            name, arguments = call["name"], call["arguments"]
            if name in _OPENING and (name == "creat" or _WRITING.search(_QUOTED.sub("", arguments))):
                opened = _OPENED.match(call["result"])
                yield (opened[1] if opened else _paths(arguments)[0]), line
            elif name == "bind" and "AF_UNIX" in arguments:
                yield from ((path, line) for path in _paths(arguments))
            elif name in _CHANGING - {"bind"}:
                # A symlink's first word is only text; of a rename or a link, both ends count.
                yield from ((path, line) for path in _paths(arguments)[1 if name.startswith("symlink") else 0 :])


def _paths(arguments: str) -> list[str]:
    """Return the absolute paths of a call's arguments; `dirfd<folder>, "name"` is one."""
    found, folder = [], ""
    for piece in re.split(r",\s*(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", arguments):
        if match := _FOLDER.match(piece):
            folder = match[1]
        elif match := _QUOTED.search(piece):
            found.append(os.path.join(folder, match[1]))
    return found

"""
Record what real clients send: `python -m tests.doors.recorded.record [NAME …]`, from the root of the project.

It installs each client into a folder of its own that it throws away, lets it upload to a recorder on loopback, and
writes every request, byte for byte, to NAME-N.http beside this file. It needs PyPI and npm, and for some clients node,
curl, wget and chromium; a client that can't be run is named and keeps the files it has.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from tests.doors.recorded.clients import CLIENTS, NODE, PAGE, PYTHON, Client

HERE = Path(__file__).resolve().parent
#: A client that takes longer is ended: it got an answer that it does not understand.
RUN_S = 60.0
#: Every client but OTLP's takes it for success.
ANSWER = b'{"status":"ok","accepted":1,"rejected":[],"code":200,"error":null}'
CORS = (
    b"Access-Control-Allow-Origin: %s\r\nAccess-Control-Allow-Credentials: true\r\nAccess-Control-Max-Age: 600\r\n"
    b"Access-Control-Allow-Methods: POST, OPTIONS\r\n"
    b"Access-Control-Allow-Headers: authorization, content-type, x-collector-key\r\n"
)


class Recorder:
    """Answers 200 to everything, and keeps what it was asked; pages are served under another origin."""

    def __init__(self, page: str = "") -> None:
        self.requests: list[bytes] = []
        self._page = page.encode()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(RUN_S)
        with client, suppress(OSError), client.makefile("rb") as stream:
            while head := _until(stream.readline):
                if b"expect: 100-continue" in head.lower():
                    client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                length = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
                body = stream.read(int(length[1])) if length else b""
                if re.search(rb"\r\ntransfer-encoding: *chunked", head, re.IGNORECASE):
                    while not body.endswith(b"0\r\n\r\n"):
                        line = stream.readline()
                        body += line + stream.read(int(line, 16) + 2)
                if not head.startswith(b"GET /favicon"):
                    self.requests.append(head + body)
                self._answer(client, head)

    def _answer(self, client: socket.socket, head: bytes) -> None:
        origin = re.search(rb"\r\norigin: *([^\r]*)", head, re.IGNORECASE)
        fields = CORS % origin[1] if origin else b""
        body, kind = (self._page, b"text/html") if self._page else (ANSWER, b"application/json")
        client.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%sContent-Length: %d\r\n\r\n%s" % (kind, fields, len(body), body)
        )


def _until(readline: object) -> bytes:
    """Read a head; nothing at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = readline()  # type: ignore[operator]  # a file's
        if not line:
            return b""
        head += line
    return head


def record(client: Client) -> list[bytes]:
    """Let one client upload; return its requests."""
    recorder = Recorder()
    with tempfile.TemporaryDirectory() as folder:
        try:
            _run(client, Path(folder), recorder.base)
        finally:
            recorder.close()
    return recorder.requests


def _run(client: Client, folder: Path, base: str) -> None:
    environ = {**os.environ, "BASE": base, "HOME": str(folder), "NO_PROXY": "*", "no_proxy": "*"}
    if client.runs == PAGE:
        page = Recorder(f"<script>const BASE={base!r};(async()=>{{{client.program}}})()</script>")
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        command += ["--virtual-time-budget=5000", "--dump-dom", page.base]
    elif client.runs == PYTHON:
        python = str(folder / "venv/bin/python")
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        if client.packages:
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--quiet", *client.packages], check=True)
        command = [python, "-c", client.program]
    elif client.runs == NODE:
        (folder / "package.json").write_text("{}")
        if client.packages:
            install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *client.packages]
            subprocess.run(install, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (folder / "run.js").write_text(client.program)
        command = ["node", "run.js"]
    else:
        command = ["sh", "-c", client.program]
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(command, cwd=folder, env=environ, check=False, timeout=RUN_S, stdout=subprocess.DEVNULL)


def main(names: list[str]) -> int:
    """Record the clients of these names, or all; return how many could not be recorded."""
    failed = 0
    for client in CLIENTS:
        if names and client.name not in names:
            continue
        if client.runs not in {PYTHON, "sh"} and shutil.which(client.runs) is None:
            print(f"{client.name}: needs {client.runs}, which is not installed")
            failed += 1
            continue
        requests = record(client)
        print(f"{client.name}: {len(requests)} requests")
        failed += not requests
        if requests:
            for file in HERE.glob(f"{client.name}-[0-9].http"):
                file.unlink()
        for number, request in enumerate(requests):
            (HERE / f"{client.name}-{number}.http").write_bytes(request)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""
AWS's engines on loopback, in our hands: as strict as they are, and as faulty as a test wants them.

What no other stand-in does: throttle some records, break off, answer with nonsense, lose an answer after the write.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPMessage, parse_headers
from io import BufferedReader

from tests.standins import reads
from tests.standins.faults import Failure, Fault, Line, Page, Refusal, Some, TooFew
from tests.standins.services import MIB, S3, Call, Firehose, Kinesis, Refused, Reply, Request, Service
from tests.standins.sqs import Sqs

#: What a client asks for, by `X-Amz-Target`, and the operation that it is.
_TARGETS = {
    "Kinesis_20131202.PutRecords": "PutRecords",
    **{f"Kinesis_20131202.{operation}": operation for operation in reads.OPERATIONS},
    "Firehose_20150804.PutRecordBatch": "PutRecordBatch",
    "AmazonSQS.SendMessageBatch": "SendMessageBatch",
    "AmazonSQS.GetQueueUrl": "GetQueueUrl",
}
_WRITES = ("PutRecords", "PutRecordBatch", "SendMessageBatch", "PutObject")


@dataclass(frozen=True)
class Taken:
    """
    One record that was kept, in the `call`th call, to a stream, a queue or a bucket.

    `key` is its partition key, its group, or the object's key.
    """

    service: str
    to: str
    payload: bytes
    key: str
    dedup_id: str
    call: int


class Engine:
    """
    One on `port`, for Kinesis, Firehose, SQS and S3 alike; a context manager.

    `record_bytes` is what a stream's record may have with its key; an answer comes no sooner than `latency_s` after
    its call. Streams, queues and buckets of all names are there.
    """

    def __init__(self, *, record_bytes: int = MIB, latency_s: float = 0.0) -> None:
        self._latency_s = latency_s
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        #: All that was kept, in its order.
        self.taken: list[Taken] = []
        sqs = Sqs(self.port)
        self._services: dict[str, Service] = {
            "PutRecords": Kinesis(record_bytes), "PutRecordBatch": Firehose(), "PutObject": S3(),
            "SendMessageBatch": sqs, "GetQueueUrl": sqs, **dict.fromkeys(reads.OPERATIONS, reads.Reads(self.taken)),
        }  # fmt: skip
        #: How many calls there were of each operation, and of each access key.
        self.calls: Counter[str] = Counter()
        self.signed: Counter[str] = Counter()
        #: How many calls were under way at once, at the most.
        self.most_at_once = 0
        #: By how much its clock is ahead of this machine's.
        self.clock_ahead_s = 0.0
        self._at_once = 0
        self._script: list[tuple[str, Fault | None]] = []
        self._standing: list[tuple[str, Fault]] = []
        self._good_for: dict[str, int] = {}
        self._lock = threading.Lock()
        #: Apart from the other, so that calls are counted while one of them is worked on.
        self._at_work = threading.Lock()
        self._open: set[socket.socket] = set()
        self._hanging: set[socket.socket] = set()
        self._releases = 0
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Engine:
        self._start(self._accept)
        return self

    def __exit__(self, *exc: object) -> None:
        # A plain close leaves whoever waits in accept() there.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    # -- what a test says

    def script(self, *faults: Fault | None, operation: str = "") -> None:
        """Let the next calls of an operation meet these, one each and None for none; without one, of all that write."""
        with self._lock:
            self._script += [(operation, fault) for fault in faults]

    @contextmanager
    def fault(self, fault: Fault, *, operation: str = "") -> Iterator[None]:
        """Let every call meet this while the block runs; together with those scripted, and with others of this."""
        standing = (operation, fault)
        with self._lock:
            self._standing.append(standing)
        try:
            yield
        finally:
            with self._lock:
                self._standing.remove(standing)
            if fault is Line.HANG:
                self.release()

    def release(self) -> None:
        """Let all calls that hang go on: they have their effect now, and are answered."""
        with self._lock:
            self._releases += 1
            for end in self._hanging:
                end.send(b"!")

    def expire(self, access_key: str, *, after: int = 0) -> None:
        """Let credentials run out after so many calls more: what they sign is refused then, what others sign is not."""
        with self._lock:
            self._good_for[access_key] = self.signed[access_key] + after

    # -- what a client says

    def _start(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(link)
            self._start(self._serve, link)

    def _serve(self, link: socket.socket) -> None:
        with suppress(OSError), link, link.makefile("rb") as stream:
            while line := stream.readline():
                method, path, _ = line.decode("latin-1").split(" ")
                headers = parse_headers(stream)
                target = headers.get("X-Amz-Target", "")
                operation = "PutObject" if method == "PUT" else _TARGETS.get(target, target)
                with self._counted(operation) as number:
                    if not self._meet(link, stream, Request(method, path, headers, b""), operation, number):
                        break
        self._open.discard(link)

    @contextmanager
    def _counted(self, operation: str) -> Iterator[int]:
        with self._lock:
            self.calls[operation] += 1
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            number = self.calls.total()
        try:
            yield number
        finally:
            with self._lock:
                self._at_once -= 1

    def _meet(self, link: socket.socket, stream: BufferedReader, head: Request, operation: str, number: int) -> bool:
        """Do with a call what is to be done; False when the connection is at its end."""
        faults, releases = self._due(operation)
        lines = [fault for fault in faults if isinstance(fault, Line)]
        if Line.RESET_BEFORE_BODY in lines:
            return _reset(link)
        if head.headers.get("Expect"):
            link.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = int(head.headers.get("Content-Length", 0))
        body = stream.read(length)
        if len(body) < length or (Line.HANG in lines and not self._hang(link, releases)):
            return False
        if Line.RESET_AFTER_BODY in lines:
            return _reset(link)
        time.sleep(self._latency_s)
        reply = self._work(Request(head.method, head.path, head.headers, body), operation, faults, number)
        if Line.REPLY_LOST in lines:
            return _reset(link)
        link.sendall(_written(reply))
        return True

    def _due(self, operation: str) -> tuple[list[Fault], int]:
        """Say which faults a call meets, and how many releases there were by then."""
        meant = ("", operation) if operation in _WRITES else (operation,)
        with self._lock:
            scripted = next((one for one in self._script if one[0] in meant), None)
            if scripted:
                self._script.remove(scripted)
            found = [scripted] if scripted else []
            return [fault for of, fault in [*found, *self._standing] if of in meant and fault], self._releases

    def _hang(self, link: socket.socket, releases: int) -> bool:
        """Wait until a release, which is True, or until the client hangs up."""
        mine, theirs = socket.socketpair()
        with mine, theirs:
            with self._lock:
                if releases != self._releases:
                    return True
                self._hanging.add(theirs)
            try:
                return mine in select.select([link, mine], [], [])[0]
            finally:
                with self._lock:
                    self._hanging.discard(theirs)

    def _work(self, request: Request, operation: str, faults: list[Fault], number: int) -> Reply:
        service = self._services.get(operation)
        if service is None:
            told = next((fault for fault in faults if isinstance(fault, Refusal)), None)
            refused = Refused(told.status, told.code, told.message) if told else None
            return Kinesis(0).refuse(refused or Refused(400, "UnknownOperationException", operation))
        pages = [fault for fault in faults if isinstance(fault, Page)]
        missing = sum(fault.missing for fault in faults if isinstance(fault, TooFew))
        try:
            self._know(service, request.headers)
            for fault in faults:
                if isinstance(fault, Refusal):
                    raise Refused(fault.status, fault.code, fault.message)
            if pages and not pages[0].keeps:
                return _shown(pages[0])
            with self._at_work:
                call = service.read(request)
                fates = self._keep(service, call, [fault for fault in faults if isinstance(fault, Some)], number)
            answer = service.answer(call, fates[: len(fates) - missing])
        except Refused as refused:
            return service.refuse(refused)
        return _shown(pages[0]) if pages else answer

    def _keep(self, service: Service, call: Call, fails: list[Some], number: int) -> list[Failure | None]:
        fates: list[Failure | None] = []
        for place, item in enumerate(call.items):
            failed = next((one.failure for one in fails if one.which(place, item.payload)), None)
            fates.append(item.refusal or failed)
            if fates[-1] is None and service.keep(call, item):
                self.taken.append(Taken(service.name, call.to, item.payload, item.key, item.dedup_id, number))
        return fates

    def _know(self, service: Service, headers: HTTPMessage) -> None:
        """Refuse who may not ask, or whose clock is wrong. The signature itself is not looked at."""
        _, _, scope = headers.get("Authorization", "").partition("Credential=")
        key = scope.partition("/")[0]
        if not key:
            raise Refused(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
        with self._lock:
            self.signed[key] += 1
            expired = self.signed[key] > self._good_for.get(key, self.signed[key])
        if expired:
            raise Refused(*service.expired, "The security token included in the request is expired")
        signed = datetime.strptime(headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        status, code, most_s = service.skewed
        if abs(time.time() + self.clock_ahead_s - signed) > most_s:
            raise Refused(status, code, "Signature expired or not yet current: the clocks are minutes apart")


def _reset(link: socket.socket) -> bool:
    """Let the close that follows be a reset; False, for the connection is at its end."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def _shown(page: Page) -> Reply:
    return Reply(page.status, page.body, {"Content-Type": page.content_type})


def _written(reply: Reply) -> bytes:
    phrase = HTTPStatus(reply.status).phrase
    headers = {"x-amzn-RequestId": "a-request", **reply.headers, "Content-Length": str(len(reply.body))}
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {reply.status} {phrase}\r\n{fields}\r\n".encode("latin-1") + reply.body

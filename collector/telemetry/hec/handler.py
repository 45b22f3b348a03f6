"""
The logging handler: takes lines without waiting, and has them sent by a thread of its own.

It is a `SplunkHandler` by its seams and not by its ways: as shipped that class loses most lines above 80 a second,
prints while it holds the handler's lock, and forgets what it could not send.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import weakref
from contextlib import suppress
from typing import Any, TypeGuard

import msgspec
import splunk_handler

from collector.clock import Clock
from collector.telemetry.hec.acks import Acks
from collector.telemetry.hec.buffer import Drop, HecBuffer, Loss
from collector.telemetry.hec.options import SOURCETYPE, Account, HecOptions
from collector.telemetry.hec.pace import Pace
from collector.telemetry.hec.sender import Hooks, Sender
from collector.telemetry.hec.transport import RequestsTransport, base_of
from collector.telemetry.hec.wire import Wire
from collector.telemetry.logs import scrub

#: How long lines may still be sent after a stop, in seconds. A choice; `graceful_timeout_s` counts with it.
DRAIN_S = 3.0
#: The largest line that is taken. Collector's have 16 KiB at most; HEC takes 5 MB.
MAX_LINE_BYTES = 64 << 10
#: The pause after a defect of ours, in seconds: it must not become a loop that takes a core.
_DEFECT_S = 1.0
#: From warnings on lines may use the buffer's reserve.
_SEVERE = frozenset({"warning", "error", "critical"})
#: Loggers of what the handler itself uses: what they say of a request would become the next request.
_OWN_LOGGERS = ("urllib3", "requests", "splunk_handler")

_NO_HOOKS = Hooks()
_object = msgspec.json.Decoder(dict[str, Any])
_handlers: weakref.WeakSet[HecHandler] = weakref.WeakSet()


class HecHandler(splunk_handler.SplunkHandler):  # type: ignore[misc]  # it has no types
    """
    The lines of one process on their way to HEC.

    `put` and `emit` take some µs, wait for nothing, and raise nothing. The hooks are called by the thread that sends. A
    forked child begins with nothing: what was queued is its parent's to send.
    """

    def __init__(
        self,
        options: HecOptions,
        *,
        clock: Clock,
        rng: random.Random,
        hooks: Hooks = _NO_HOOKS,
    ) -> None:
        loggers = [logging.getLogger(name) for name in _OWN_LOGGERS]
        propagate = [logger.propagate for logger in loggers]
        super().__init__(
            host=None, port=None, token=options.token, index=options.index, hostname=options.host,
            source=options.source, sourcetype=SOURCETYPE, url=f"{base_of(options.url)}services/collector/event",
            verify=options.ca_file or True, flush_interval=0, retry_count=0,
        )  # fmt: skip
        # The base class silences them for the whole process.
        for logger, was in zip(loggers, propagate, strict=True):
            logger.propagate = was
        self.session.close()
        self.options = options
        self._clock = clock
        self._rng = rng
        self._hooks = hooks
        self.buffer = HecBuffer(options.buffer_bytes, clock=clock)
        self._prefix = _prefix(options)
        self._begin()
        _handlers.add(self)

    def _begin(self) -> None:
        """Have a connection, a sender and nobody who works for it yet."""
        self._wire = Wire()
        self.session = self._wire.session
        self._transport = RequestsTransport(self.options, clock=self._clock, wire=self._wire)
        self._sender = Sender(
            self.buffer,
            self._transport,
            self.options,
            pace=Pace(clock=self._clock, rng=self._rng),
            acks=Acks(clock=self._clock),
            hooks=self._hooks,
        )
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._is_over = False

    def _begin_in_child(self) -> None:
        self.buffer.reset()
        self._wire.disown()
        # Children of one parent would else draw the same pauses, and come back together.
        self._rng.seed()
        self._begin()

    # -- lines ---------------------------------------------------------------------------------------------

    def put(self, line: bytes, level: str) -> None:
        """Take a line, an object in JSON, of a level such as `info`."""
        if len(line) > MAX_LINE_BYTES:
            self.buffer.refuse(Drop.OVERSIZE, len(line))
            return
        data = b"%b%d.%06d,%b%b}" % (self._prefix, *divmod(self._clock.now_us(), 1_000_000), b'"event":', line)
        if self.buffer.put(data, is_severe=level in _SEVERE) and self._sender.wants_lines and self._sender.is_due():
            self._sender.wants_lines = False
            self._wake.set()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record: a line if its message is bytes that are an object in JSON, else what is made of it."""
        try:
            if record.name.split(".", 1)[0] in _OWN_LOGGERS:
                return
            line = record.msg if _is_line(record.msg) else self.format_record(record)
            self.put(line, record.levelname.lower())
        except Exception:  # noqa: BLE001 - an argument of a record may do anything, and the log must go on
            self.buffer.refuse(Drop.FORMAT)

    def format_record(self, record: logging.LogRecord) -> bytes:
        """Render a record that is none of Collector's lines, secrets that it is known to show withheld."""
        fields = {"level": record.levelname.lower(), "event": "log", "logger": record.name, "pid": record.process}
        return msgspec.json.encode(scrub(None, "", {**fields, "message": self.format(record)}))

    def account(self) -> Account:
        """Look at the accounts of all lines."""
        return self.buffer.account()

    def take_losses(self) -> list[Loss]:
        """Return what was dropped since this was last asked."""
        return self.buffer.take_losses()

    # -- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send."""
        if self._thread is None and not self._is_over:
            self._thread = threading.Thread(target=self._run, name="hec", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        """Send until the end; a copy of this thread in a forked child, as greenlets have it, does nothing more."""
        sender, wake = self._sender, self._wake
        while True:
            if sender is not self._sender:
                # It has no place among the child's threads that it could leave, and would print that at its end.
                threading.Event().wait()
            if self._is_over:
                return
            wait_s = self._step(sender)
            if sender is self._sender and sender.is_hurried and sender.is_idle:
                return
            if wait_s > 0:
                wake.wait(wait_s)
                wake.clear()

    def _step(self, sender: Sender) -> float:
        try:
            return sender.step()
        except Exception as error:  # noqa: BLE001 - a defect must not end the only one who sends
            with suppress(Exception):
                self._hooks.defect(error)
            return _DEFECT_S

    def shutdown(self, deadline_s: float = DRAIN_S) -> None:
        """Send what there is for so long, and count the rest as dropped; safe to call twice."""
        if self._is_over:
            return
        until_s = self._clock.monotonic() + deadline_s
        self._transport.end_s = until_s
        self._sender.is_hurried = True
        self._wake.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(deadline_s)
        elif self._pid == os.getpid():
            # At the interpreter's end no thread can be started any more.
            while not self._sender.is_idle and (left_s := until_s - self._clock.monotonic()) > 0:
                self._wake.wait(min(self._step(self._sender), left_s))
                self._wake.clear()
        self._is_over = True
        self._wake.set()
        self.buffer.give_up(Drop.SHUTDOWN, Drop.UNCONFIRMED)
        self.session.close()
        # Another list: the base class's exit handler may be walking this one, and would pass the next handler over.
        splunk_handler.instances = [other for other in splunk_handler.instances if other is not self]

    def close(self) -> None:
        """Shut down, and be no handler of `logging`'s any more."""
        self.shutdown()
        logging.Handler.close(self)

    # -- what the base class would do -------------------------------------------------------------------------

    def flush(self) -> None:
        """Do nothing: `logging` calls it at odd times, and lines leave by themselves."""

    def force_flush(self) -> None:
        """Do nothing, as `flush`."""

    def wait_until_empty(self) -> None:
        """Do nothing: the base class would wait without an end."""

    def start_worker_thread(self) -> None:
        """Do nothing: `start` does."""

    def empty_queue(self) -> bool:
        """Say that the base class's queue is empty, which it always is."""
        return True

    def _splunk_worker(self, payload: object = None) -> None:  # noqa: ARG002 -- the base class's shape
        raise AssertionError("the base class must not send")

    def write_log(self, log_message: str) -> None:
        """Do nothing: the base class would print."""

    def write_debug_log(self, log_message: str) -> None:
        """Do nothing, as `write_log`."""


def _prefix(options: HecOptions) -> bytes:
    """Render an envelope up to its time; of unknown keys HEC says nothing, and drops what follows them."""
    fields = {"host": options.host, "source": options.source, "sourcetype": SOURCETYPE, "index": options.index}
    return msgspec.json.encode({name: value for name, value in fields.items() if value})[:-1] + b',"time":'


def _is_line(message: object) -> TypeGuard[bytes]:
    """Tell whether a message can stand in an envelope as it is: one that can't would spoil all others of its batch."""
    if not isinstance(message, bytes) or not message.startswith(b"{"):
        return False
    try:
        _object.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _reset_all() -> None:
    for handler in list(_handlers):
        handler._begin_in_child()  # noqa: SLF001 -- the module's own class


os.register_at_fork(after_in_child=_reset_all)

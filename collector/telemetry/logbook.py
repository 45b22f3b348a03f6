"""
What one process says: its logger and signals, and the two places where its lines go.

The standard output gets each line, and Splunk too, where there is one. Neither is ever waited for, and what either did
not take is told by the other.
"""

from __future__ import annotations

import logging
import os
import random
import socket
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, cast

from collector.clock import Clock
from collector.settings import Settings
from collector.settings.model import HEC_DRAIN_S
from collector.telemetry.logs import build_logger
from collector.telemetry.metrics import Metrics
from collector.telemetry.reporter import say_accounts
from collector.telemetry.signals import Signals
from collector.telemetry.stdout import LineStream

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from collector.telemetry.hec.handler import HecHandler
    from collector.telemetry.hec.options import Account

#: The smallest part of a buffer that a batch should be: while one is under way others must find room.
_BATCHES_IN_BUFFER = 4
_BOOT_BITS = 48
#: Under this name gunicorn's configuration has what writes gunicorn's own words.
_GUNICORN_HANDLER = "stdout"
_GUNICORN_LOGGERS = ("", "gunicorn.error")
#: What they say of a request to Splunk would become the next one.
_UNHEARD = ("urllib3", "requests", "splunk_handler")
_CRITICAL = "critical"


class Logbook:
    """
    The log of one process. The constructor opens nothing and loads little; `start` begins to send.

    `boot` tells this process from all others, `rest` waits so many seconds. `bound` stands on each line.
    """

    def __init__(
        self, settings: Settings, *, clock: Clock, counts: Metrics, rest: Callable[[float], None], **bound: object
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._counts = counts
        self._rest = rest
        self._bound = bound
        self._told: Account | None = None
        self._report_at_s = clock.monotonic() + settings.report_s
        self._is_closed = False
        self.boot = f"{random.SystemRandom().getrandbits(_BOOT_BITS):012x}"
        self.stdout = LineStream(clock=clock)
        self.hec: HecHandler | None = None

    @cached_property
    def _logger(self) -> FilteringBoundLogger:
        """Load structlog, and what sends to Splunk: 40 ms, and 200 more."""
        if self._settings.hec_url is not None:
            self.hec = self._open_hec(self._settings.hec_url)
        return build_logger(
            self.stdout, self._settings.log_level, clock=self._clock, also=None if self.hec is None else self.hec.put,
            boot=self.boot, pid=os.getpid(), **self._bound,
        )  # fmt: skip

    @cached_property
    def signals(self) -> Signals:
        """Every signal as a method. The first line loads what makes lines, unless `start` has."""
        late = _LateLogger(lambda: self._logger)
        return Signals(cast("FilteringBoundLogger", late), self._counts, clock=self._clock)

    def _open_hec(self, url: str) -> HecHandler:
        from collector.telemetry.hec.handler import HecHandler  # noqa: PLC0415 -- 0.2 s, for those who have a Splunk
        from collector.telemetry.hec.options import HecOptions  # noqa: PLC0415 -- as above
        from collector.telemetry.hec.sender import Hooks  # noqa: PLC0415 -- as above

        settings = self._settings
        return HecHandler(
            HecOptions(
                url=url,
                token=settings.hec_token or "",
                buffer_bytes=settings.hec_buffer_bytes,
                batch_bytes=min(settings.hec_batch_bytes, settings.hec_buffer_bytes // _BATCHES_IN_BUFFER),
                linger_s=settings.hec_linger_s,
                ack=settings.hec_ack,
                index=settings.hec_index or "",
                host=settings.task or socket.gethostname(),
                ca_file=settings.hec_ca_file,
            ),
            clock=self._clock,
            rng=random.Random(),
            # The signals need a logger, and that this handler.
            hooks=Hooks(
                failing=lambda *said: self.signals.hec_failing(*said),  # noqa: PLW0108 -- see above
                refused=lambda *said: self.signals.hec_refused(*said),  # noqa: PLW0108
                recovered=lambda *said: self.signals.hec_recovered(*said),  # noqa: PLW0108
                unconfirmed=lambda *said: self.signals.hec_unconfirmed(*said),  # noqa: PLW0108
                defect=lambda error: self.signals.internal_error("hec.step", error),
            ),
        )

    def start(self) -> None:
        """Begin to send, and take what gunicorn and libraries say into the log. Safe to call again."""
        logger = self._logger
        if self.hec is not None:
            self.hec.start()
        for name in _GUNICORN_LOGGERS:
            others = logging.getLogger(name)
            for handler in [one for one in others.handlers if one.get_name() == _GUNICORN_HANDLER]:
                others.removeHandler(handler)
                others.addHandler(_Forward(logger))

    def tick(self) -> None:
        """Say what was gathered, and what got lost; once a second."""
        self.stdout.flush()
        self.look()
        hold = set()
        if not self.stdout.may_tell():
            hold.add("stdout.lost")
        if self.hec is not None and not self.hec.buffer.may_tell():
            hold.add("hec.dropped")
        self.signals.flush(hold=hold)
        now_s = self._clock.monotonic()
        if self.hec is not None and self._settings.report_s and now_s >= self._report_at_s:
            self._report_at_s = now_s + self._settings.report_s
            self.report()

    def look(self) -> None:
        """Bring the metrics to where the accounts are."""
        if (lost := self.stdout.take_lost()) is not None:
            self.signals.stdout_lost(lost.count, lost.first_us, lost.last_us)
        if self.hec is not None:
            account = self.hec.account()
            losses = self.hec.take_losses()
            now_us = self._clock.now_us()
            say_accounts(account, self._told, losses, now_us, signals=self.signals, counts=self._counts)
            self._counts.set("collector_hec_buffer_bytes", self.hec.options.buffer_bytes)
            self._told = account

    def report(self) -> None:
        """Say how this process's lines for Splunk stand."""
        if self.hec is None:
            return
        account = self.hec.account()
        self.signals.hec_report(
            emitted=account.emitted,
            delivered=account.delivered,
            dropped=account.lost,
            queued=account.queued,
            in_flight=account.in_flight,
            held_bytes=account.held_bytes,
            buffer_bytes=self.hec.options.buffer_bytes,
            high_water_bytes=account.high_water_bytes,
            oldest_age_s=account.oldest_age_s,
            bytes_in=account.bytes_in,
            bytes_wire=account.bytes_wire,
            requests=account.requests,
            retries=account.retries,
            possible_duplicates=account.possible_duplicates,
        )

    def close(self) -> None:
        """
        Send what there is within `HEC_DRAIN_S`, and say what did not get there. Safe to call twice.

        What is said later goes to the standard output, as long as it takes it.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self.look()
        self.signals.flush()
        self.report()
        if self.hec is not None:
            self.hec.shutdown(HEC_DRAIN_S)
            self.look()
            self.signals.flush()
            # What was said now is counted, and not told any more.
            self.look()
        self.stdout.close(self._rest)


class _LateLogger:
    """A logger that is made for its first line."""

    def __init__(self, make: Callable[[], FilteringBoundLogger]) -> None:
        self._make = make

    def debug(self, event: str, **fields: object) -> None:
        self._make().debug(event, **fields)

    def info(self, event: str, **fields: object) -> None:
        self._make().info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        self._make().warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        self._make().error(event, **fields)


class _Forward(logging.Handler):
    """Takes what others say by Python's `logging`, such as gunicorn, into the log."""

    def __init__(self, logger: FilteringBoundLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Say it in a line of its own."""
        origin = record.name.split(".", 1)[0]
        if origin in _UNHEARD:
            return
        level = record.levelname.lower()
        say = getattr(self._logger, "error" if level == _CRITICAL else level, self._logger.info)
        error = record.exc_info[1] if record.exc_info else None
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit, or whose __str__ fails
            message = str(record.msg)
        say("gunicorn" if origin == "gunicorn" else "log", logger=record.name, message=message, exc_info=error)

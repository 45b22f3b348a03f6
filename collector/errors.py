"""
Every exception that Collector raises on purpose.

    CollectorError
    ├── SettingsError            the settings, or the tenants, do not load
    ├── BadUpload                an upload is refused for what it is; carries a Reason
    ├── SpoolError               the spool can't take or give data
    │   ├── SpoolFull            no room: the budget, or ENOSPC
    │   └── SpoolBroken          the file system refuses (read-only, I/O error, no inodes)
    ├── SinkError
    │   └── TransientSinkError   nothing of the batch counts as written: put it back, try later
    │       ├── ThrottledSinkError   the sink asks for a slower pace
    │       └── AmbiguousSinkError   no answer came: what was sent may have arrived, and will be sent again
    ├── HecUnsent                a request to Splunk did not leave: nobody has its lines
    ├── HecUnanswered            a request to Splunk left, whole or in part, and no answer came
    ├── CannotLook               what `collector watch` is to look at can't be read
    ├── TuneError                a run of `collector hec tune` can't be made, or its accounts do not add up
    ├── LinesSpent               it has made as many lines as it may
    ├── ChildError               its child is gone, or can't do what it is told
    ├── ScrapeError              a page of metrics can't be had, or does not hold what is looked for
    ├── BindError                an address can't be listened on
    └── LedgerError              an account that does not add up: a defect of ours

It imports nothing but the vocabulary, so that any row may raise from it.
"""

from __future__ import annotations


class CollectorError(Exception):
    """The root: catch it at an edge, never in between."""


class SettingsError(CollectorError):
    """Raised once with all mistakes, each a sentence that names the setting and says what to write instead."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class BadUpload(CollectorError):
    """Raised when an upload as a whole can't be taken; `reason` is a value of `outcome.Reason`."""

    def __init__(self, reason: str, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.detail = detail


class SpoolError(CollectorError):
    """Raised when the spool can't take or give data; the upload is answered 503."""


class SpoolFull(SpoolError):
    """Raised when an append finds no room; nothing of it was kept."""


class SpoolBroken(SpoolError):
    """Raised when the file system refuses an append for another cause than room; nothing of it was kept."""


class SinkError(CollectorError):
    """The root of what a sink may raise."""


class TransientSinkError(SinkError):
    """Raised by a sink when the whole batch must be tried again later; `code` is the destination's own word for it."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class ThrottledSinkError(TransientSinkError):
    """Raised by a sink when its destination asks for a slower pace."""


class AmbiguousSinkError(TransientSinkError):
    """Raised by a sink that was not told what became of the batch: tried again, its events may be there twice."""


class HecUnsent(CollectorError):
    """Raised when a request to Splunk did not leave."""


class HecUnanswered(CollectorError):
    """
    Raised when a request to Splunk left, whole or in part, and no answer came: its lines may have arrived.

    `wire_bytes` is how many went, if all of it did.
    """

    def __init__(self, message: str, *, wire_bytes: int) -> None:
        super().__init__(message)
        self.wire_bytes = wire_bytes


class CannotLook(CollectorError):
    """Raised when what is to be watched can't be read; the message says what was wrong and what to do about it."""


class TuneError(CollectorError):
    """Raised when a run can't be made, or its accounts do not add up; the sentence says what to do."""


class LinesSpent(CollectorError):
    """Raised when as many lines were made as there may be."""


class ChildError(CollectorError):
    """Raised when the child is gone, or can't do what it is told."""


class ScrapeError(CollectorError):
    """Raised when a page can't be had, or does not hold what is looked for; the sentence says what to do."""


class BindError(CollectorError):
    """Raised when an address can't be listened on; `is_busy`: another listens there, and may let go of it."""

    def __init__(self, message: str, *, is_busy: bool) -> None:
        super().__init__(message)
        self.is_busy = is_busy


class LedgerError(CollectorError):
    """Raised when a receipt does not add up to its batch, or an account would go below zero."""

"""
The ledger of the whole task: the books of every owner, living, dead and retired, added up.

    <spool>/retired           sums of directories that are gone, replaced by rename
    <spool>/owners/<owner>/   counters (the ledger) and metrics.json of one owner

A directory is retired in two steps: its sums go into `retired` together with its name, then it is removed. A
reader passes over directories that `retired` names, and reads again if `retired` changed meanwhile; so nothing is
counted twice or not at all, whenever a process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from collector.errors import LedgerError
from collector.outcome import FATES, Outcome
from collector.telemetry import counters, metrics
from collector.telemetry.ledger import COUNTERS

METRICS = "metrics.json"
_LOOKS = 20
# For ten thousand tenants at once, whose pages are made while uploads wait for the same processor.
_FATES_OF = {outcome.value: [fate.name for fate in FATES if fate.outcome is outcome] for outcome in Outcome}
_WITH_REASON = [fate.name for fate in FATES if fate.reason is not None]


class Retired(msgspec.Struct):
    """Sums of what is gone; `absorbed` are directories that are in the sums and may still be there."""

    tenants: dict[str, counters.Row] = msgspec.field(default_factory=dict)
    absorbed: list[str] = msgspec.field(default_factory=list)
    # As it was written: another version of the code may have, and the ledger beside it must be read all the same.
    metrics: msgspec.Raw = msgspec.Raw(b"{}")


class Totals(msgspec.Struct, frozen=True):
    """The ledger by tenant, each with a number for every name in `counters.COLUMNS`; copies are accepted, too."""

    tenants: dict[str, counters.Row]

    @property
    def total(self) -> counters.Row:
        """Add the tenants up."""
        total: counters.Row = {}
        for row in self.tenants.values():
            _add(total, row)
        return total

    @property
    def balanced(self) -> bool:
        """Tell whether the identity holds for every tenant."""
        return not self.unbalanced()

    def unbalanced(self) -> list[str]:
        """Name the tenants for whom the identity does not hold."""
        return [tenant_id for tenant_id, row in self.tenants.items() if 2 * row.get("accepted", 0) != sum(row.values())]

    def outcomes(self) -> counters.Row:
        """Add the tenants up, and fold the columns into outcomes: accepted, each `Outcome`, deduplicated, pending."""
        return _outcomes(self.total)

    def as_json(self) -> dict[str, object]:
        """Return what `GET /ledger` answers."""
        tenants = {tenant_id: _with_reasons(row) for tenant_id, row in sorted(self.tenants.items())}
        return {"balanced": self.balanced, **_with_reasons(self.total), "tenants": tenants}


def _outcomes(row: counters.Row) -> counters.Row:
    folded = {"accepted": row.get("accepted", 0)}
    for outcome, fates in _FATES_OF.items():
        folded[outcome] = sum([row.get(fate, 0) for fate in fates])
    folded["deduplicated"] = row.get("deduplicated", 0)
    folded["pending"] = row.get("pending", 0)
    return folded


def _with_reasons(row: counters.Row) -> dict[str, object]:
    lost = {name: row[name] for name in _WITH_REASON if row.get(name, 0)}
    return {**_outcomes(row), "reasons": lost}


def _add(sums: counters.Row, row: counters.Row) -> None:
    for name, count in row.items():
        sums[name] = sums.get(name, 0) + count


class Books:
    """All books below one spool."""

    def __init__(self, root: Path) -> None:
        self._owners = root / "owners"
        self._retired = root / "retired"
        self._lock = root / "retired.lock"

    def totals(self) -> Totals:
        """Add everything up, as of one moment of each book; raises LedgerError if the books do not hold still."""
        for _ in range(_LOOKS):
            before = self._retired_id()
            retired = self._read_retired()
            tenants: dict[str, counters.Row] = {}
            for row_id, row in retired.tenants.items():
                _add(tenants.setdefault(row_id, {}), row)
            for directory in self._living(retired):
                # One without counters is just made, or goes: then what it counted is in `retired`, which is new.
                with contextlib.suppress(FileNotFoundError):
                    for tenant_id, row in counters.read(directory / COUNTERS).items():
                        if tenant_id in tenants:
                            _add(tenants[tenant_id], row)
                        else:
                            tenants[tenant_id] = row
            if before == self._retired_id():
                for row in tenants.values():
                    row["accepted"] = row.get("accepted", 0) + row.get("deduplicated", 0)
                return Totals(tenants)
        raise LedgerError("the ledger's files changed each time they were read")

    def metrics(self, *, but: str) -> metrics.Snapshot:
        """Merge the metrics of every owner, retired ones too, but those of the owner named `but`."""
        retired = self._read_retired()
        found = [_snapshot(bytes(retired.metrics))]
        for directory in self._living(retired):
            if directory.name != but:
                with contextlib.suppress(OSError):
                    found.append(_snapshot((directory / METRICS).read_bytes()))
        return metrics.merge(found)

    def bury(self, directory: Path) -> None:
        """Leave of a dead owner's metrics what remains true; its adopter calls this. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            last = _snapshot((directory / METRICS).read_bytes())
            replace(directory / METRICS, metrics.encode(metrics.without_gauges(last)))

    def retire(self, directory: Path) -> bool:
        """
        Fold the books of a directory that its caller holds locked and whose events are all settled, and remove it.

        Return False when another process is at it; try again later. Raises OSError.
        """
        lock_fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            retired = self._read_retired()
            if directory.name not in retired.absorbed:
                for tenant_id, row in counters.read(directory / COUNTERS).items():
                    _add(retired.tenants.setdefault(tenant_id, {}), row)
                with contextlib.suppress(FileNotFoundError):
                    last = metrics.without_gauges(_snapshot((directory / METRICS).read_bytes()))
                    sums = metrics.merge([_snapshot(bytes(retired.metrics)), last])
                    retired.metrics = msgspec.Raw(metrics.encode(sums))
                retired.absorbed = [name for name in retired.absorbed if (self._owners / name).exists()]
                retired.absorbed.append(directory.name)
                replace(self._retired, msgspec.json.encode(retired))
            # At one stroke: of a directory that was removed in part nobody could say what it had counted. What is left
            # of it under this name is swept away.
            gone = directory.with_name(f".{directory.name}")
            directory.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            return True
        finally:
            os.close(lock_fd)

    def _living(self, retired: Retired) -> Iterable[Path]:
        if not self._owners.is_dir():
            return []
        absorbed = set(retired.absorbed)
        return sorted(
            one for one in self._owners.iterdir() if not one.name.startswith(".") and one.name not in absorbed
        )

    def _read_retired(self) -> Retired:
        try:
            return msgspec.json.decode(self._retired.read_bytes(), type=Retired)
        except FileNotFoundError:
            return Retired()

    def _retired_id(self) -> tuple[int, int]:
        try:
            stat = self._retired.stat()
        except FileNotFoundError:
            return (0, 0)
        return (stat.st_ino, stat.st_mtime_ns)


def _snapshot(data: bytes) -> metrics.Snapshot:
    try:
        return metrics.decode(data)
    except msgspec.DecodeError:
        return metrics.Snapshot(ignored=1)


def replace(path: Path, data: bytes) -> None:
    """Put data in a file's place: the old or the new is there at any moment, whole."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(data)
    new.replace(path)

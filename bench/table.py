"""
The report as Markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from bench.cell import Cell
from bench.run import Report, Row, best
from bench.uploads import EVENT_BYTES, POOL_UPLOADS

#: A generator this busy may be what holds the rate down.
LOAD_LIMIT = 0.9
#: So much foreign work on the server's core makes the absolute numbers poor.
OTHERS_LIMIT = 0.1
_MIB = 1 << 20

_COLUMNS = (
    "events", "encoding", "ack", "links", "server", "requests/s", "events/s", "rate ÷ ref.", "CPU µs/request",
    "CPU ÷ ref.", "p50 ms", "p99 ms", "peak RSS MiB", "server CPU", "load CPU",
)  # fmt: skip
_WORDS = 5  # the columns at the left that are words


def render(report: Report) -> str:
    """Return the table, and in sentences what it needs to be read."""
    rows = [line for row in report.rows for line in _rows(row)]
    return "\n".join(["", table(_COLUMNS, rows, words=_WORDS), "", *(f"- {note}" for note in _notes(report)), ""])


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, words: int) -> str:
    """Render a table, its first columns words and the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(columns) - words)
    return "\n".join(_line(cells) for cells in (columns, rule, *rows))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rows(row: Row) -> Iterator[list[str]]:
    theirs, ours = best(row.reference), best(row.collector)
    case = (str(row.case.events), row.case.encoding, row.case.ack, str(row.case.connections))
    yield [*case, "reference", *_numbers(theirs, "", "")]
    rate, cpu = ours.requests_per_s / theirs.requests_per_s, ours.cpu_us / theirs.cpu_us
    yield [*case, "**Collector**", *_numbers(ours, f"**{rate:.2f}**", f"{cpu:.2f}")]


def _numbers(cell: Cell, rate: str, cpu: str) -> list[str]:
    marks = ("†" if cell.load_busy > LOAD_LIMIT else "") + ("‡" if cell.unexpected else "")
    return [
        f"{cell.requests_per_s:,.0f}{marks}", f"{cell.events_per_s:,.0f}", rate, f"{cell.cpu_us:,.0f}", cpu,
        f"{cell.p50_ms:.1f}", f"{cell.p99_ms:.1f}", f"{cell.peak_bytes / _MIB:.0f}", f"{cell.server_busy:.0%}",
        f"{cell.load_busy:.0%}",
    ]  # fmt: skip


def _notes(report: Report) -> Iterator[str]:
    plan, cells = report.plan, [cell for row in report.rows for cell in (*row.reference, *row.collector)]
    shown = [best(side) for row in report.rows for side in (row.reference, row.collector)]
    yield report.machine
    yield (
        f"Server: one worker, pinned to core {report.cores.server}. Load: one thread on core {report.cores.load}, in a "
        "closed loop, so the latencies are those at the peak rate."
    )
    if report.cores.shared:
        yield f"**{report.cores.shared[0].upper()}{report.cores.shared[1:]}.**"
    yield (
        "Reference: an empty bare WSGI application that reads the body, on stock gunicorn with its gevent worker, in "
        "the same run. Collector: key, quota, shares, spool, ledger, metrics, logs, and the flusher with a `file:` "
        "sink on tmpfs; its CPU is counted until the last event is in the sink."
    )
    yield (
        f"Events of {EVENT_BYTES} bytes; {POOL_UPLOADS} different uploads of each kind go round. "
        f"{plan.seconds:g} s after a warm-up of {plan.warm_up_s:g} s. {_rounds(report)}"
    )
    if any(cell.load_busy > LOAD_LIMIT for cell in shown):
        yield f"† The load used over {LOAD_LIMIT:.0%} of its core: the server may be able to do more than this."
    if any(cell.unexpected for cell in shown):
        sums: dict[str, int] = {}
        for cell in shown:
            for status, count in cell.unexpected.items():
                sums[status] = sums.get(status, 0) + count
        told = ", ".join(f"{count:,} with status {status}" for status, count in sorted(sums.items()))
        yield f"‡ Some answers were not those of an upload that was taken whole: {told}. The rates leave them out."
    foreign = max(cell.others_busy for cell in cells)
    if foreign > OTHERS_LIMIT:
        yield (
            f"**Something else used up to {foreign:.0%} of the server's core**: trust the CPU and its ratio, then the "
            "rates' ratio, and not the absolute rates."
        )
    yield from _account(report)


def _rounds(report: Report) -> str:
    if report.plan.rounds == 1:
        return "One round."
    spreads = []
    for row in report.rows:
        for side in (row.reference, row.collector):
            rates = [cell.requests_per_s for cell in side]
            spreads.append(1 - min(rates) / max(rates))
    return (
        f"Shown is the best of {report.plan.rounds} rounds, reference and Collector in turn; the worst is "
        f"{median(spreads):.0%} below it at the median, {max(spreads):.0%} at the most."
    )


def _account(report: Report) -> Iterator[str]:
    accounts = [cell.account for row in report.rows for cell in row.collector if cell.account is not None]
    late = max(cell.delivery_s for row in report.rows for cell in row.collector)
    verdict = "**Events were lost or came twice.**" if report.problems else "None lost, none twice."
    yield (
        f"Events acknowledged: {sum(one.acknowledged for one in accounts):,}, in "
        f"{sum(one.uploads_acknowledged for one in accounts):,} uploads. Ledger: "
        f"{sum(one.accepted for one in accounts):,} accepted = {sum(one.delivered for one in accounts):,} delivered + "
        f"{sum(one.pending for one in accounts):,} pending. Sink: {sum(one.stored for one in accounts):,} lines of "
        f"{sum(one.uploads_stored for one in accounts):,} uploads, the last one {late:.1f} s after the load's end at "
        f"the latest. {verdict}"
    )

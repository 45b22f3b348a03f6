"""
How soon `collector watch processed-bytes` sees what is planted, and how often it cries: `python -m bench.watch`.

On weeks that never were (`collector.control.watch.weeks`), each pair of another service: made from a seed, so that the
same command prints the same table.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import click
import msgspec

from bench.table import table
from collector.control.watch.course import Calendar, course_of
from collector.control.watch.finding import Finding, What
from collector.control.watch.judge import judge
from collector.control.watch.robust import median
from collector.control.watch.series import DAY, Series
from collector.control.watch.weeks import MONDAY, SIZES, Change, Kind, Traffic, make

#: Two weeks to learn from; then a day with a change in it, or a week without.
_LEARN, _DAY, _WEEK = 14, 1, 7
#: A change is planted within the first half of its day, so that twelve hours of it are seen.
_PLANTED_WITHIN, _SEEN_WITHIN = DAY // 2, DAY // 2
#: Sunday, 29 March 2026, when clocks are set by an hour in Europe.
_MARCH = 29_579_040
#: How a change is to be named.
NAMED = {
    Kind.ZERO: What.ZERO, Kind.STEP_DOWN: What.STEP, Kind.STEP_UP: What.STEP, Kind.LEAK: What.GAP,
    Kind.FLAT: What.PATTERN, Kind.MOVED: What.PATTERN, Kind.LUMPS: What.PATTERN,
}  # fmt: skip
_WORDS = {
    Kind.ZERO: "drop to zero", Kind.STEP_DOWN: "step, 30 % less", Kind.STEP_UP: "step, 50 % more",
    Kind.LEAK: "gap, 1 % more each hour", Kind.FLAT: "pattern: the day is flat",
    Kind.MOVED: "pattern: the day comes 6 h later", Kind.LUMPS: "pattern: the same bytes in lumps",
}  # fmt: skip


class Nuisance(msgspec.Struct, frozen=True):
    """What is no anomaly: a name, and what it makes of traffic."""

    name: str
    makes: Callable[[Traffic, random.Random], Traffic]
    zone: str = "UTC"


def _outage(traffic: Traffic, chance: random.Random) -> Traffic:
    outage = (chance.randrange(_LEARN * DAY), chance.randrange(60, 300))
    return msgspec.structs.replace(traffic, outages=(outage,))


def _with(**values: object) -> Callable[[Traffic, random.Random], Traffic]:
    return lambda traffic, _: msgspec.structs.replace(traffic, **values)


NUISANCES = (
    Nuisance("none", _with()),
    Nuisance("weekends of 30 %", _with(weekend=0.3)),
    Nuisance("growth of 15 % a week", _with(growth_a_week=0.15)),
    Nuisance("three bursts a week, 10 to 40 min", _with(bursts_a_week=3.0)),
    Nuisance("one minute of 200 not reported", _with(lost_minutes=0.005)),
    Nuisance("clocks set by an hour, UTC", _with(zone="Europe/Berlin", start=_MARCH - 16 * DAY), zone=""),
    Nuisance("clocks set by an hour, --timezone", _with(zone="Europe/Berlin", start=_MARCH - 16 * DAY),
             zone="Europe/Berlin"),
    Nuisance("an outage of 1 to 5 h in the history", _outage),
    Nuisance("empty nights", _with(is_night_empty=True)),
    Nuisance("2 kB a minute", _with(bytes_a_minute=2000.0, spread=0.3)),
)  # fmt: skip


def traffic_of(seed: int, *, days: int) -> Traffic:
    """Draw a service: how much its day and its week swing, how it grows, and how unsteady it is."""
    chance = random.Random(seed)
    return Traffic(
        seed, days, MONDAY + chance.randrange(7) * DAY,
        bytes_a_minute=10 ** chance.uniform(5, 9),
        swing=chance.uniform(0.2, 0.9),
        weekend=chance.uniform(0.5, 1.1),
        growth_a_week=chance.uniform(-0.03, 0.06),
        spread=chance.uniform(0.03, 0.1),
        spread_of_days=chance.uniform(0.02, 0.05),
    )  # fmt: skip


class Seen(msgspec.Struct, frozen=True):
    """Of one planted change: after how many minutes it could be told, or None, and whether it was given its name."""

    delay: int | None
    is_named: bool


def seen_of(kind: Kind, seed: int, *, has_sent: bool = True) -> Seen:
    """Plant a change in the day after two weeks, half of which have an outage in them, and look for it."""
    chance = random.Random(f"{kind} {seed}")
    traffic = traffic_of(seed, days=_LEARN + _DAY)
    if chance.random() < 0.5:
        traffic = _outage(traffic, chance)
    at = _LEARN * DAY + chance.randrange(_PLANTED_WITHIN)
    processed, sent = make(traffic, Change(kind, at, SIZES.get(kind, 1.0)))
    found = _found(processed, sent if has_sent else None, recent=_DAY * DAY, zone="UTC")
    planted = traffic.start + at
    after = [one for one in found if planted < one.told <= planted + _SEEN_WITHIN]
    return Seen(min((one.told - planted for one in after), default=None), any(one.what is NAMED[kind] for one in after))


def alarms_of(nuisance: Nuisance, seed: int) -> list[str]:
    """Return what is found in a week without a change; each day is judged by the two weeks before it."""
    chance = random.Random(f"{nuisance.name} {seed}")
    traffic = nuisance.makes(traffic_of(seed, days=_LEARN + _WEEK), chance)
    processed, sent = make(traffic, Change())
    found = []
    for day in range(_WEEK):
        first, last = day * DAY, (day + _LEARN + 1) * DAY
        parts = [Series(one.start + first, one.values[first:last]) for one in (processed, sent)]
        since = traffic.start + (day + _LEARN) * DAY
        found += [one for one in _found(*parts, recent=DAY, zone=nuisance.zone) if one.told > since]
    return [one.what.value for one in found]


def _found(processed: Series, sent: Series | None, *, recent: int, zone: str) -> Sequence[Finding]:
    course = course_of(processed, sent, end=processed.end, recent=recent)
    return judge(course, Calendar(zone)).findings


def row_of_change(kind: Kind, seen: Sequence[Seen]) -> tuple[str, ...]:
    """Return a row of the first table."""
    delays = sorted(one.delay for one in seen if one.delay is not None)
    named = sum(one.is_named for one in seen)
    few = (f"{median(delays):.0f}", f"{delays[int(0.9 * (len(delays) - 1))]}") if delays else ("", "")
    return (_WORDS[kind], str(len(seen)), f"{len(delays) / len(seen):.1%}", *few, f"{named / len(seen):.1%}")


def row_of_quiet(nuisance: Nuisance, alarms: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return a row of the second table."""
    every = [one for week in alarms for one in week]
    kinds = ", ".join(f"{every.count(what)} {what}" for what in sorted(set(every)))
    quiet = sum(not week for week in alarms)
    return (
        nuisance.name,
        str(len(alarms)),
        f"{len(every) / len(alarms):.3f}",
        f"{quiet / len(alarms):.1%}",
        kinds or "none",
    )


@click.command()
@click.option("--pairs", type=click.IntRange(min=1), default=200, show_default=True, help="Services of each kind.")
@click.option("--weeks", type=click.IntRange(min=1), default=50, show_default=True, help="Weeks of each nuisance.")
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of the first.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
def main(pairs: int, weeks: int, seed: int, jobs: int) -> None:
    """Print two tables in Markdown: changes that are planted, and weeks without one."""
    with ProcessPoolExecutor(jobs) as pool:
        changes = []
        for kind in NAMED:
            changes.append(
                row_of_change(kind, list(pool.map(partial(seen_of, kind), range(seed, seed + pairs), chunksize=8)))
            )
            print(changes[-1], file=sys.stderr)
        quiet = []
        for number, nuisance in enumerate(NUISANCES):
            quiet.append(
                row_of_quiet(nuisance, list(pool.map(partial(_alarms, number), range(seed, seed + weeks), chunksize=8)))
            )
            print(quiet[-1], file=sys.stderr)
    click.echo(
        table(
            ("planted", "pairs", "seen in 12 h", "delay, median min", "delay, p90 min", "by its name"), changes, words=1
        )
    )
    click.echo("")
    click.echo(table(("nuisance", "weeks", "false alarms a week", "weeks without", "which"), quiet, words=1))


def _alarms(number: int, seed: int) -> list[str]:
    return alarms_of(NUISANCES[number], seed)


if __name__ == "__main__":
    main()

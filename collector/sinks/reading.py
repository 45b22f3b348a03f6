"""
Reads back what `file:` and `s3:` sinks have delivered, for people who look: nothing of it runs in a worker.

Where objects lie is worked out from the hours that are asked for, so little is listed that nobody wants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from collector.sinks.layout import around
from collector.sinks.objects import TENANT_ID

#: Up to so many names are tried without asking which of them there are: an hour, the one before and the one behind.
_TRIED = 3


class Object(msgspec.Struct, frozen=True, order=True):
    """
    One object of a batch; of an hour, those that were written first come first.

    `written_us` is of the store's own clock, and `name` the same whatever becomes of the object: a repeat has it too.
    """

    hour: int
    written_us: int
    name: str


class Delivered(Protocol):
    """The place of a sink, as folders and files; `""` is the place itself."""

    def folders(self, place: str) -> Iterable[str]:
        """Name the folders in a folder, none if it is not there; raises `errors.SinkError`."""

    def files(self, place: str) -> Iterable[tuple[str, int]]:
        """Name the objects in a folder, and say when each was written; raises `errors.SinkError`."""

    def read(self, name: str) -> bytes | None:
        """
        Read an object, named from the place on; None when it is gone.

        Raises `errors.TransientSinkError` when it may be had later, and another `errors.SinkError` when not.
        """

    def close(self) -> None:
        """Let go."""


def objects_in(
    delivered: Delivered, template: str, hours: Sequence[int], tenant_id: str = ""
) -> Iterator[tuple[int, list[Object]]]:
    """
    List the objects of these hours, an hour at a time and the oldest first; of one tenant, if that has its own.

    Raises `errors.SinkError`.
    """
    found = [("", list(hours))]
    for part in template.split("/"):
        found = [deeper for place, those in found for deeper in _in_folder(delivered, place, part, those, tenant_id)]
    # A template tells the whole hour, so there is one left of each.
    places: dict[int, list[str]] = {}
    for place, (hour,) in found:
        places.setdefault(hour, []).append(place)
    for hour in sorted(places):
        listed = ((place, *file) for place in places[hour] for file in delivered.files(place))
        yield hour, sorted(Object(hour, written_us, f"{place}/{name}") for place, name, written_us in listed)


def _in_folder(
    delivered: Delivered, place: str, part: str, hours: list[int], tenant_id: str
) -> Iterator[tuple[str, list[int]]]:
    """Find the folders that a part of a template stands for, each with those of the hours that it can hold."""
    below = f"{place}/" if place else ""
    wanted: dict[tuple[str, str], list[int]] = {}
    for hour in hours:
        wanted.setdefault(around(part, hour), []).append(hour)
    of_any_tenant = "{tenant}" in part
    if of_any_tenant and tenant_id:
        wanted = {(f"{before}{tenant_id}{behind}", ""): those for (before, behind), those in wanted.items()}
        of_any_tenant = False
    if of_any_tenant:
        for name in delivered.folders(place):
            for (before, behind), those in wanted.items():
                middle = name.removeprefix(before).removesuffix(behind)
                if f"{before}{middle}{behind}" == name and TENANT_ID.fullmatch(middle):
                    yield f"{below}{name}", those
        return
    there = {name for name, _ in wanted} if len(wanted) <= _TRIED else set(delivered.folders(place))
    yield from ((f"{below}{name}", those) for (name, _), those in wanted.items() if name in there)

"""
Which objects were shown, in bounded memory.
"""

from __future__ import annotations

from collector.sinks.reading import Object

#: How many objects are remembered: some 25 MB (measured). The oldest of the fullest hour go first.
MOST = 100_000


class Seen:
    """
    Remembers objects by name, hour by hour.

    What it forgets of an hour it still knows by the time: what was written earlier than that was shown. An object that
    comes into a store later has a later time there.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._count = 0
        self._written: dict[int, dict[str, int]] = {}
        self._passed: dict[int, int] = {}

    def __len__(self) -> int:
        return self._count

    def is_new(self, one: Object) -> bool:
        """Tell whether an object was not shown yet."""
        return one.written_us >= self._passed.get(one.hour, 0) and one.name not in self._written.get(one.hour, ())

    def add(self, one: Object) -> None:
        """Remember an object; those of an hour come in the order in which they were written."""
        names = self._written.setdefault(one.hour, {})
        self._count += one.name not in names
        names[one.name] = one.written_us
        if self._count > self._most:
            self._halve()

    def forget_before(self, hour: int) -> None:
        """Remember nothing of the hours before this one."""
        for old in [known for known in self._written if known < hour]:
            self._count -= len(self._written.pop(old))
            self._passed.pop(old, None)

    def _halve(self) -> None:
        hour, names = max(self._written.items(), key=lambda known: len(known[1]))
        passed = sorted(names.values())[len(names) // 2]
        # All of one instant stay or go together.
        if passed == min(names.values()):
            passed += 1
        self._written[hour] = {name: written_us for name, written_us in names.items() if written_us >= passed}
        self._passed[hour] = passed
        self._count -= len(names) - len(self._written[hour])

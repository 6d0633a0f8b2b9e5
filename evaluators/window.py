"""The last values of a series, in the order in which they came and in order of size."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

__all__ = ["Window"]

Value = tuple[float, ...]
"""Compared from the left."""


@dataclass(frozen=True, slots=True)
class Window:
    """At most so many of the last values; `after` makes a new one.

    Attributes:
        size: How many.
        recent: The values, oldest first.
        ordered: The same, smallest first.

    """

    size: int
    recent: tuple[Value, ...] = ()
    ordered: tuple[Value, ...] = ()

    def __len__(self) -> int:
        """How many values there are."""
        return len(self.recent)

    def smaller(self, value: Value) -> int:
        """Return how many of the values are smaller than one."""
        return bisect_left(self.ordered, value)

    def after(self, value: Value) -> Window:
        """Return the window after one more value, which the oldest gives way to where all places are taken."""
        ordered, recent = list(self.ordered), self.recent
        if len(recent) == self.size:
            del ordered[bisect_left(ordered, recent[0])]
            recent = recent[1:]
        insort(ordered, value)
        return Window(self.size, (*recent, value), tuple(ordered))

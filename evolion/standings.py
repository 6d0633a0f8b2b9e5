"""The best candidates of a search while it goes on."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from evolion.progress import interval_of
from evolion.records import Standing
from evolion.store import RunStore

__all__ = ["Ranking"]

_KEPT = 64


@dataclass(slots=True)
class Ranking:
    """The best candidates so far, for the view and whoever else looks.

    A few are kept, best first; should all of them fail their confirmations, the store is asked.

    Attributes:
        store: The run.
        text: The program of the best.
        interval: Between what the value of the best lies in 95 of 100 cases; None before it is confirmed.

    """

    store: RunStore
    text: str = ""
    interval: tuple[float, float] | None = None
    _top: list[Standing] = field(default_factory=list)

    @property
    def best(self) -> Standing | None:
        """The standing of the best candidate."""
        return self._top[0] if self._top else None

    @property
    def top(self) -> tuple[Standing, ...]:
        """The best few, best first."""
        return tuple(self._top)

    def restore(self, top: Sequence[Standing]) -> None:
        """Go on from the best few of a checkpoint."""
        self._top = list(top)
        self._name()

    def add(self, standing: Standing) -> None:
        """Take note of a candidate that was told or confirmed."""
        first = self.best
        if standing.confirmed:
            self._top = [other for other in self._top if other.number != standing.number]
        if len(self._top) < _KEPT or standing.rank < self._top[-1].rank:
            insort(self._top, standing, key=lambda other: other.rank)
            del self._top[_KEPT:]
        if self.best != first:
            self._name()

    def drop(self, number: int, told: int) -> None:
        """Take note of a candidate that failed its confirmation, after so many were told.

        Confirmations come in the order of the candidates.
        """
        first = self.best
        self._top = [other for other in self._top if other.number != number]
        if not self._top:
            # As all of the few have failed, what came after them is in order.
            self._top = sorted(self._standings(told, number), key=lambda standing: standing.rank)[:_KEPT]
        if self.best != first:
            self._name()

    def _standings(self, told: int, last: int) -> Iterator[Standing]:
        # A resumed run holds what comes later as well: only what was told by now counts, confirmations in their order.
        confirmed = {c.number: c.fitness for c in self.store.confirmations() if c.number <= last}
        for outcome in self.store.outcomes():
            if outcome.number >= told:
                return
            fitness = confirmed.get(outcome.number, outcome.fitness)
            if fitness is not None:
                yield Standing(outcome.number, fitness, outcome.number in confirmed)

    def _name(self) -> None:
        best = self.best
        record = None if best is None else self.store.candidate(best.number)
        found = None if best is None or not best.confirmed else self.store.confirmation(best.number)
        self.text = record.text if record else ""
        self.interval = None
        if found is not None and found.value is not None and found.error is not None:
            self.interval = interval_of(found.value, found.error)

"""A search around a search: mutations that have paid get more weight. `evolion.search.credits` has the rule."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, make_dataclass, replace
from functools import lru_cache
from typing import Any, cast, final

from evolion.search.credits import Credit, Credits, Weights, counted, credited, matched, recredited
from evolion.search.mutation import MutationConfig
from evolion.search.types import Candidate, Fitness, Programs, Search

__all__ = ["AdaptationSettings", "Adapted", "Adaptive", "credits_of", "inner_state"]

RENEWAL = 20
"""The weights are renewed whenever so many more candidates were told."""


@dataclass(frozen=True, slots=True)
class AdaptationSettings:
    """How weights follow what has paid.

    Attributes:
        window: What counts: the latest so many candidates that a mutation made.
        floor: The share of its configured frequency that no mutation falls below.

    Raises:
        ValueError: At construction, for a number out of its range.

    """

    window: int = 1000
    floor: float = 0.2

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.window < 1:
            raise ValueError(f"the window of the adaptation must be at least 1, got {self.window}")
        if not 0.0 <= self.floor <= 1.0:
            raise ValueError(f"the floor of the adaptation must lie in [0, 1], got {self.floor}")


@dataclass(frozen=True, slots=True)
class Adapted:
    """The state: that of the search whose mutations are weighted, and what is known of them."""

    inner: Any
    credits: Credits


@final
@dataclass(frozen=True, slots=True)
class Adaptive:
    """A search whose mutations get the more weight the more often a child is better than its parent was.

    Works around every search that draws mutations by the weights of a `MutationConfig`; around others it changes
    nothing.

    Attributes:
        make: Gives the search for a mutation config.
        mutation: The config whose weights are adapted; mutations without weight stay without.
        settings: How.

    """

    make: Callable[[MutationConfig], Search[Any]]
    mutation: MutationConfig
    settings: AdaptationSettings = field(default_factory=AdaptationSettings)

    def initial(self) -> Adapted:
        """Return the state with the configured weights."""
        inner = self._search(self._configured()).initial()
        return _state_class(cast(Hashable, type(inner)))(inner, Credits(self._configured()))

    def ask(self, state: Adapted, number: int, programs: Programs) -> Candidate:
        """Return what the search gives with the weights of now."""
        return self._search(state.credits.weights).ask(state.inner, number, programs)

    def tell(self, state: Adapted, candidate: Candidate, fitness: Fitness | None) -> Adapted:
        """Tell the search, and give the mutation its credit."""
        inner = self._search(self._configured()).tell(state.inner, candidate, fitness)
        credits = credited(state.credits, candidate, fitness, self.settings.window)
        if candidate.number % RENEWAL == 0:
            weights = matched(self._configured(), credits.trials, self.settings.floor)
            credits = replace(credits, weights=weights)
        return replace(state, inner=inner, credits=credits)

    def revise(self, state: Adapted, number: int, fitness: Fitness | None) -> Adapted:
        """Tell the search, and give or take the mutation's credit."""
        inner = self._search(self._configured()).revise(state.inner, number, fitness)
        return replace(state, inner=inner, credits=recredited(state.credits, number, fitness))

    def _configured(self) -> Weights:
        return tuple((name, weight) for name, weight in self.mutation.weights if weight > 0.0)

    def _search(self, weights: Weights) -> Search[Any]:
        return _made(self.make, self.mutation, weights)


def credits_of(state: Any) -> tuple[Credit, ...]:
    """Return what the state of a search tells of its mutations; nothing where none are adapted."""
    if not isinstance(state, Adapted):
        return ()
    tried, paid = counted(state.credits.trials)
    total = sum(weight for _, weight in state.credits.weights)
    return tuple(Credit(name, tried[name], paid[name], weight / total) for name, weight in state.credits.weights)


def inner_state(state: Any) -> Any:
    """Return the state of the search whose mutations are adapted; a state of another search as it is."""
    return state.inner if isinstance(state, Adapted) else state


@lru_cache(maxsize=32)
def _made(make: Callable[[MutationConfig], Search[Any]], mutation: MutationConfig, weights: Weights) -> Search[Any]:
    return make(replace(mutation, weights=weights))


@lru_cache
def _state_class(inner: Hashable) -> type[Adapted]:
    """Return the class of states around states of a class: what says how to read them back from JSON."""
    return make_dataclass("Adapted", [("inner", inner)], bases=(Adapted,), frozen=True, slots=True)

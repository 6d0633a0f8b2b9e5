"""The search algorithms by the name that a config gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from evolion.primitives.program import Program
from evolion.search.constants_only import constants_only
from evolion.search.mutation import MutationConfig
from evolion.search.random_search import RandomSearch
from evolion.search.regularized_evolution import RegularizedEvolution
from evolion.search.types import Search

__all__ = ["ALGORITHMS", "SearchSettings", "make_search"]


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What algorithms are made from; see `RegularizedEvolution` for the fields."""

    seed_program: Program
    seed: int = 0
    population: int = 1000
    tournament: int = 2
    mutation: MutationConfig = field(default_factory=MutationConfig)


ALGORITHMS: Mapping[str, Callable[[SearchSettings], Search[Any]]] = MappingProxyType(
    {
        "regularized-evolution": lambda s: RegularizedEvolution(
            s.seed_program, s.seed, s.population, s.tournament, s.mutation
        ),
        "random": lambda s: RandomSearch(s.seed_program, s.seed, s.mutation),
        "constants-only": lambda s: constants_only(s.seed_program, s.seed, s.population, s.tournament, s.mutation),
    }
)


def make_search(name: str, settings: SearchSettings) -> Search[Any]:
    """Return the algorithm of this name.

    Raises:
        ValueError: For an unknown name, or settings that the algorithm refuses.

    """
    if name not in ALGORITHMS:
        raise ValueError(f"unknown search algorithm {name!r}; known are {', '.join(ALGORITHMS)}")
    return ALGORITHMS[name](settings)

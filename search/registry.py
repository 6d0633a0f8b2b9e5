"""The search algorithms by the name that a config gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from evolion.primitives.program import Program
from evolion.search.adaptation import AdaptationSettings, Adaptive
from evolion.search.constants_only import constants_only
from evolion.search.evolution_with_constants import EvolutionWithConstants
from evolion.search.islands import IslandSettings, islands_of
from evolion.search.mutation import MutationConfig
from evolion.search.pareto import ParetoSearch
from evolion.search.quality_diversity import QualityDiversity
from evolion.search.random_search import RandomSearch
from evolion.search.regularized_evolution import RegularizedEvolution
from evolion.search.restarts import Restarts, RestartSettings
from evolion.search.traits import DESCRIPTORS, EXPENSES
from evolion.search.tuned_population import ConstantsSettings
from evolion.search.types import Search

__all__ = ["ALGORITHMS", "CONTROLS", "SearchSettings", "make_search"]


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """What algorithms are made from; each takes what it needs.

    Attributes:
        seed_program: As in `RegularizedEvolution`, like the next four.
        seed: The random seed.
        population: The number of seats.
        tournament: How many seats compete to be the parent.
        mutation: What children may be.
        restarts: When `restarts` begins anew.
        islands: How many islands `islands` has.
        descriptors: The axes of the grid of `quality-diversity`.
        objectives: What `pareto` keeps low beside the fitness.
        constants: How much `constants-cma` gives to the constants.
        lag: Of the run; for `constants-cma`.
        adaptation: How the weights of mutations follow what has paid, whatever the algorithm; None for not at all.

    """

    seed_program: Program
    seed: int = 0
    population: int = 1000
    tournament: int = 2
    mutation: MutationConfig = field(default_factory=MutationConfig)
    restarts: RestartSettings = field(default_factory=RestartSettings)
    islands: IslandSettings = field(default_factory=IslandSettings)
    descriptors: tuple[str, ...] = tuple(DESCRIPTORS)
    objectives: tuple[str, ...] = tuple(EXPENSES)
    constants: ConstantsSettings = field(default_factory=ConstantsSettings)
    lag: int = 32
    adaptation: AdaptationSettings | None = None


def _evolution(settings: SearchSettings) -> RegularizedEvolution:
    s = settings
    return RegularizedEvolution(s.seed_program, s.seed, s.population, s.tournament, s.mutation)


ALGORITHMS: Mapping[str, Callable[[SearchSettings], Search[Any]]] = MappingProxyType(
    {
        "regularized-evolution": _evolution,
        "restarts": lambda s: Restarts(_evolution(s), s.restarts),
        "islands": lambda s: islands_of(_evolution(s), s.islands),
        "quality-diversity": lambda s: QualityDiversity(s.seed_program, s.seed, s.mutation, s.descriptors),
        "pareto": lambda s: ParetoSearch(s.seed_program, s.seed, s.population, s.mutation, s.objectives),
        "constants-cma": lambda s: EvolutionWithConstants(_evolution(s), s.constants, s.lag),
        "random": lambda s: RandomSearch(s.seed_program, s.seed, s.mutation),
        "constants-only": lambda s: constants_only(s.seed_program, s.seed, s.population, s.tournament, s.mutation),
    }
)

CONTROLS = ("random", "constants-only")
"""Those that are there to be compared with: what others find must be better."""


def make_search(name: str, settings: SearchSettings) -> Search[Any]:
    """Return the algorithm of this name, with mutations that adapt if the settings say so.

    Raises:
        ValueError: For an unknown name, or settings that the algorithm refuses.

    """
    if name not in ALGORITHMS:
        raise ValueError(f"unknown search algorithm {name!r}; known are {', '.join(ALGORITHMS)}")
    plain = _with_mutation(name, settings, settings.mutation)
    if settings.adaptation is None:
        return plain
    return Adaptive(partial(_with_mutation, name, settings), settings.mutation, settings.adaptation)


def _with_mutation(name: str, settings: SearchSettings, mutation: MutationConfig) -> Search[Any]:
    return ALGORITHMS[name](replace(settings, mutation=mutation))

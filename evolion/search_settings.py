"""The search algorithm of a configuration."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from evolion.config import RunConfig
from evolion.errors import ConfigError
from evolion.primitives.program import Program
from evolion.search.adaptation import AdaptationSettings
from evolion.search.islands import IslandSettings
from evolion.search.mutation import mutation_config
from evolion.search.registry import SearchSettings, make_search
from evolion.search.restarts import RestartSettings
from evolion.search.tuned_population import ConstantsSettings
from evolion.search.types import Search

__all__ = ["algorithm_of", "settings_of"]


def algorithm_of(config: RunConfig, seed_program: Program) -> Search[Any]:
    """Return the search algorithm of a configuration.

    Raises:
        ConfigError: If the algorithm can do nothing with the warm start.

    """
    try:
        return make_search(config.search.algorithm, settings_of(config, seed_program))
    except ValueError as error:
        raise ConfigError(f"search.algorithm {config.search.algorithm!r}: {error}") from None


def settings_of(config: RunConfig, seed_program: Program) -> SearchSettings:
    """Return what the algorithms of a configuration are made from.

    Raises:
        ValueError: For a value that the search refuses.

    """
    search = config.search
    return SearchSettings(
        seed_program=seed_program,
        seed=config.seed,
        population=search.population,
        tournament=search.tournament,
        mutation=mutation_config(search.vocabulary, tuple(asdict(search.mutations).items()), search.maximum_statements),
        restarts=RestartSettings(**asdict(search.restarts)),
        islands=IslandSettings(**asdict(search.islands)),
        descriptors=search.quality_diversity.descriptors,
        objectives=search.pareto.objectives,
        constants=ConstantsSettings(**asdict(search.constants)),
        lag=search.lag,
        adaptation=AdaptationSettings(**asdict(search.adaptation)) if search.adapt_mutations else None,
    )

"""The control that tunes: regularized evolution whose children differ from the seed in constants alone."""

from __future__ import annotations

from dataclasses import replace

from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.program import Program
from evolion.search.mutation import MUTATIONS, MutationConfig
from evolion.search.regularized_evolution import RegularizedEvolution

__all__ = ["constants_only"]


def constants_only(
    seed_program: Program, seed: int, population: int, tournament: int, mutation: MutationConfig
) -> RegularizedEvolution:
    """Return regularized evolution whose one mutation scales a literal or a hyperparameter's default by 2^N(0, 1).

    What a search over programs finds must beat what the same effort finds this way.

    Raises:
        ValueError: If the seed program has no constant other than zero in use.

    """
    config = replace(mutation, weights=(("scale", 1.0),))
    if not MUTATIONS["scale"].applies(remove_dead_code(seed_program), config):
        raise ValueError("the seed program has no constant to change; choose another seed or another algorithm")
    return RegularizedEvolution(seed_program, seed, population, tournament, config)

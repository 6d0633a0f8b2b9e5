"""What only some of the search algorithms need, as configuration: each has a table of its own under `search`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from evolion.config_types import STRICT, Count

__all__ = [
    "AdaptationConfig",
    "ConstantsConfig",
    "IslandsConfig",
    "ParetoConfig",
    "QualityDiversityConfig",
    "RestartConfig",
]


@dataclass(frozen=True, slots=True, config=STRICT)
class RestartConfig:
    """When the algorithm `restarts` begins anew.

    Attributes:
        patience: So many candidates in a row without a new best of the population end it; more than `search.lag`.
        start: What the next population comes from: the warm start (`seed`), the best candidate of the run (`best`), or
            both in turn, the warm start first (`alternate`).

    """

    patience: Count = 500
    start: Literal["seed", "best", "alternate"] = "alternate"


@dataclass(frozen=True, slots=True, config=STRICT)
class IslandsConfig:
    """What the algorithm `islands` has.

    Attributes:
        count: The number of islands, among which `search.population` is divided; each holds a tournament.
        interval: After so many candidates, of all islands together, the best of each island is copied to the next.

    """

    count: Annotated[int, Field(strict=True, ge=2)] = 4
    interval: Count = 200


@dataclass(frozen=True, slots=True, config=STRICT)
class QualityDiversityConfig:
    """What the algorithm `quality-diversity` keeps the best of.

    Attributes:
        descriptors: The axes of its grid, each once: numbers of state per parameter (`memory`), what a multiple of the
            loss does to the update (`scale`), whether entries of a gradient influence each other (`reach`), statements
            (`length`).

    """

    descriptors: Annotated[tuple[Literal["memory", "scale", "reach", "length"], ...], Field(min_length=1)] = (
        "memory",
        "scale",
        "reach",
        "length",
    )

    def __post_init__(self) -> None:
        _check_names("descriptors", self.descriptors)


@dataclass(frozen=True, slots=True, config=STRICT)
class ParetoConfig:
    """What the algorithm `pareto` keeps low beside the value of a candidate.

    Attributes:
        objectives: Each once: `statements`, numbers of state per parameter (`memory`), operations per parameter and
            step (`time`).

    """

    objectives: Annotated[tuple[Literal["statements", "memory", "time"], ...], Field(min_length=1)] = (
        "statements",
        "memory",
        "time",
    )

    def __post_init__(self) -> None:
        _check_names("objectives", self.objectives)


@dataclass(frozen=True, slots=True, config=STRICT)
class ConstantsConfig:
    """How much the algorithm `constants-cma` gives to the constants of promising programs.

    Attributes:
        share: The largest share of the candidates that CMA-ES proposes.
        programs: How many programs are tuned at a time.
        generations: After so many another program has its turn.
        dimensions: Programs with more constants are left to evolution.
        step: The first standard deviation, in the logarithm of a constant.

    """

    share: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.25
    programs: Count = 2
    generations: Count = 10
    dimensions: Annotated[int, Field(strict=True, ge=1, le=100)] = 20
    step: Annotated[float, Field(strict=True, gt=0, le=10)] = 0.5


@dataclass(frozen=True, slots=True, config=STRICT)
class AdaptationConfig:
    """How the frequencies of mutations follow what has paid, where `search.adapt_mutations` is set.

    Attributes:
        window: What counts: the latest so many candidates that a mutation made.
        floor: The share of its frequency in `search.mutations` that no mutation falls below.

    """

    window: Count = 1000
    floor: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.2


def _check_names(what: str, names: tuple[str, ...]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what} holds {name} twice")

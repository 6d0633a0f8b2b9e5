"""What only some searches need, as configuration: most of it has a table of its own under `search`."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field
from pydantic.dataclasses import dataclass

from evolion.config_types import STRICT, Count, Rate

__all__ = [
    "AdaptationConfig",
    "ConstantsConfig",
    "IslandsConfig",
    "ParetoConfig",
    "ProposerConfig",
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


@dataclass(frozen=True, slots=True, config=STRICT)
class ProposerConfig:
    """A language model that proposes programs beside the mutations of a search; off without an endpoint.

    Attributes:
        endpoint: The base URL of what speaks OpenAI's chat completions, such as `http://localhost:8000/v1`.
        model: The name of the model there.
        every: A request goes out every so many candidates; its proposals become candidates at the next such number.
        programs: How many programs a request asks for.
        parents: How many of the best programs it shows.
        temperature: Of the model.
        timeout: Seconds for one of three attempts; nothing waits for it.
        key_variable: The environment variable that holds the key; without it the request has none.

    """

    endpoint: Annotated[str, Field(strict=True)] = ""
    model: Annotated[str, Field(strict=True)] = ""
    every: Count = 50
    programs: Count = 4
    parents: Count = 5
    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] = 1.0
    timeout: Rate = 60.0
    key_variable: Annotated[str, Field(strict=True)] = "OPENAI_API_KEY"

    def __post_init__(self) -> None:
        _check_endpoint(self.endpoint)
        if self.endpoint and not self.model:
            raise ValueError("endpoint is set, and model is not: name one that it serves")
        if self.programs > self.every:
            raise ValueError(f"programs ({self.programs}) is more than every ({self.every}): most would never be used")
        # The value is not repeated: it may be the key itself, put in the wrong place.
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable):
            raise ValueError("key_variable is the name of an environment variable, and never the key itself")


def _check_endpoint(endpoint: str) -> None:
    if not endpoint:
        return
    try:
        parts = urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        plain = not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        good = plain = False
    if not good or not plain or any(not letter.isprintable() or letter.isspace() for letter in endpoint):
        raise ValueError(
            "endpoint is a base URL such as http://localhost:8000/v1, without a user, a password or a query: "
            "a key belongs in the environment variable that key_variable names"
        )


def _check_names(what: str, names: tuple[str, ...]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what} holds {name} twice")

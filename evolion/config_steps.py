"""What determines the steps beside and after the search: confirmations, the comparison, the ablation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from evolion.config_types import STRICT, Count, Metric, Seed, Text, Weight, check_task

__all__ = ["AblationConfig", "ConfirmationConfig", "RetestConfig", "RetestTask"]


@dataclass(frozen=True, slots=True, config=STRICT)
class ConfirmationConfig:
    """How candidates that look good are trained again during the search, on seeds on which nothing was selected.

    Attributes:
        share: Share of the candidates, the best of those told lately, that are confirmed; a new best and the warm start
            always are. With 0 nobody is.
        seeds: Fresh seeds for each; they train at the best learning rate alone.
        standard_errors: So many are added to the mean of a candidate for its rank, whether it is confirmed or not.
        seed: What the fresh seeds are counted from; without it the seed of the run. A fork with another seed has that
            of the run that its first candidates are from, so that all of its candidates meet the same seeds.

    """

    share: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.03
    seeds: Annotated[int, Field(strict=True, ge=2)] = 4
    standard_errors: Weight = 1.0
    seed: Seed | None = None


@dataclass(frozen=True, slots=True, config=STRICT)
class RetestTask:
    """A task on which finalists and baselines are compared; `steps` as in a stage, `metric` what the table ranks by."""

    task: Text
    steps: Count | None = None
    metric: Metric = "loss"

    def __post_init__(self) -> None:
        check_task(self.task)


@dataclass(frozen=True, slots=True, config=STRICT)
class RetestConfig:
    """The comparison after the search.

    Attributes:
        finalists: How many of the best candidates are retested.
        trials: Tuning trials over learning rate and weight decay, the same number for every program and task.
        seeds: Fresh seeds on which the tuned programs are compared.
        baselines: Program specs.
        tasks: The tasks of the comparison.

    """

    finalists: Count = 4
    trials: Count = 16
    seeds: Annotated[int, Field(strict=True, ge=2)] = 8
    baselines: tuple[Text, ...] = ("adamw", "lion")
    tasks: Annotated[tuple[RetestTask, ...], Field(min_length=1)] = (
        RetestTask("digits-mlp"),
        RetestTask("zipf-lm"),
    )


@dataclass(frozen=True, slots=True, config=STRICT)
class AblationConfig:
    """The removal of statements from the winner that make no difference beyond noise.

    Attributes:
        enabled: Whether statements are removed at all.
        seeds: Fresh seeds on which a program with and without a statement are compared.
        tolerance: A difference below this many standard errors counts as noise.

    """

    enabled: Annotated[bool, Field(strict=True)] = True
    seeds: Annotated[int, Field(strict=True, ge=2)] = 4
    tolerance: Weight = 2.0

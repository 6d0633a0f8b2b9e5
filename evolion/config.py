"""What determines a run: plain data, checked. `evolion.config_text` reads and writes it.

What belongs to the machine does not determine it, so that the same configuration gives the same result everywhere: a
cluster's address is no part of a configuration, and its `workers`, which are, may change from one sitting to the next.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from evolion.config_algorithms import (
    AdaptationConfig,
    ConstantsConfig,
    IslandsConfig,
    ParetoConfig,
    ProposerConfig,
    QualityDiversityConfig,
    RestartConfig,
)
from evolion.config_steps import AblationConfig, ConfirmationConfig, RetestConfig, RetestTask
from evolion.config_types import (
    CONFIRMATION_SEEDS,
    SEEDS_OF_STAGES,
    STRICT,
    Count,
    Device,
    Metric,
    Rate,
    Seed,
    Share,
    StageSeed,
    Text,
    Weight,
    check_task,
)
from evolion.config_workers import WorkersConfig
from evolion.errors import ConfigError
from evolion.evaluators.worker_class import check_classes

if TYPE_CHECKING:
    from evolion.primitives.program import Program

__all__ = [
    "CONFIRMATION_SEEDS",
    "SEEDS_OF_STAGES",
    "AblationConfig",
    "AdaptationConfig",
    "ConfirmationConfig",
    "ConstantsConfig",
    "IslandsConfig",
    "MutationWeights",
    "ParetoConfig",
    "ProposerConfig",
    "QualityDiversityConfig",
    "RestartConfig",
    "RetestConfig",
    "RetestTask",
    "RunConfig",
    "SearchConfig",
    "StageConfig",
    "WorkersConfig",
    "fresh_seeds",
    "program_of",
]


@dataclass(frozen=True, slots=True, config=STRICT)
class MutationWeights:
    """Relative frequencies of the mutations; only those of the Lion paper have weight unless told otherwise.

    Attributes:
        insert: A statement comes in.
        delete: A statement goes.
        modify: An argument changes.
        scale: A constant is scaled.
        swap: Two statements change places.
        replace_op: The op of a statement changes.
        duplicate_slot: A state slot gets a twin.
        crossover: A value of a second parent comes in, with all that it is made from.

    """

    insert: Weight = 1.0
    delete: Weight = 1.0
    modify: Weight = 1.0
    scale: Weight = 0.0
    swap: Weight = 0.0
    replace_op: Weight = 0.0
    duplicate_slot: Weight = 0.0
    crossover: Weight = 0.0

    def __post_init__(self) -> None:
        if not any(asdict(self).values()):
            raise ValueError("at least one mutation needs a weight above 0")


@dataclass(frozen=True, slots=True, config=STRICT)
class SearchConfig:
    """Which programs are tried.

    Attributes:
        algorithm: Regularized evolution, as it is, with `restarts`, on `islands` or with `constants-cma`;
            `quality-diversity`; `pareto`; or a control: `random`, `constants-only`.
        warm_start: Program spec of the first program, whose arithmetic (`@protected` or plain) all others share.
        budget: Number of candidates that are generated.
        lag: Candidate i depends on the scores of candidates below i - lag alone, so that up to lag + 1 are in flight.
        population: Programs that are alive at a time; the oldest leaves.
        tournament: Programs of which the best becomes a parent.
        vocabulary: The ops that mutations draw from: `lion`, the functions of the Lion paper, or `full`, which adds
            comparisons, reductions, matrix ops, the other reserved inputs and a spare state slot of each kind.
        maximum_statements: The longest program that a mutation may produce.
        mutations: Relative frequencies of the mutations.
        adapt_mutations: Whether the frequencies follow what has paid.
        adaptation: How they do.
        restarts: When the algorithm `restarts` begins anew.
        islands: What the algorithm `islands` has.
        quality_diversity: What `quality-diversity` keeps the best of.
        pareto: What `pareto` keeps low beside the value of a candidate.
        constants: How much `constants-cma` gives to the constants of promising programs.
        alike: Whether a candidate that almost does what an earlier one did, within what noise hides, takes its score
            instead of being trained.

    """

    algorithm: Literal[
        "regularized-evolution",
        "restarts",
        "islands",
        "quality-diversity",
        "pareto",
        "constants-cma",
        "random",
        "constants-only",
    ] = "regularized-evolution"
    warm_start: Text = "adamw_seed"
    budget: Count = 2000
    lag: Count = 32
    population: Annotated[int, Field(strict=True, ge=2)] = 100
    tournament: Count = 20
    vocabulary: Literal["lion", "full"] = "lion"
    maximum_statements: Annotated[int, Field(strict=True, ge=1, le=4096)] = 30
    mutations: MutationWeights = MutationWeights()
    adapt_mutations: Annotated[bool, Field(strict=True)] = False
    adaptation: AdaptationConfig = AdaptationConfig()
    restarts: RestartConfig = RestartConfig()
    islands: IslandsConfig = IslandsConfig()
    quality_diversity: QualityDiversityConfig = QualityDiversityConfig()
    pareto: ParetoConfig = ParetoConfig()
    constants: ConstantsConfig = ConstantsConfig()
    alike: Annotated[bool, Field(strict=True)] = True

    def __post_init__(self) -> None:
        if self.tournament > self.population:
            raise ValueError(f"tournament ({self.tournament}) is larger than population ({self.population})")
        if self.algorithm == "restarts" and self.restarts.patience <= self.lag:
            # Fewer, and a population ended before the first child of its start was told.
            raise ValueError(f"restarts.patience ({self.restarts.patience}) must be larger than lag ({self.lag})")
        if self.algorithm == "islands" and self.tournament > self.population // self.islands.count:
            raise ValueError(
                f"tournament ({self.tournament}) is larger than an island: {self.population} seats on "
                f"{self.islands.count} islands are {self.population // self.islands.count} on each"
            )


def _check_rates(rates: tuple[float, ...] | None) -> None:
    if rates is not None and len(set(rates)) < len(rates):
        raise ValueError("learning_rates holds a value twice")


def _check_seeds(seeds: tuple[int, ...]) -> None:
    if len(set(seeds)) < len(seeds):
        raise ValueError("seeds holds a value twice")


@dataclass(frozen=True, slots=True, config=STRICT)
class StageConfig:
    """One step of the evaluation of a candidate.

    Attributes:
        task: Name of the task.
        steps: Horizon of the schedule; without it the task's own. The learning rate is warmed up and decayed in full
            over this horizon, so that fewer steps make a short complete training.
        seeds: Training runs per learning rate.
        learning_rates: Peak rates of which the best counts; without them the task's own grid.
        metric: Validation loss at the end, or mean training loss over the last 5 % of the steps.
        hurdle: Share of the candidates that come into this stage, by their value in the stage before; the first
            stage has none. The value is the geometric mean over the tasks reached of the metric above the task's known
            floor; of several stages on one task the last counts. A candidate that reached more stages is better.
        device: The class of workers that trains it, one of `workers`: scores of a stage come from one class alone.

    """

    task: Text
    steps: Count | None = None
    seeds: Annotated[tuple[StageSeed, ...], Field(min_length=1)] = (0,)
    learning_rates: Annotated[tuple[Rate, ...], Field(min_length=1)] | None = None
    metric: Metric = "loss"
    hurdle: Share | None = None
    device: Device = ""

    def __post_init__(self) -> None:
        check_task(self.task)
        _check_seeds(self.seeds)
        _check_rates(self.learning_rates)


@dataclass(frozen=True, slots=True, config=STRICT)
class RunConfig:
    """A whole run. Same configuration, same result.

    Attributes:
        seed: Of everything random in the search.
        timeout: Seconds of wall time after which the evaluation of a candidate is given up.
        memory: MiB that the evaluation of a candidate may take beyond what its worker holds; 0 sets no limit.
        search: Which programs are tried.
        proposer: Who proposes programs beside the mutations of the search; nobody unless it has an endpoint. A run with
            one is recorded and can be resumed, and cannot be had again from its configuration alone.
        stages: How a candidate is evaluated, cheapest first.
        confirmation: How the best are evaluated again while the search goes on.
        retest: The comparison after the search.
        ablation: The removal of statements that do nothing.
        workers: What trains, by device. It belongs to the machine, determines nothing and may change when a run is
            resumed; which device a stage names does not.

    """

    seed: Seed = 0
    timeout: Rate = 120.0
    memory: Annotated[int, Field(strict=True, ge=0)] = 4096
    search: SearchConfig = SearchConfig()
    proposer: ProposerConfig = ProposerConfig()
    stages: Annotated[tuple[StageConfig, ...], Field(min_length=1)] = (
        StageConfig("digits-mlp", steps=100),
        StageConfig("digits-mlp", hurdle=0.3),
        StageConfig("zipf-lm", hurdle=0.5),
    )
    confirmation: ConfirmationConfig = ConfirmationConfig()
    retest: RetestConfig = RetestConfig()
    ablation: AblationConfig = AblationConfig()
    workers: tuple[WorkersConfig, ...] = (WorkersConfig(),)

    def __post_init__(self) -> None:
        tested = [task.task for task in self.retest.tasks]
        if len(set(tested)) < len(tested):
            raise ValueError("retest.tasks holds a task twice")
        if self.stages[0].hurdle is not None:
            raise ValueError("the first of the stages cannot have a hurdle: no stage comes before it")
        if self.proposer.endpoint and self.search.algorithm in ("random", "constants-only"):
            raise ValueError(f"proposer: the algorithm {self.search.algorithm!r} is a control and takes no proposals")
        open_to_all = [number for number, stage in enumerate(self.stages) if number and stage.hurdle is None]
        if open_to_all:
            raise ValueError(f"stages.{open_to_all[0]} needs a hurdle: the share of candidates that come into it")
        check_classes([one.worker_class() for one in self.workers])
        known = {one.device for one in self.workers}
        for number, stage in enumerate(self.stages):
            if stage.device not in known:
                raise ValueError(
                    f"stages.{number} names the device {stage.device!r}, for which there are no workers: add a table "
                    f'[[workers]] with device = "{stage.device}"'
                )

    def determining(self) -> RunConfig:
        """Return this configuration without what belongs to the machine: equal where results must be equal.

        The devices that stages name stay, each with the plainest workers.
        """
        devices = dict.fromkeys(["", *(stage.device for stage in self.stages)])
        return replace(self, workers=tuple(WorkersConfig(device) for device in devices))

    def device_of(self, task: str) -> str:
        """Return the class of workers that trains a task after the search: that of the last stage on it, else ""."""
        return next((stage.device for stage in reversed(self.stages) if stage.task == task), "")

    def fingerprint(self) -> str:
        """Return a digest of what determines the result, texts of the named programs included: 64 hex digits."""
        specs = (self.search.warm_start, *self.retest.baselines)
        texts = [str(program_of(spec)) for spec in specs]
        return hashlib.sha256(json.dumps([asdict(self.determining()), texts], sort_keys=True).encode()).hexdigest()

    def pinned(self) -> RunConfig:
        """Return this configuration with paths and runs replaced by the program texts that they lead to.

        What a run keeps must not depend on files outside its folder. Known names stay.

        Raises:
            ConfigError: If a program cannot be loaded; the message names the key.

        """
        search = replace(self.search, warm_start=_pinned("search.warm_start", self.search.warm_start))
        baselines = tuple(_pinned("retest.baselines", spec) for spec in self.retest.baselines)
        return replace(self, search=search, retest=replace(self.retest, baselines=baselines))


def fresh_seeds(first: int, count: int, seed: int) -> tuple[int, ...]:
    """Return the seeds of a step of a run that count from `first`; another seed of the run gives others."""
    start = first + 10 * SEEDS_OF_STAGES * (seed % 10_000)
    return tuple(range(start, start + count))


def program_of(spec: str) -> Program:
    """Return the program of a spec in a configuration: what `evolion.load` takes, or a program text.

    Raises:
        ProgramError: For a text that is not a program.
        InputError: If there is no such program.

    """
    from evolion.api import load
    from evolion.primitives.parser import parse

    return parse(spec) if "\n" in spec else load(spec)


def _pinned(key: str, spec: str) -> str:
    from evolion.api import known

    try:
        program = program_of(spec)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    return spec if spec in known() else str(program)

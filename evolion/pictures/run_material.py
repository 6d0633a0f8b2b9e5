"""What the page of a run is made of: plain data, with every number worked out and no word of markup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evolion.evaluators.protocol.report import Estimate

__all__ = [
    "Ablated",
    "Archive",
    "Evidence",
    "FunnelStep",
    "Leader",
    "LineageStep",
    "MutationUse",
    "Progress",
    "RunMaterial",
    "Source",
    "Track",
]


@dataclass(frozen=True, slots=True)
class Evidence:
    """One program on one task in the retest.

    Attributes:
        task: The task.
        program: Its name in the table.
        seeds: How many fresh seeds.
        diverged: How many of them did not end finite.
        loss: Final loss on the test split, None if a seed diverged.
        train_loss: Training loss at the end, None if a seed diverged.
        difference: Loss of the winner minus that of this program, paired by seed; None for the winner itself.
        train_difference: The same for the training loss.
        verdict: What the difference says of the winner: "better", "worse", "no difference shown", or why there is none;
            empty for the winner itself.
        learning_rate: The tuned peak learning rate.
        weight_decay: The tuned weight decay, None for a program without.
        trials: Tuning trials.
        at_edge: Whether the best trial lay at the edge of the tuning box.

    """

    task: str
    program: str
    seeds: int
    diverged: int
    loss: Estimate | None
    train_loss: Estimate | None
    difference: Estimate | None
    train_difference: Estimate | None
    verdict: str
    learning_rate: float
    weight_decay: float | None
    trials: int
    at_edge: bool


@dataclass(frozen=True, slots=True)
class Track:
    """A value that changes while a run goes on; all tuples are of one length.

    Attributes:
        told: Candidates told when it changed.
        cost: Training steps until then.
        values: What it changed to.
        lows: Lower ends of its intervals; empty without intervals.
        highs: Upper ends.

    """

    told: tuple[int, ...] = ()
    cost: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """How the best value fell.

    Attributes:
        stage: The stage whose values these are, from 1: the furthest that any candidate finished. 0 if none did.
        stages: How many stages there are.
        points: Single candidates, a fair selection where there are many.
        shown: How many candidates finished that stage; `points` may be fewer.
        first: The best value at first sight.
        confirmed: The best confirmed value, with intervals.
        restarts: Candidates told, and training steps, when the search began anew.
        end: Candidates told, and training steps, at the end of what is there.

    """

    stage: int = 0
    stages: int = 1
    points: Track = field(default_factory=Track)
    shown: int = 0
    first: Track = field(default_factory=Track)
    confirmed: Track = field(default_factory=Track)
    restarts: tuple[tuple[int, float], ...] = ()
    end: tuple[int, float] = (0, 0.0)


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One step that candidates take.

    Attributes:
        name: What it is.
        entered: Candidates that came to it.
        dropped: Why candidates went no further, with their number.
        passed: Candidates that went on.
        note: What has to be known about it.

    """

    name: str
    entered: int
    dropped: tuple[tuple[str, int], ...]
    passed: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Leader:
    """One of the best candidates.

    Attributes:
        place: Among all candidates, from 1; equal ones count as well.
        number: The candidate.
        what: What it is, where it has a name: the warm start, the winner.
        stage: The last stage that it finished, from 1.
        first: Its value at first sight.
        confirmed: The value with fresh seeds, None if it was not confirmed.
        statements: The length of its program, None if this version cannot read it.
        mutation: What made it.
        alike: How many candidates do the same.

    """

    place: int
    number: int
    what: str
    stage: int
    first: float | None
    confirmed: Estimate | None
    statements: int | None
    mutation: str
    alike: int


@dataclass(frozen=True, slots=True)
class LineageStep:
    """One candidate on the way to the winner, or several in a row that changed nothing beyond noise.

    Attributes:
        numbers: The candidates, oldest first.
        mutations: What made each.
        change: The change of the value from the parent, relative to it (-0.03: three per cent lower), None if it cannot
            be told.
        error: Its standard error, None where it is not known.
        effect: The effect in words, where a number does not say it: that a further stage was reached, that nothing
            changed.
        stage: The stage whose values were compared, from 1; 0 for none.
        confirmed: Whether both values come from fresh seeds.
        value: The value after the step.
        difference: Changed lines of the program, those of the parent with "-" before them, its own with "+".

    """

    numbers: tuple[int, ...]
    mutations: tuple[str, ...]
    change: float | None
    error: float | None
    effect: str
    stage: int
    confirmed: bool
    value: float | None
    difference: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ablated:
    """A statement of the winner without which it was tried.

    Attributes:
        statement: Its text.
        effects: By task the change of the metric without it and its standard error, None where a run diverged.
        removed: Whether it was left out for good.

    """

    statement: str
    effects: Mapping[str, tuple[float, float] | None]
    removed: bool


@dataclass(frozen=True, slots=True)
class Source:
    """The program that a run is about.

    Attributes:
        text: Its text.
        title: What it is: the winner, or the best candidate so far.
        nearest: The nearest known optimizer and what makes the difference, in words; empty if none is near.
        nearest_name: Its name.
        from_nearest: Lines of the difference from it.
        from_seed: Lines of the difference from the warm start.
        ablated: What its statements are worth.
        notes: What has to be known about it.

    """

    text: str
    title: str
    nearest: str
    nearest_name: str
    from_nearest: tuple[str, ...]
    from_seed: tuple[str, ...]
    ablated: tuple[Ablated, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MutationUse:
    """What a kind of mutation has led to: numbers of candidates.

    Attributes:
        name: The mutation.
        tried: Candidates that it made and whose end is known.
        stopped: Those that the probe stopped, or that were no valid program.
        failed: Those whose training failed.
        known: Those whose scores were known by their key.
        better: Those that were better than their parent at first sight.
        resolved: Those that were better beyond noise.
        best: Those that were the best at first sight when they were told.
        share: Its share in draws of late, where mutations adapt; None where they do not.

    """

    name: str
    tried: int
    stopped: int
    failed: int
    known: int
    better: int
    resolved: int
    best: int
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Archive:
    """What a search keeps besides its best, as a table.

    Attributes:
        caption: What it is.
        heads: Of its columns.
        rows: Texts.
        note: What has to be known about it.

    """

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


@dataclass(frozen=True, slots=True)
class RunMaterial:
    """A run.

    Attributes:
        name: Of its folder.
        state: "running", "finished" or "stopped".
        told: Candidates whose end is known.
        generated: Candidates.
        budget: Candidates that there are to be.
        evidence: The table of the retest, winner first; empty before it.
        horizons: Steps of the retest by task.
        progress: How the best value fell.
        funnel: What became of the candidates.
        leaders: The best, and the warm start.
        lineage: From the warm start to the winner.
        lineage_notes: What has to be known about it.
        source: The program; None while there is none.
        mutations: What mutations have led to.
        costs: What it has cost, as terms with what is said of each.
        faults: What went wrong with workers, with how often.
        quarantined: Programs that ended every worker that tried them: where they are, and how it ended.
        configuration: As TOML.
        environment: Versions and device classes.
        commands: What a reader may want to do next, with the command for it.
        archive: What the search keeps besides its best; None for most algorithms.

    """

    name: str
    state: str
    told: int
    generated: int
    budget: int
    evidence: tuple[Evidence, ...]
    horizons: Mapping[str, int]
    progress: Progress
    funnel: tuple[FunnelStep, ...]
    leaders: tuple[Leader, ...]
    lineage: tuple[LineageStep, ...]
    lineage_notes: tuple[str, ...]
    source: Source | None
    mutations: tuple[MutationUse, ...]
    costs: tuple[tuple[str, str], ...]
    faults: tuple[tuple[str, int], ...]
    quarantined: tuple[str, ...]
    configuration: str
    environment: Mapping[str, str]
    commands: tuple[tuple[str, str], ...]
    archive: Archive | None = None

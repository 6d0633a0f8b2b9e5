"""Where candidates stop and why: pure verdicts, hurdles by what was told alone, any order of completion."""

import math
import random
from dataclasses import dataclass, field

import pytest

from evolion.discovered.library import known
from evolion.evaluators.metric import excess
from evolion.evaluators.stages import (
    HURDLE_MINIMUM,
    HURDLE_WINDOW,
    Hurdles,
    Reason,
    Stage,
    Staged,
    Subject,
    Verdict,
    counting,
    verdict_of,
)
from evolion.primitives.keys import ProbeStatus
from evolion.proxies.score import Score, Status

SHORT, FULL, LARGER = Stage("digits-mlp", 100), Stage("digits-mlp", share=0.5), Stage("zipf-lm", share=0.5)
STAGES = (SHORT, FULL, LARGER)
OPEN = (math.inf,) * 3


def scored(loss: float | None, status: Status = Status.DIVERGED) -> Score:
    return Score(status if loss is None else Status.OK, loss, (), 10, 0.0)


def subject(number: int) -> Subject:
    return Subject(known()["sgd"], f"{number:032x}")


@dataclass
class Shuffled:
    """Scores that come in an order drawn from a seed: the loss is that of the subject's number, larger in later stages.

    Every seventh subject diverges in the second stage.
    """

    seed: int
    asked: list[tuple[str, Stage]] = field(default_factory=list)
    known: dict[tuple[str, Stage], Score] = field(default_factory=dict)

    def ask(self, subject: Subject, stage: Stage) -> tuple[str, Stage]:
        self.asked.append((subject.behaviour, stage))
        return subject.behaviour, stage

    def score(self, key: tuple[str, Stage]) -> Score | None:
        return self.known.get(key)

    def wait(self) -> list[tuple[str, Stage]]:
        waiting = [key for key in self.asked if key not in self.known]
        key = random.Random(f"{self.seed} {len(self.known)}").choice(waiting)
        number, place = int(key[0], 16), STAGES.index(key[1])
        self.known[key] = scored(None if place == 1 and number % 7 == 3 else 5.0 + number + place)
        return [key]


def test_every_failure_is_a_reason() -> None:
    """What a probe or a training can end with has a reason of the same name, and nothing else counts as a failure."""
    failures = {str(s) for status in (Status, ProbeStatus) for s in status} - {"ok"}
    assert failures == {reason.value for reason in Reason if reason.failed}


def test_of_two_stages_on_a_task_the_last_counts() -> None:
    """The short schedule opens the way to the full one and then has no say in what a candidate is worth."""
    assert counting(STAGES) == (1, 2)
    assert counting(STAGES[:1]) == (0,)
    losses = (0.9, 0.25, 4.5)
    verdict = verdict_of(STAGES, OPEN, [scored(loss) for loss in losses])
    assert verdict is not None
    logs = [math.log(excess(scored(loss), stage)) for loss, stage in zip(losses, STAGES, strict=True)]
    wanted = [logs[0], logs[1], (logs[1] + logs[2]) / 2]
    assert verdict.values == pytest.approx([math.exp(value) for value in wanted])


def test_verdicts_say_stage_reason_value_and_hurdle() -> None:
    """A drop names the stage that the candidate entered last, and by how much it missed the next."""
    limits = (math.inf, 0.5, math.inf)
    dropped = verdict_of(STAGES, limits, [scored(0.6)])
    assert dropped is not None
    assert (dropped.stage, dropped.reason, dropped.value, dropped.hurdle) == (0, Reason.HURDLE, 0.6, 0.5)
    assert verdict_of(STAGES, limits, [scored(0.5)]) is None
    failed = verdict_of(STAGES, limits, [scored(0.5), scored(None, Status.TIMEOUT)])
    assert failed is not None
    assert (failed.stage, failed.reason, failed.value, failed.values) == (1, Reason.TIMEOUT, None, (0.5,))
    finished = verdict_of(STAGES, limits, [scored(0.5), scored(0.4), scored(5.0)])
    assert finished is not None
    assert (finished.stage, finished.reason, finished.hurdle) == (2, Reason.FINISHED, None)
    assert Verdict(None, Reason.DEAD).value is None


def test_hurdles_are_quantiles_of_the_last_told() -> None:
    """No hurdle while few were told; then the share of the stage, over a window; old hurdles stay what they were."""
    hurdles = Hurdles.of(STAGES)
    assert hurdles.limits() == OPEN
    for number in range(HURDLE_MINIMUM):
        assert hurdles.limits() == OPEN
        hurdles = hurdles.after(Verdict(0, Reason.HURDLE, (), (float(number),), 1.0))
    early = hurdles
    assert early.limits() == (math.inf, 9.0, math.inf)
    for _ in range(HURDLE_WINDOW):
        hurdles = hurdles.after(Verdict(1, Reason.HURDLE, (), (100.0, 50.0), 1.0))
    assert hurdles.limits() == (math.inf, 100.0, 50.0)
    assert early.limits() == (math.inf, 9.0, math.inf)
    assert hurdles.after(Verdict(None, Reason.DEAD)) == hurdles


def test_later_hurdles_take_their_share_of_all() -> None:
    """The third stage is for a share of a share, although the first candidates met no hurdle and came far."""
    share = 0.5
    hurdles = Hurdles.of(STAGES)
    for number in range(40):
        hurdles = hurdles.after(Verdict(2, Reason.FINISHED, (), (float(number), float(number), float(number))))
    _, second, third = hurdles.limits()
    assert (second, third) == (math.floor(share * 39), math.floor(share**2 * 39))
    for _ in range(120):
        hurdles = hurdles.after(Verdict(0, Reason.HURDLE, (), (50.0,), 1.0))
    assert hurdles.limits()[2] == 39.0


def test_no_hurdle_lets_everybody_in() -> None:
    """A stage without a share is for all that finished the stage before."""
    hurdles = Hurdles.of((SHORT, Stage("digits-mlp")))
    for number in range(100):
        hurdles = hurdles.after(Verdict(0, Reason.FINISHED, (), (float(number),)))
    assert hurdles.limits() == (math.inf, math.inf)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_order_of_completion_changes_no_verdict(seed: int) -> None:
    """Verdicts, whichever is waited for first, are those of trainings that end one after the other."""
    limits = (math.inf, 14.0, 12.0)
    reference = [
        next(v for end in (1, 2, 3) if (v := verdict_of(STAGES, limits, _losses(number)[:end])) is not None)
        for number in range(20)
    ]
    scores = Shuffled(seed)
    staged = Staged(scores)
    for number in range(20):
        staged.enter(number, subject(number), STAGES, limits)
    order = random.Random(seed).sample(range(20), 20)
    verdicts = {number: staged.verdict(number) for number in order}
    assert [verdicts[number] for number in range(20)] == reference
    assert {verdict.reason for verdict in reference} == {Reason.HURDLE, Reason.DIVERGED, Reason.FINISHED}
    assert len(scores.asked) == len(set(scores.asked))


def _losses(number: int) -> list[Score]:
    return [scored(None if place == 1 and number % 7 == 3 else 5.0 + number + place) for place in range(3)]


def test_next_stages_do_not_wait_for_earlier_candidates() -> None:
    """While one verdict is waited for, the others go on: workers never idle behind a slow candidate."""
    scores = Shuffled(0)
    staged = Staged(scores)
    for number in (0, 1):
        staged.enter(number, subject(number), STAGES, OPEN)
    first, second = subject(0).behaviour, subject(1).behaviour

    def wait() -> list[tuple[str, Stage]]:
        came = [(second, SHORT)] if (second, SHORT) not in scores.known else [(first, stage) for stage in STAGES]
        scores.known.update({key: scored(5.0) for key in came})
        return came

    scores.wait = wait  # type: ignore[method-assign]
    staged.verdict(0)
    assert (subject(1).behaviour, FULL) in scores.asked


def test_a_ticket_has_one_verdict() -> None:
    """Collecting twice, or entering twice under one ticket, is a defect of the caller and said at once."""
    staged = Staged(Shuffled(0))
    staged.enter(5, subject(0), (SHORT,), (math.inf,))
    with pytest.raises(ValueError, match="ticket 5"):
        staged.enter(5, subject(1), (SHORT,), (math.inf,))
    staged.verdict(5)
    with pytest.raises(KeyError):
        staged.verdict(5)

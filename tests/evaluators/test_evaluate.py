"""What a job is worth: runs over rates and seeds, failures as data, equal scores for equal jobs."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolion.discovered.library import known
from evolion.evaluators import compiled, compiler_memory, evaluate
from evolion.evaluators.compiled import KEPT, CompiledLoops, compiled_loops
from evolion.evaluators.encoding import CapacityError, encode
from evolion.evaluators.evaluate import evaluate_compiled, evaluate_interpreted, evaluate_job
from evolion.evaluators.loop import Outcome, StepInputs
from evolion.evaluators.types import Job, Score, Status
from evolion.primitives.keys import ProbeStatus, probe
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.proxies.registry import get_task
from evolion.proxies.schedules import multipliers
from evolion.search.mutation import MutationConfig, mutate

TASK, STEPS = "digits-mlp", 30
CHILDREN = 20
TOLERANCE, STRICT, STRICT_SHARE = 2e-2, 1e-4, 0.8
"""How far the two paths may be apart in the final loss, relative to it: any program, and all but a few of them."""

TEN = ("nadam", "rmsprop", "yogi", "adam", "momentum", "novograd", "signsgd", "adan", "adagrad", "lion")
"""Optimizers whose mean losses over `SEEDS` are at least 3 % apart: five seeds tell them from each other."""

SEEDS = (0, 1, 2, 3, 4)
COMPILATION = "/jax/core/compile/backend_compile_duration"
BOTH = pytest.mark.parametrize("path", [evaluate_job, evaluate_compiled], ids=["interpreted", "compiled"])
Path = Callable[[Job], Score]


def job(program: Program | str, **options: Any) -> Job:
    options = {"steps": STEPS, "seeds": (0,), "learning_rates": (3e-3,)} | options
    return Job(0, parse(program) if isinstance(program, str) else program, TASK, **options)


def outcome(loss: float, *, steps: int = STEPS, tail: float | None = None, finite: bool = True) -> Outcome:
    """A run whose training loss stands at `tail`; after `steps` it stopped."""
    losses = np.full(STEPS, math.nan, np.float32)
    losses[:steps] = loss if tail is None else tail
    return Outcome(jnp.asarray(losses), jnp.int32(steps), jnp.float32(loss), jnp.bool_(finite))


def scored(outcomes: dict[tuple[float, int], Outcome]) -> Score:
    """The score of hand-made outcomes, by learning rate and seed."""
    rates = tuple(dict.fromkeys(rate for rate, _ in outcomes))
    seeds = tuple(dict.fromkeys(seed for _, seed in outcomes))
    peaks = {np.float32(rate): rate for rate in rates}

    def train(schedule: Any, seed: int) -> Outcome:
        np.testing.assert_array_equal(schedule, schedule.max() * multipliers(STEPS))
        return outcomes[peaks[schedule.max()], seed]

    return evaluate._score(job(known()["sgd"], seeds=seeds, learning_rates=rates), train)


def test_best_rate_has_the_lowest_mean_over_seeds() -> None:
    """Neither the lowest single run nor a rate that loses a seed wins; every run is on record."""
    score = scored(
        {
            (0.25, 0): outcome(1.0, tail=0.5),
            (0.25, 1): outcome(2.0, tail=1.0),
            (0.5, 0): outcome(0.25),
            (0.5, 1): outcome(4.0),
            (1.0, 0): outcome(0.125),
            (1.0, 1): outcome(0.0, steps=3),
        }
    )
    assert (score.status, score.loss, score.train_loss, score.learning_rate) == (Status.OK, 1.5, 0.75, 0.25)
    assert score.steps == STEPS
    assert set(score.curve) == {0.75}
    assert [(run.learning_rate, run.seed) for run in score.runs] == [(r, s) for r in (0.25, 0.5, 1.0) for s in (0, 1)]
    assert [run.status for run in score.runs] == [Status.OK] * 5 + [Status.DIVERGED]
    assert (score.runs[-1].loss, score.runs[-1].steps) == (None, 3)


def test_equal_rates_are_decided_by_their_order() -> None:
    """A tie is decided the same way each time: the rate named first."""
    assert scored({(0.5, 0): outcome(1.0), (0.25, 0): outcome(1.0)}).learning_rate == 0.5
    assert scored({(0.25, 0): outcome(1.0), (0.5, 0): outcome(1.0)}).learning_rate == 0.25


@pytest.mark.parametrize(
    "bad",
    [
        outcome(math.nan),
        outcome(math.inf),
        outcome(1.0, finite=False),
        outcome(1.0, steps=STEPS - 1),
        outcome(100.0, tail=1.0),
    ],
    ids=["NaN at the end", "infinite at the end", "weights", "stopped", "exploded"],
)
def test_what_did_not_end_finite_never_ranks(bad: Outcome) -> None:
    """NaN, infinity and explosion are a status; the other rate wins, and without one there is no loss at all."""
    good = scored({(0.25, 0): bad, (0.5, 0): outcome(2.0)})
    assert (good.status, good.loss, good.learning_rate) == (Status.OK, 2.0, 0.5)
    lost = scored({(0.25, 0): bad, (0.25, 1): outcome(2.0)})
    assert (lost.status, lost.loss, lost.train_loss, lost.learning_rate) == (Status.DIVERGED, None, None, None)
    assert [run.status for run in lost.runs] == [Status.DIVERGED, Status.OK]


def test_divergence_tells_how_far_training_came() -> None:
    """The message and the steps are those of the run that went furthest."""
    score = scored({(0.25, 0): outcome(1.0, steps=7), (0.5, 0): outcome(1.0, steps=4)})
    assert score.steps == 7
    assert f"step 7 of {STEPS}" in score.message


@BOTH
@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("def train(g):\n    return g * 1e30\n", 2),
        ("def train(g):\n    return sqrt(-1 - square(g))\n", 2),
        ("def train(g, t, horizon):\n    return g / (1 - t / horizon) * 0.001\n", STEPS),
    ],
    ids=["too large", "NaN", "in the last step"],
)
def test_divergence_stops_early_and_is_a_status(path: Path, text: str, steps: int) -> None:
    """A run ends at the first loss that is not finite; bad weights of the last step are noticed too."""
    score = path(job(text))
    assert (score.status, score.loss) == (Status.DIVERGED, None)
    assert score.steps == score.runs[0].steps
    assert score.steps <= steps
    assert (score.steps == STEPS) == (steps == STEPS)
    assert all(map(math.isfinite, score.curve))


def test_only_a_lack_of_room_is_a_reason_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error inside the evaluator is not the program's fault: it is raised, never turned into a status."""

    def broken(_: Program) -> None:
        raise ValueError("a defect")

    monkeypatch.setattr(evaluate, "encode", broken)
    with pytest.raises(ValueError, match="a defect"):
        evaluate_job(job(known()["sgd"]))


@pytest.mark.parametrize("kind", ["instructions", "slots"])
def test_a_program_too_large_to_interpret_is_compiled(kind: str) -> None:
    """Capacity is no limit of what can be evaluated: such a program gets the score of the compiled path."""
    if kind == "instructions":
        text = "def train(g, lr):\n    x = g\n" + "    x = x + 0.01 * g\n" * 130 + "    return lr * x\n"
    else:
        names = [f"m{i}" for i in range(40)]
        body = "".join(f"    {n} = interp({n}, {b}, 0.9)\n" for n, b in zip(names, ["g", *names], strict=False))
        text = f"def train(g, lr, {', '.join(names)}):\n{body}    return lr * (g + m39), {', '.join(names)}\n"
    score = evaluate_job(job(text))
    assert score.status is Status.OK
    assert score == evaluate_compiled(job(text))
    assert score.loss is not None
    assert score.loss < score.curve[0]


@BOTH
def test_an_update_of_zero_leaves_the_loss_of_the_start(path: Path) -> None:
    """The final loss is that of the task on the whole split, at the weights of the seed."""
    task = get_task(TASK)
    for seed, split in ((0, "validation"), (1, "test")):
        score = path(job("def train(g):\n    return 0 * g\n", seeds=(seed,), split=split))
        start = float(task.loss(task.init(seed), task.data("test" if split == "test" else "validation")))
        assert score.loss == pytest.approx(start, rel=1e-6)


def test_rates_and_seeds_enter_the_training() -> None:
    """A rate scales the updates, a seed gives other weights and batches; a program without lr ignores the rate."""
    score = evaluate_job(job(known()["sgd"], seeds=(0, 1), learning_rates=(1e-4, 0.1)))
    losses = [run.loss for run in score.runs]
    assert len(set(losses)) == 4
    assert score.learning_rate == 0.1
    assert score.loss == pytest.approx(math.fsum(x for x in losses[2:] if x is not None) / 2)
    rateless = evaluate_job(job("def train(g):\n    return 0.01 * g\n", learning_rates=(1e-4, 0.1)))
    assert rateless.runs[0].loss == rateless.runs[1].loss
    assert rateless.learning_rate == 1e-4


@BOTH
@pytest.mark.parametrize("name", ["loss", "noise"])
def test_loss_and_noise_are_supplied(path: Path, name: str) -> None:
    """Both change the training, and are the same for the same seed."""
    text = f"def train(g, {name}):\n    return 0.01 * g * {name}\n"
    one, again = path(job(text, seeds=(0, 1))), path(job(text, seeds=(0, 1)))
    assert one == again
    assert one.status is Status.OK
    assert one.loss != path(job("def train(g):\n    return 0.01 * g\n", seeds=(0, 1))).loss


def test_noise_is_drawn_anew_each_step_and_seed() -> None:
    """Noise that repeats would be a fixed direction: draws of other steps and seeds are independent, each normal."""

    def draw(seed: int, step: int) -> Any:
        zeros = jnp.zeros(10_000)
        return StepInputs([zeros], jnp.float32(0), zeros, jnp.int32(seed), jnp.int32(step)).noise()

    draws = np.stack([draw(0, 0), draw(0, 1), draw(1, 0), draw(1, 1)])
    np.testing.assert_array_equal(draws[3], draw(1, 1))
    assert np.abs(np.cov(draws) - np.eye(4)).max() < 0.06
    assert np.abs(draws.mean(axis=1)).max() < 0.05


SCRIPT = """
from evolion.evaluators.environment import prepare
prepare()
from evolion.discovered.library import known
from evolion.evaluators.evaluate import evaluate_job
from evolion.evaluators.types import Job
from evolion.primitives.keys import ProbeStatus, probe
from evolion.primitives.parser import parse
noisy = parse("def train(g, noise, loss):\\n    return 0.01 * g * loss + 0.001 * noise\\n")
for program in (known()["adamw_seed"], noisy):
    score = evaluate_job(Job(0, program, "digits-mlp", 30, (0, 1), (1e-3, 1e-2)))
    print(repr([(run.status, run.loss, run.train_loss) for run in score.runs]), repr(score.curve))
"""


def test_equal_jobs_have_equal_scores_in_any_process() -> None:
    """Bit for bit: within a process, and in another one that has done nothing before."""
    noisy = parse("def train(g, noise, loss):\n    return 0.01 * g * loss + 0.001 * noise\n")
    printed = []
    for program in (known()["adamw_seed"], noisy):
        one = job(program, seeds=(0, 1), learning_rates=(1e-3, 1e-2))
        score = evaluate_job(one)
        assert score == evaluate_job(one)
        runs = [(run.status, run.loss, run.train_loss) for run in score.runs]
        printed.append(f"{runs!r} {score.curve!r}")
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == printed


def test_the_split_decides_where_the_loss_is_taken() -> None:
    """The same training, scored elsewhere: the test split enters the loss alone."""
    one, other = (evaluate_job(job(known()["adamw_seed"], split=split)) for split in ("validation", "test"))
    assert one.curve == other.curve
    assert one.train_loss == other.train_loss
    assert one.loss != other.loss


def test_trials_of_a_compiled_program_share_one_compilation(caplog: pytest.LogCaptureFixture) -> None:
    """Tuning a matrix program costs one compilation: rates, weight decays and horizons up to 512 are arguments."""
    program = parse(
        "def train(w, g, lr, *, weight_decay=0.1):\n"
        "    return lr * (orthogonalize(g, 5, 3.4, -4.8, 2) + weight_decay * w)\n"
    )
    first = evaluate_compiled(job(program, steps=7))
    caplog.clear()
    with jax.log_compiles(True), caplog.at_level(logging.WARNING, logger="jax"):
        others = [
            evaluate_compiled(job(program.with_hyperparameters(weight_decay=decay), steps=steps))
            for decay, steps in ((0.1, 7), (0.0, 7), (3.0, 7), (0.1, 8))
        ]
    assert not [record for record in caplog.records if "Compiling run" in record.getMessage()]
    assert others[0] == first
    assert len({score.loss for score in others}) == len(others)


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """The functions that jax has compiled or looked up among compiled ones since the test began."""
    found: list[str] = []

    def listen(event: str, _: float, **about: Any) -> None:
        if event == COMPILATION:
            found.append(str(about.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def children(count: int) -> list[Program]:
    """Different children of the warm start, as a search trains them."""
    rng, found = np.random.default_rng(5), {}
    config = MutationConfig(maximum_statements=30).for_seed(known()["adamw_seed"])
    while len(found) < count:
        child = known()["adamw_seed"]
        for _ in range(int(rng.integers(1, 5))):
            child, _ = mutate(child, rng, config)
        result = probe(child)
        if result.status is ProbeStatus.OK:
            found[result.key] = child
    return list(found.values())


def test_a_search_compiles_for_its_first_candidate_alone(compilations: list[str]) -> None:
    """Children of a search differ in their instructions, horizons, seeds and rates, and none of that is compiled for.

    Whether the counting works is seen by a horizon that needs a loop of its own.
    """
    first, *others = children(CHILDREN)
    evaluate_job(job(first, steps=12, seeds=(0, 1)))
    compilations.clear()
    for number, child in enumerate(others):
        options = {"steps": 5 + number, "seeds": (number, number + 1), "learning_rates": (1e-3 * (number + 1),)}
        evaluate_job(job(child, **options, split="test" if number % 2 else "validation"))
    assert compilations == []
    evaluate_compiled(job("def train(g, lr):\n    return lr * g * 1.25\n", steps=2))
    assert len(compilations) == 1


def test_compiled_programs_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that compiles survivors for days holds the last few loops; a dropped one leaves nothing behind."""
    assert compiled._compiled.cache_parameters()["maxsize"] == KEPT
    kept = 2
    monkeypatch.setattr(compiled, "_compiled", lru_cache(maxsize=kept)(compiled._compiled.__wrapped__))
    held = []
    for number in range(1, 7):
        text = f"def train(g, lr):\n    return {number} * lr * g\n"
        for steps in (2, 3):
            score = evaluate_compiled(replace(job(text, steps=steps), task="noisy-quadratic"))
            assert score.status is Status.OK
        held.append(len(jax.devices()[0].client.live_executables()))
    assert compiled_loops() == CompiledLoops(kept=kept, built=6, reused=6)
    assert held[kept:] == [held[kept]] * (len(held) - kept)


def test_memory_of_the_compiler_is_handed_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker gives back what compiling has left behind, and loses no time with it while it interprets."""
    asked: list[int] = []
    monkeypatch.setattr(compiler_memory, "_trim", lambda: lambda kept: asked.append(kept) or 1)
    monkeypatch.setitem(compiler_memory._state, "seconds", 0.0)
    interpreted = job("def train(g, lr):\n    return lr * g\n", steps=2)
    evaluate_job(interpreted)
    asked.clear()
    assert (evaluate_job(interpreted).status, asked) == (Status.OK, [])
    jax.monitoring.record_event_duration_secs(COMPILATION, 1.0, fun_name="run")
    evaluate_job(interpreted)
    evaluate_job(interpreted)
    assert asked == [0]


def test_another_c_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory can be handed back with the C library of GNU alone: elsewhere nothing is done."""
    monkeypatch.setattr(compiler_memory.ctypes, "CDLL", lambda _: object())
    compiler_memory._trim.cache_clear()
    monkeypatch.setitem(compiler_memory._state, "seconds", 1.0)
    assert compiler_memory.hand_back() is False
    compiler_memory._trim.cache_clear()


@pytest.mark.slow
@pytest.mark.timeout(900)  # a hundred compilations
def test_every_known_program_scores_the_same_on_both_paths() -> None:
    """Which path a program takes is a matter of cost: nearly all differ in the last bits, chaotic ones by a percent.

    Programs that divide by the root of what is nearly zero magnify rounding within tens of steps, as they would magnify
    any other change.
    """
    rate = get_task(TASK).learning_rates[1]
    apart: dict[str, float] = {}
    for name, program in known().items():
        try:
            encode(program)
        except CapacityError:
            continue
        one = job(program, learning_rates=(rate,))
        ours, theirs = evaluate_interpreted(one), evaluate_compiled(one)
        assert ours.status is theirs.status, name
        if ours.loss is not None and theirs.loss is not None:
            apart[name] = abs(ours.loss - theirs.loss) / abs(theirs.loss)
    assert len(apart) > 30
    assert max(apart.values()) < TOLERANCE, apart
    assert sum(value < STRICT for value in apart.values()) >= STRICT_SHARE * len(apart), apart


@pytest.mark.slow
def test_both_paths_rank_ten_known_optimizers_alike() -> None:
    """At the task's own horizon and grid of rates the order of ten optimizers does not hang on how they are run.

    Single runs at a high rate may end percents apart, as rounding grows over hundreds of steps; the means do not.
    """
    task = get_task(TASK)
    orders = []
    for path in (evaluate_interpreted, evaluate_compiled):
        losses = {}
        for name in TEN:
            one = job(known()[name], steps=task.steps, seeds=SEEDS, learning_rates=task.learning_rates)
            losses[name] = path(one).loss or math.inf
        orders.append(tuple(sorted(losses, key=lambda name: losses[name])))
    assert orders == [TEN, TEN]

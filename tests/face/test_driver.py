"""Same configuration, same run: for any order of completion, any number of workers, any crash."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from run_contents import contents, told
from stub_evaluator import StubEvaluator, stub_config

from evolion.config import RunConfig
from evolion.driver import Result, discover, resume
from evolion.errors import InputError, JobError, RunError
from evolion.evaluators.stages import Reason
from evolion.evaluators.types import EvaluatorUnavailable, Job
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.keys import ProbeStatus
from evolion.primitives.parser import parse
from evolion.primitives.simplify import simplify
from evolion.retest import finalists_of
from evolion.run_status import status_lines, status_of
from evolion.search.types import NoProgramError
from evolion.store import RunStore

TESTS = Path(__file__).parents[1]

STUB_RUN = """
import sys
from stub_evaluator import StubEvaluator, stub_config
from evolion.driver import discover
discover(stub_config(int(sys.argv[2])), sys.argv[1], evaluator=StubEvaluator(shuffle=7))
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run with jobs answered one by one in order."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return folder, discover(stub_config(), folder, evaluator=StubEvaluator())


@pytest.mark.parametrize("shuffle", [1, 2, 3])
def test_order_of_completion_changes_nothing(undisturbed: tuple[Path, Result], tmp_path: Path, shuffle: int) -> None:
    """Results that come in any order and any number at a time give the same run, row by row."""
    discover(stub_config(), tmp_path / "run", evaluator=StubEvaluator(shuffle=shuffle))

    assert contents(undisturbed[0]) == contents(tmp_path / "run")


def test_seed_and_lag_are_what_changes_a_run(undisturbed: tuple[Path, Result], tmp_path: Path) -> None:
    """Another seed or lag gives other candidates: the equalities of this file are not of empty things."""
    for name, config in {"seed": stub_config(seed=1), "lag": stub_config(lag=1)}.items():
        discover(config, tmp_path / name, evaluator=StubEvaluator())
        assert contents(undisturbed[0])["candidates"] != contents(tmp_path / name)["candidates"]


def test_candidate_depends_only_on_scores_beyond_the_lag(undisturbed: tuple[Path, Result]) -> None:
    """The parent of candidate i has a number below i - lag, so no candidate waits for those in flight."""
    candidates = contents(undisturbed[0])["candidates"]

    assert all(c.parent is None or c.parent == 0 or c.parent < c.number - 8 for c in candidates)
    assert any(c.parent not in (None, 0) for c in candidates)


def test_driver_killed_at_random_moments_resumes_to_the_same_run(
    undisturbed: tuple[Path, Result], tmp_path: Path
) -> None:
    """kill -9 of the driver loses nothing: resumed as often as need be, the run ends as an undisturbed one."""
    folder, rng = tmp_path / "run", random.Random(5)
    script = [sys.executable, "-c", STUB_RUN, str(folder), "150"]
    driver = subprocess.Popen(script, cwd=TESTS, env=os.environ | {"PYTHONPATH": str(TESTS)})
    deadline = time.monotonic() + 60
    wanted = rng.randint(10, 120)
    while driver.poll() is None and told(folder) < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    driver.send_signal(signal.SIGKILL)
    driver.wait()

    assert told(folder) < 150, "the kill came too late to mean anything"
    resume(folder, evaluator=StubEvaluator(shuffle=3))
    assert contents(undisturbed[0]) == contents(folder)


def test_workers_that_can_go_on_no_more_end_a_run_that_goes_on_later(
    undisturbed: tuple[Path, Result], tmp_path: Path
) -> None:
    """Data that is away for longer than a pool waits costs no score: one line says how to go on."""
    evaluator = StubEvaluator()
    collect = evaluator.collect

    def fails(timeout: float | None = None) -> Any:
        if len(evaluator.seen) > 60:
            raise EvaluatorUnavailable("no worker can have the data of stub: no file")
        return collect(timeout)

    evaluator.collect = fails  # type: ignore[method-assign]
    folder = tmp_path / "run"
    advice = "no file: what was scored is kept; continue with: evolion resume"
    with pytest.raises(JobError, match=advice):
        discover(stub_config(), folder, evaluator=evaluator)
    assert told(folder) > 20
    resume(folder, evaluator=StubEvaluator())
    assert contents(undisturbed[0]) == contents(folder)


def test_algorithm_that_cannot_work_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    """Constants alone cannot be mutated where there are none: said at once, and no folder stands in the way after."""
    config = stub_config()
    config = replace(config, search=replace(config.search, algorithm="constants-only", warm_start="sgd"))
    with pytest.raises(InputError, match=r"constants-only.*no constant"):
        discover(config, tmp_path / "run", evaluator=StubEvaluator())
    assert not (tmp_path / "run").exists()


def test_search_that_finds_no_child_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a search may draw from can be too narrow for any further program: a failed job, not a defect."""

    def mutate(*_: object) -> None:
        raise NoProgramError("no child in 200 attempts")

    monkeypatch.setattr("evolion.search.regularized_evolution.breed", mutate)
    with pytest.raises(JobError, match="no candidate 1: no child"):
        discover(stub_config(), tmp_path / "run", evaluator=StubEvaluator())


def test_scores_of_a_killed_run_are_not_computed_again(tmp_path: Path) -> None:
    """Resume replays stored scores: only what was in flight is evaluated a second time."""
    first = StubEvaluator()
    collect = first.collect

    def dies(timeout: float | None = None) -> Any:
        if len(first.seen) > 60:
            raise KeyboardInterrupt
        return collect(timeout)

    first.collect = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        discover(stub_config(), tmp_path / "run", evaluator=first)
    second = StubEvaluator()
    resume(tmp_path / "run", evaluator=second)

    def names(jobs: list[Job]) -> set[str]:
        return {repr((job.program, job.task, job.seeds)) for job in jobs}

    done = names(first.seen) - names(first.jobs)
    again = names([job for job in second.seen if job.steps == 50])

    assert not done & again


def test_finished_run_is_given_back_without_work(undisturbed: tuple[Path, Result]) -> None:
    """Resuming a finished run needs no evaluator and says the same."""
    evaluator = StubEvaluator()

    assert resume(undisturbed[0], evaluator=evaluator) == undisturbed[1]
    assert not evaluator.seen


def test_run_of_other_numerics_is_not_continued(tmp_path: Path) -> None:
    """Scores of two kinds of machine are never mixed in one run."""
    evaluator = StubEvaluator()
    evaluator.collect = lambda timeout=None: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        discover(stub_config(), tmp_path / "run", evaluator=evaluator)

    with pytest.raises(RunError, match="other numerics"):
        resume(tmp_path / "run", evaluator=StubEvaluator(numerics="another machine"))


def test_behaviour_is_evaluated_once(tmp_path: Path) -> None:
    """Candidates that do the same share one evaluation, whether it is done or still in flight."""
    evaluator = StubEvaluator(shuffle=1)
    discover(stub_config(), tmp_path / "run", evaluator=evaluator)
    from evolion.primitives.keys import behavioural_key

    budgets = [
        (behavioural_key(j.program), j.task, j.steps, j.seeds, j.learning_rates, j.split) for j in evaluator.seen
    ]
    assert len(budgets) == len(set(budgets))
    assert any(outcome.reused for outcome in contents(tmp_path / "run")["outcomes"])


def test_near_twins_are_trained_where_that_is_asked_for(tmp_path: Path) -> None:
    """Whoever wants every behaviour trained by itself says so: no candidate then has the key of another behaviour."""
    from evolion.primitives.keys import behavioural_key

    def borrowed(alike: bool) -> int:
        config = stub_config()
        config = replace(config, search=replace(config.search, alike=alike))
        discover(config, tmp_path / str(alike), evaluator=StubEvaluator())
        with RunStore.open(tmp_path / str(alike), readonly=True) as store:
            return sum(c.behaviour_key != behavioural_key(parse(c.text)) for c in store.candidates())

    assert borrowed(alike=True) > 0
    assert borrowed(alike=False) == 0


def test_funnel_is_recorded(undisturbed: tuple[Path, Result]) -> None:
    """Every candidate has an outcome; dead and unbounded ones were never trained; hurdles let a share through."""
    data = contents(undisturbed[0])
    probes = {c.number: c.probe_status for c in data["candidates"]}

    assert [c.number for c in data["candidates"]] == [o.number for o in data["outcomes"]] == list(range(150))
    assert all((probes[o.number] == ProbeStatus.OK) == (o.stage is not None) for o in data["outcomes"])
    trained = [o for o in data["outcomes"][30:] if o.stage is not None]
    assert 0 < sum(o.stage == 1 for o in trained) < 0.6 * len(trained)
    assert {o.reason for o in data["outcomes"]} > {Reason.FINISHED, Reason.HURDLE, Reason.DIVERGED, Reason.UNBOUNDED}
    for outcome in data["outcomes"]:
        assert (outcome.hurdle is not None) == (outcome.reason is Reason.HURDLE)
        assert outcome.hurdle is None or outcome.value > outcome.hurdle
        assert outcome.fitness is None or outcome.reason in (Reason.HURDLE, Reason.FINISHED)


def test_the_best_are_confirmed(undisturbed: tuple[Path, Result]) -> None:
    """Runs of this file hold confirmations of every sort: passed, failed, and taken over by those who do the same."""
    data = contents(undisturbed[0])
    confirmations = data["confirmations"]
    keys = {c.number: c.behaviour_key for c in data["candidates"]}
    outcomes = {o.number: o for o in data["outcomes"]}

    assert confirmations[0].number == 0
    assert {c.reason for c in confirmations} == {Reason.FINISHED, Reason.DIVERGED}
    assert all((c.fitness is None) == c.reason.failed for c in confirmations)
    assert len({keys[c.number] for c in confirmations}) < len(confirmations)
    assert all(outcomes[c.number].fitness != c.fitness for c in confirmations if not outcomes[c.number].reused)


def test_finalists_rest_on_fresh_seeds(undisturbed: tuple[Path, Result]) -> None:
    """The retest takes its candidates by what was confirmed, not by the luckiest first score."""
    with RunStore.open(undisturbed[0], readonly=True) as store:
        standings, confirmed = store.standings(), {c.number: c.fitness for c in store.confirmations()}
        finalists = finalists_of(store, 2)
    assert [finalist.fitness for finalist in finalists] == [confirmed[finalist.number] for finalist in finalists]
    assert finalists[0].number == standings[0].number
    assert not any(confirmed.get(standing.number, ()) is None for standing in standings)


def test_status_shows_the_whole_funnel(undisturbed: tuple[Path, Result]) -> None:
    """Every candidate is a duplicate, dropped somewhere for a reason, or through; what passes enters the next."""
    folder, result = undisturbed
    with RunStore.open(folder, readonly=True) as store:
        data = json.loads(json.dumps(status_of(store)))
    rows = data["funnel"]
    assert [row["stage"] for row in rows] == ["probe", "stage 1", "stage 2"]
    assert rows[0]["entered"] + result.counts.reused == 150
    assert all(before["passed"] == after["entered"] for before, after in pairwise(rows))
    assert all(row["entered"] == sum(row["dropped"].values()) + row["passed"] for row in rows)
    stopped = [outcome for outcome in contents(folder)["outcomes"] if outcome.stage is None]
    assert sum(rows[0]["dropped"].values()) == len(stopped)  # duplicates too: what was not scored was not reused
    assert {"unbounded", "no descent"} <= set(rows[0]["dropped"]) <= {"dead", "unbounded", "no descent"}
    assert {"diverged", "hurdle"} == set(rows[1]["dropped"])
    text = "\n".join(status_lines(data))
    assert f"{rows[1]['dropped']['hurdle']} hurdle" in text
    assert "on digits-mlp, 50 steps" in text
    assert f"confirmed   {result.counts.confirmed} with fresh seeds" in text
    assert data["confirmations"]["runs"] == result.counts.cost.confirming_runs > 0
    assert f"Confirmed: {result.counts.confirmed} with fresh seeds" in str(result)


def test_short_stages_are_short_complete_schedules(tmp_path: Path) -> None:
    """The default run trains on a fifth of the horizon first: evaluators get that horizon, not a place to stop."""
    config = replace(stub_config(30), stages=RunConfig().stages)
    evaluator = StubEvaluator()
    discover(config, tmp_path / "run", evaluator=evaluator)
    first, second, third = (
        [job for job in evaluator.seen if job.task == task and job.steps == steps and len(job.learning_rates) > 1]
        for task, steps in (("digits-mlp", 100), ("digits-mlp", 500), ("zipf-lm", 400))
    )
    assert len(first) > len(second) > 0 < len(third) < len(first)


def test_candidates_are_valid_and_free_of_dead_code(undisturbed: tuple[Path, Result]) -> None:
    """What the store holds parses, and every statement of it reaches an update."""
    for candidate in contents(undisturbed[0])["candidates"]:
        program = parse(candidate.text)
        assert remove_dead_code(program) == program


def test_winner_is_simplified(undisturbed: tuple[Path, Result]) -> None:
    """What a run ends with has nothing that an exact rule would still remove."""
    winner = undisturbed[1].winner

    assert simplify(winner) == winner


def test_result_is_json_and_text(undisturbed: tuple[Path, Result]) -> None:
    """What `--json` prints is strict JSON; the text names program, both tasks, both baselines and the files."""
    folder, result = undisturbed
    data = json.loads(json.dumps(result.to_json(), allow_nan=False))
    text = str(result)

    assert parse(data["winner"]) == result.winner
    assert all(word in text for word in ("digits-mlp", "zipf-lm", "adamw", "lion", "against", "def train("))
    assert all(Path(path).is_file() and path in text for path in data["files"])
    assert folder == result.folder


def test_found_optimizer_trains_without_evolion(undisturbed: tuple[Path, Result], tmp_path: Path) -> None:
    """The exported file is imported by a new process in which evolion cannot be imported, and takes a step."""
    source = next(path for path in undisturbed[1].files if path.suffix == ".py")
    script = f"""
import importlib.util, inspect, sys
sys.modules["evolion"] = None
import jax, jax.numpy as jnp, optax
spec = importlib.util.spec_from_file_location("discovered", {str(source)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
takes = inspect.signature(module.discovered).parameters
tx = module.discovered(*([1e-3] if "learning_rate" in takes else []))
params = {{"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}}
updates, state = jax.jit(tx.update)(params, tx.init(params), params)
assert jax.tree.structure(optax.apply_updates(params, updates)) == jax.tree.structure(params)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_occupied_folder_is_left_alone(undisturbed: tuple[Path, Result]) -> None:
    """A second run never writes into the folder of a first."""
    before = contents(undisturbed[0])
    with pytest.raises(InputError, match="already holds a run"):
        discover(stub_config(), undisturbed[0], evaluator=StubEvaluator())

    assert contents(undisturbed[0]) == before


def test_progress_is_reported_in_order(tmp_path: Path) -> None:
    """An observer sees the search go on to its last candidate, then the later phases."""
    seen: list[Any] = []

    class Watcher:
        def on_progress(self, progress: Any) -> None:
            seen.append(progress)

    discover(stub_config(40), tmp_path / "run", evaluator=StubEvaluator(shuffle=2), observer=Watcher())
    told = [p.done for p in seen if p.phase == "search"]

    assert told == sorted(set(told))
    assert told[-1] == 40
    stages = [p.best_fitness[0] for p in seen if p.best_fitness]
    assert all(before >= after for before, after in pairwise(stages))
    last = [p for p in seen if p.phase == "search"][-1]
    with RunStore.open(tmp_path / "run", readonly=True) as store:
        best, counts = store.best(), store.counts()
    assert best is not None
    assert (last.best_number, last.best_fitness, best.confirmed) == (best.number, best.fitness, True)
    assert (last.confirmed, last.confirming) == (counts.confirmed, pytest.approx(counts.cost.share))
    assert counts.confirmed > 1
    assert 0.0 < counts.cost.share < 0.5
    assert {p.phase for p in seen} == {"search", "tuning", "retest", "ablation"}

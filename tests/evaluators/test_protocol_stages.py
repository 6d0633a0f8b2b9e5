"""The stages of a comparison: what is run hangs on the plan alone, not on workers, order or where it was stopped."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from analytic_evaluator import CENTRE, STEPS, AnalyticEvaluator, plan_of, subjects

from evolion.evaluators.protocol.execution import execute, ordered
from evolion.evaluators.protocol.plan import Manifest, Plan, PlanError, from_json, make_plan, resumed, to_json
from evolion.evaluators.protocol.rows import Row, Stage
from evolion.evaluators.protocol.stages import UNIT, StaleRow, expected, nearest_face, requests
from evolion.evaluators.protocol.table import Table, read_rows
from evolion.proxies.score import Status

TRIALS = (Stage.TUNING, Stage.EDGE, Stage.REFINEMENT)


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)


def table_of(plan: Plan, path: Path, evaluator: AnalyticEvaluator) -> list[Row]:
    with Table(path) as table:
        execute(plan, plan.tasks, table, evaluator, preparation=subjects)
    return ordered(plan, read_rows(path))


def rows_of(tmp_path: Path, plan: Plan, evaluator: AnalyticEvaluator) -> dict[str, list[Row]]:
    """The rows of a plan with one task, by optimizer."""
    rows = table_of(plan, tmp_path / "table.jsonl", evaluator)
    return {one.name: [row for row in rows if row.optimizer == one.name] for one in plan.entrants}


def stages(rows: list[Row]) -> dict[str, int]:
    return dict(Counter(row.stage.value for row in rows))


@pytest.mark.parametrize(("workers", "shuffle"), [(2, None), (2, 3), (7, 4), (7, 5)])
def test_workers_and_order_change_nothing(tmp_path: Path, workers: int, shuffle: int | None) -> None:
    """Results hang on the plan, not on how many compute or which run ends first."""
    plan = plan_of("adamw", "lion", "sgd", tasks=("one", "two"))
    expected_rows = table_of(plan, tmp_path / "alone", AnalyticEvaluator(workers=1))
    found = table_of(plan, tmp_path / "other", AnalyticEvaluator(workers=workers, shuffle=shuffle))
    assert found == expected_rows


def test_a_kill_at_any_row_changes_nothing(tmp_path: Path) -> None:
    """Whatever was written is kept and nothing is run twice, with a line that a crash has cut besides."""
    plan = plan_of("adamw", "sgd", trials=4, seeds=1)
    whole, path = tmp_path / "whole", tmp_path / "part"
    rows = table_of(plan, whole, AnalyticEvaluator(workers=2, shuffle=1))
    lines = whole.read_bytes().splitlines(keepends=True)
    jobs = 0
    for kept in range(len(lines)):
        path.write_bytes(b"".join(lines[:kept]) + lines[kept][: 7 * kept % len(lines[kept])])
        evaluator = AnalyticEvaluator(workers=2, shuffle=kept)
        assert table_of(plan, path, evaluator) == rows
        assert len(evaluator.seen) <= len(lines) - kept
        jobs += len(evaluator.seen)
    assert jobs > 0


def test_a_finished_table_needs_nothing(tmp_path: Path) -> None:
    """The same command again says the same, at once."""
    plan = plan_of("adamw", "lion")
    rows = table_of(plan, tmp_path / "table", AnalyticEvaluator())
    again = AnalyticEvaluator()
    assert table_of(plan, tmp_path / "table", again) == rows
    assert again.seen == []


def test_every_optimizer_has_the_same_trials_at_the_same_points(tmp_path: Path) -> None:
    """No optimizer is tuned with more trials, or at better places, than another."""
    plan = plan_of("adamw", "lion", "sgd", controls=0)
    by_name = rows_of(tmp_path, plan, AnalyticEvaluator())
    for name, rows in by_name.items():
        tuning = [row for row in rows if row.stage is Stage.TUNING]
        assert [row.trial for row in tuning] == list(range(plan.trials))
        places = [row.unit[0] for row in tuning if row.unit]
        assert places == [row.unit[0] for row in by_name["adamw"][: plan.trials] if row.unit], name
        assert {row.seed for row in rows if row.stage in TRIALS} == {plan.tuning_seed}
        assert {row.seed for row in rows if row.stage is Stage.REPORT} == {1, 2}
        assert (tuning[0].shrinkage is None) == (name == "sgd")


def test_copies_of_the_reference_have_luck_of_their_own(tmp_path: Path) -> None:
    """With the same points and seeds a copy would give the same numbers, and nothing could be learnt from it."""
    plan = plan_of("adamw", "lion", controls=3)
    by_name = rows_of(tmp_path, plan, AnalyticEvaluator())
    copies = [name for name in by_name if "copy" in name]
    assert len(copies) == 3
    family = ["adamw", *copies]
    places = [tuple(row.unit for row in by_name[name][: plan.trials]) for name in family]
    seeds = [{row.seed for row in by_name[name]} for name in family]
    assert len(set(places)) == 4
    assert all(not (a & b) for i, a in enumerate(seeds) for b in seeds[:i])
    for name in copies:
        assert {row.stage for row in by_name[name]} <= {*TRIALS, Stage.REPORT}
        assert {row.control for row in by_name[name]} == {"adamw"}


def best_of(rows: list[Row]) -> Row:
    return min((row for row in rows if row.stage in TRIALS), key=lambda row: row.ranked)


@pytest.mark.parametrize(
    ("bottom", "extensions", "axis", "high"),
    [
        ({}, 0, 0, True),
        ({"rate": CENTRE * 10**1.9}, 1, 0, True),
        ({"rate": CENTRE / 10**1.9}, 1, 0, False),
        ({"rate": CENTRE * 1e6}, 2, 0, True),
        ({"shrinkage": 1e60}, 2, 1, True),
    ],
)
def test_a_best_trial_at_a_face_moves_it(
    tmp_path: Path, bottom: dict[str, float], extensions: int, axis: int, high: bool
) -> None:
    """The box grows by a decade where the best lies, at most twice; the trials lie in what it has gained."""
    plan = replace(plan_of("adamw", controls=0, trials=16), refinements=0)
    rows = rows_of(tmp_path, plan, AnalyticEvaluator(**bottom))["adamw"]
    edge = [row for row in rows if row.stage is Stage.EDGE]
    assert len(edge) == extensions * plan.edge_points
    for i, row in enumerate(edge):
        assert row.unit is not None
        beyond = row.unit[axis] - 1.0 if high else -row.unit[axis]
        assert i // plan.edge_points < 3 * beyond < i // plan.edge_points + 1
        assert 0.0 <= row.unit[1 - axis] <= 1.0


def test_in_a_corner_the_nearer_face_moves_first(tmp_path: Path) -> None:
    """The lowest shrinkage among the 16 points is at a low rate too, which is nearer; the second extension is lower."""
    plan = replace(plan_of("adamw", controls=0, trials=16), refinements=0)
    rows = rows_of(tmp_path, plan, AnalyticEvaluator(shrinkage=1e-60))["adamw"]
    units = [row.unit for row in rows if row.stage is Stage.EDGE and row.unit]
    assert len(units) == 2 * plan.edge_points
    assert all(-1 / 3 < x < 0.0 < y < 1.0 for x, y in units[: plan.edge_points])
    assert all(-1 / 3 < x < 1.0 and -1 / 3 < y < 0.0 for x, y in units[plan.edge_points :])


def test_a_face_that_is_not_tuned_never_moves(tmp_path: Path) -> None:
    """An optimizer without weight decay has no face in that coordinate."""
    assert nearest_face((0.5, 0.01), UNIT, (True, False)) is None
    assert nearest_face((0.95, 0.01), UNIT, (True, True)) == (1, False)
    assert nearest_face((0.95, 0.01), UNIT, (True, False)) == (0, True)
    assert nearest_face((0.89, 0.11), UNIT, (True, True)) is None
    rows = rows_of(tmp_path, plan_of("sgd", controls=0), AnalyticEvaluator(shrinkage=1e9))["sgd"]
    assert all(row.unit is not None and row.unit[1] == 0.5 for row in rows if row.stage in TRIALS)


@pytest.mark.parametrize("names", [("adamw",), ("sgd",)])
def test_refinement_ends_where_no_neighbour_is_better(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Coordinate descent by factors of two, and nothing is tried twice."""
    plan = replace(plan_of(*names, controls=0), refinements=100)
    rows = rows_of(tmp_path, plan, AnalyticEvaluator())[names[0]]
    trials = [row for row in rows if row.stage in TRIALS]
    points = {(row.learning_rate, row.shrinkage): row.ranked for row in trials}
    assert len(points) == len(trials)
    assert len(trials) < plan.trials + 20
    best = best_of(rows)
    for factor in (0.5, 2.0):
        assert points[best.learning_rate * factor, best.shrinkage] >= best.ranked
        if best.shrinkage is not None:
            assert points[best.learning_rate, best.shrinkage * factor] >= best.ranked


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 8])
def test_refinement_has_a_limit(tmp_path: Path, limit: int) -> None:
    """Where every step is a gain, the budget is what ends it."""
    plan = replace(plan_of("adamw", controls=0), refinements=limit)
    rows = rows_of(tmp_path, plan, AnalyticEvaluator(rate=1e9, shrinkage=1e9))["adamw"]
    assert stages(rows).get("refinement", 0) == limit


def test_what_is_reported_has_the_best_settings_and_seen_no_choice(tmp_path: Path) -> None:
    """Fresh seeds and the test split for all that is reported, the validation split for all that chooses."""
    plan = plan_of("adamw", "lion", quick=False, controls=1)
    evaluator = AnalyticEvaluator()
    for name, rows in rows_of(tmp_path, plan, evaluator).items():
        best = best_of(rows)
        reported = [row for row in rows if row.stage is Stage.REPORT]
        assert len(reported) == plan.seeds
        assert {(row.learning_rate, row.weight_decay) for row in reported} == {(best.learning_rate, best.weight_decay)}
        fresh = {row.seed for row in rows if row.stage in (Stage.REPORT, Stage.HORIZON)}
        assert not fresh & {row.seed for row in rows if row.stage in TRIALS}, name
    fresh = {seed for entrant in plan.entrants for seed in range(plan.shift(entrant) + 1, plan.shift(entrant) + 5)}
    for job in evaluator.seen:
        assert job.split == ("test" if job.seeds[0] in fresh else "validation")


def test_horizons_are_complete_schedules_with_the_same_shrinkage(tmp_path: Path) -> None:
    """The reference has the ladder of a speed-up, tuned anew at its ends; others what times to targets need."""
    plan = plan_of("adamw", "lion", quick=False, controls=0)
    by_name = rows_of(tmp_path, plan, AnalyticEvaluator())
    for name, horizons in (("adamw", (0.25, 0.5, 2.0, 4.0)), ("lion", (0.25, 0.5, 2.0))):
        rows = [row for row in by_name[name] if row.stage is Stage.HORIZON]
        assert Counter(row.horizon for row in rows) == dict.fromkeys(horizons, plan.seeds)
        assert all(row.steps == row.horizon * STEPS for row in rows)
        assert {row.shrinkage for row in rows} == {best_of(by_name[name]).shrinkage}
        retuning = [row for row in by_name[name] if row.stage is Stage.RETUNING]
        assert Counter(row.horizon for row in retuning) == ({0.25: 3, 4.0: 3} if name == "adamw" else {})
        for horizon in {row.horizon for row in retuning}:
            chosen = min((row for row in retuning if row.horizon == horizon), key=lambda row: row.ranked)
            assert {row.learning_rate for row in rows if row.horizon == horizon} == {chosen.learning_rate}


def test_sensitivity_is_three_decades_around_the_best(tmp_path: Path) -> None:
    """Log-spaced rates at the tuned shrinkage; the middle one is the best trial itself and is not run again."""
    plan = plan_of("adamw", quick=False, controls=0)
    evaluator = AnalyticEvaluator()
    rows = rows_of(tmp_path, plan, evaluator)["adamw"]
    found, best = [row for row in rows if row.stage is Stage.SENSITIVITY], best_of(rows)
    rates = [row.learning_rate for row in found]
    assert len(rates) == 13
    assert [math.log10(rate / best.learning_rate) for rate in rates] == pytest.approx([i / 4 - 1.5 for i in range(13)])
    assert {row.shrinkage for row in found} == {best.shrinkage}
    assert (found[6].loss, found[6].learning_rate) == (best.loss, best.learning_rate)
    ran = [(job.learning_rates, job.program, job.steps, job.seeds, job.split) for job in evaluator.seen]
    assert len(set(ran)) == len(ran) < len(rows)


def test_equal_trials_are_run_once(tmp_path: Path) -> None:
    """A program with nothing to tune has as many rows as others, of one run."""
    plan = plan_of("sgd", controls=0)
    (prepared,) = subjects(plan, "one")
    fixed = replace(prepared, subject=replace(prepared.subject, box=replace(prepared.subject.box, rate=False)))
    evaluator, path = AnalyticEvaluator(), tmp_path / "table"
    with Table(path) as table:
        execute(plan, plan.tasks, table, evaluator, preparation=lambda plan, task: [fixed])
    rows = ordered(plan, read_rows(path))
    assert stages(rows) == {"tuning": 6, "report": 2, "horizon": 4}
    assert {row.learning_rate for row in rows} == {1.0}
    assert len(evaluator.seen) == 1 + 2 + 4


@pytest.mark.parametrize("status", [Status.DIVERGED, Status.CRASHED, Status.TIMEOUT])
def test_where_every_run_is_lost(tmp_path: Path, status: Status) -> None:
    """An optimizer that never trains has its trials and its seeds as rows, and ends nothing."""
    rows = rows_of(tmp_path, plan_of("adamw", controls=0), AnalyticEvaluator(statuses={status: 1.0}))["adamw"]
    assert stages(rows) == {"tuning": 6, "report": 2}
    assert {row.status for row in rows} == {status}
    assert {row.loss for row in rows} == {None}


def test_lost_runs_never_win(tmp_path: Path) -> None:
    """With some runs lost, tuning goes on with the best of the others."""
    plan = plan_of("adamw", "lion", quick=False)
    evaluator = AnalyticEvaluator(statuses={Status.CRASHED: 0.15, Status.DIVERGED: 0.3}, shuffle=1)
    for rows in rows_of(tmp_path, plan, evaluator).values():
        best = best_of(rows)
        assert best.status is Status.OK
        assert {row.learning_rate for row in rows if row.stage is Stage.REPORT} == {best.learning_rate}


def test_the_queue_is_full_but_bounded_and_tasks_come_together(tmp_path: Path) -> None:
    """No worker waits while there is work, little is lost at a kill, and a process compiles one task at a time."""
    plan = plan_of("adamw", "lion", "sgd", tasks=("one", "two", "three"))
    evaluator = AnalyticEvaluator(workers=4)
    table_of(plan, tmp_path / "table", evaluator)
    assert evaluator.most == 8
    tasks = [job.task for job in evaluator.seen]
    changes = sum(a != b for a, b in pairwise(tasks))
    assert changes < len(tasks) / 8


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    """What is said of the end is about right at the start and exact at the end; rows never go back."""
    plan, seen = plan_of("adamw", "lion", tasks=("one", "two")), []
    with Table(tmp_path / "table") as table:
        execute(
            plan,
            plan.tasks,
            table,
            AnalyticEvaluator(),
            preparation=subjects,
            report=lambda done, total: seen.append((done, total)),
        )
    done, totals = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == totals[-1]
    assert totals[0] == 2 * sum(expected(plan, entrant) for entrant in plan.entrants)
    assert 0.5 < totals[0] / totals[-1] < 1.5


def test_rows_of_other_settings_are_refused(tmp_path: Path) -> None:
    """A table from a machine with another dry run is not mixed with this one: the message says what to do."""
    plan = plan_of("adamw", controls=0)
    rows = table_of(plan, tmp_path / "table", AnalyticEvaluator())
    (prepared,) = subjects(plan, "one")
    assert requests(plan, prepared.subject, rows) == ()
    other = replace(prepared.subject, box=replace(prepared.subject.box, centre=0.02))
    with pytest.raises(StaleRow, match="new folder"):
        requests(plan, other, rows)


def test_a_plan_comes_back_from_its_file() -> None:
    """A folder alone is enough to go on: programs, settings and digests are in it."""
    manifest = Manifest(plan_of("adamw", "lion", steps=7), {"one": "d"}, {"two": "no data"}, "lock", "search")
    assert from_json(to_json(manifest), "plan.json") == manifest
    assert json.loads(to_json(manifest))["plan"]["entrants"][1]["program"].startswith("def train(")
    with pytest.raises(PlanError, match=r"plan\.json is not the plan"):
        from_json("{}", "plan.json")
    with pytest.raises(PlanError, match="format 99"):
        from_json(to_json(replace(manifest, format=99)), "plan.json")


PLAN = plan_of("adamw", "lion", tasks=("one", "two"))
BEGUN = Manifest(PLAN, {"one": "d"}, {"two": "no data"}, "lock")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: replace(m, plan=replace(m.plan, trials=9)), "trials 6, not 9"),
        (lambda m: replace(m, plan=replace(m.plan, tasks=("one",))), "tasks one, two, not one"),
        (lambda m: replace(m, plan=plan_of("adamw", tasks=("one", "two"))), "entrants adamw, lion"),
        (lambda m: replace(m, digests={"one": "other"}), "task 'one' or its data has changed"),
        (lambda m: replace(m, lock="other"), "set of tasks has changed"),
    ],
)
def test_a_changed_plan_is_refused(change: Callable[[Manifest], Manifest], words: str) -> None:
    """Rows of two plans never stand in one table: one line says what differs and what to do."""
    with pytest.raises(PlanError, match=words) as caught:
        resumed(BEGUN, change(BEGUN), "folder")
    assert "--out" in str(caught.value)


def test_a_changed_program_is_refused_by_name() -> None:
    """A file that was edited after the comparison began is another optimizer."""
    first, *others = PLAN.entrants
    edited = replace(PLAN, entrants=(replace(first, program="def train(g):\n    return g\n"), *others))
    with pytest.raises(PlanError, match="another program of the name 'adamw'"):
        resumed(BEGUN, replace(BEGUN, plan=edited), "folder")


def test_data_that_has_arrived_joins_in() -> None:
    """A task that was left out for want of data is run once the data is there."""
    now = Manifest(PLAN, {"one": "d", "two": "e"}, {}, "lock")
    assert resumed(BEGUN, now, "folder") == now
    assert resumed(now, BEGUN, "folder").digests == now.digests


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: make_plan({}, ("one",)), "reference"),
        (lambda: make_plan({"a": ""}, ()), "at least one task"),
        (lambda: make_plan({"a": ""}, ("one", "one")), "'one' stands there twice"),
        (lambda: make_plan({"a": ""}, ("one",), reference="b"), "reference 'b' is none of the optimizers: a"),
        (lambda: make_plan({"a": ""}, ("one",), trials=0), "trials must be at least 1"),
        (lambda: make_plan({"a": ""}, ("one",), steps=0), "steps must be at least 1"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(make: Callable[[], Plan], words: str) -> None:
    """One line says what is wrong, before anything is run."""
    with pytest.raises(PlanError, match=words):
        make()

"""A run that is given a larger budget is the run that had it from its beginning."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from interruptions import begun, events, exact_scores, record, resumed, short
from run_contents import contents
from stub_evaluator import StubEvaluator, stub_config

from evolion import continuation
from evolion.cli import run
from evolion.config_text import from_toml
from evolion.continuation import continued_config, extend
from evolion.driver import discover, resume
from evolion.errors import ConfigError, RunError
from evolion.store import RunStore

LARGE = 90
CONFIG = short(stub_config(LARGE))


@pytest.fixture(scope="module", autouse=True)
def exactly() -> Iterator[None]:
    """Scores of programs that do the same up to rounding differ in their last digits, as true ones do."""
    with exact_scores(20):
        yield


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that had the larger budget from its beginning."""
    folder = tmp_path_factory.mktemp("large") / "run"
    discover(CONFIG, folder, evaluator=StubEvaluator())
    return folder


def config_of(folder: Path) -> object:
    """The configuration that the files of a run agree on."""
    with RunStore.open(folder, readonly=True) as store:
        assert (folder / "config.toml").read_text() == store.get_config()
        return store.config


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 15))])
def test_extended_run_is_the_larger_one(large: Path, tmp_path: Path, seed: int) -> None:
    """Extended once or twice, interrupted anywhere (in the search, in the retest), it ends row by row the same."""
    rng = random.Random(seed)
    budgets = sorted(rng.sample(range(1, LARGE), rng.randint(1, 2)))
    first = replace(CONFIG, search=replace(CONFIG.search, budget=budgets[0]))
    folder = begun(
        first, tmp_path / "run", after=rng.choice([None, rng.randint(0, 150)]), shuffle=rng.choice([None, 1])
    )
    for budget in [*budgets[1:], LARGE]:
        resumed(folder, f"search.budget={budget}", after=rng.choice([None, rng.randint(0, 150)]), shuffle=2)
    while not resumed(folder, after=rng.randint(30, 200)):
        assert config_of(folder) == CONFIG
    assert contents(folder) == contents(large)
    assert config_of(folder) == CONFIG
    assert "extended" in events(folder)


def test_run_that_was_extended_at_its_very_end_is_the_larger_one(large: Path, tmp_path: Path) -> None:
    """A finished run goes on; until it is finished again it has neither winner nor table."""
    small = replace(CONFIG, search=replace(CONFIG.search, budget=LARGE - 1))
    folder = begun(small, tmp_path / "run", after=None)
    assert record(folder, "winner")
    assert not resumed(folder, f"search.budget={LARGE}", after=0)
    assert not any(record(folder, name) for name in ("winner", "table", "ablation"))
    assert resumed(folder)
    assert contents(folder) == contents(large)


def test_process_that_dies_between_two_files_leaves_the_database_to_decide(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`config.toml` follows when the run is opened again, and the run goes on with the larger budget."""
    small = replace(CONFIG, search=replace(CONFIG.search, budget=40))
    folder = begun(small, tmp_path / "run", after=None)
    with monkeypatch.context() as patch:
        patch.setattr(continuation, "write_config", lambda store: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            extend(folder, CONFIG)
        assert from_toml((folder / "config.toml").read_text()).search.budget == 40
        with pytest.raises(KeyboardInterrupt):
            extend(folder, continued_config(CONFIG, ["workers.0.cpus=2.0"]))
    RunStore.open(folder).close()
    assert config_of(folder) == continued_config(CONFIG, ["workers.0.cpus=2.0"])
    assert resumed(folder)
    assert contents(folder) == contents(large)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "search.lag=9",
        "search.population=30",
        "search.algorithm=random",
        "stages.0.steps=60",
        "confirmation.seed=3",
        "retest.trials=9",
        "timeout=3.0",
        "search.budget=89",
        "search.budgets=900",
        "search.budget=many",
        "search.budget",
    ],
)
def test_anything_else_is_refused_and_nothing_is_changed(large: Path, override: str) -> None:
    """One line that names the key, before the run is opened for writing."""
    before = {path: path.read_bytes() for path in large.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as said:
        resume(large, evaluator=StubEvaluator(), overrides=[override])
    assert "\n" not in str(said.value)
    assert override.partition("=")[0] in str(said.value) or "search.budget may grow" in str(said.value)
    assert {path: path.read_bytes() for path in large.rglob("*") if path.is_file()} == before


def test_budget_that_another_process_made_larger_stays(tmp_path: Path) -> None:
    """Who read the run before it was extended by somebody else does not take that back."""
    folder = begun(CONFIG, tmp_path / "run", after=0)
    with pytest.raises(RunError, match=r"another process has given the run .* a budget of 90"):
        extend(folder, replace(CONFIG, search=replace(CONFIG.search, budget=50)))


def test_command_line_takes_overrides(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`evolion resume --set` refuses before anything heavy loads, with exit status 2 and the way to fork."""
    assert run(["resume", str(large), "--set", "seed=4"]) == 2
    assert "evolion fork DIR:NUMBER --out OTHER" in capsys.readouterr().err

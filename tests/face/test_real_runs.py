"""Whole discoveries on real data through the command line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run_contents import contents, told

from evolion.config import AblationConfig, RetestConfig, RetestTask, RunConfig, SearchConfig, StageConfig
from evolion.driver import discover
from evolion.evaluators.inline import inline_evaluator

EVOLION = (sys.executable, "-c", "from evolion.cli import main; main()")
SMALL = RunConfig(
    search=SearchConfig(budget=60, lag=8, population=20, tournament=5),
    stages=(
        StageConfig("digits-mlp", steps=60, learning_rates=(0.01, 0.03)),
        StageConfig("zipf-lm", steps=20, learning_rates=(0.03,), hurdle=0.3),
    ),
    retest=RetestConfig(
        finalists=2, trials=4, seeds=3, tasks=(RetestTask("digits-mlp", steps=60), RetestTask("zipf-lm", steps=20))
    ),
    ablation=AblationConfig(seeds=2),
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run as a configuration file."""
    from evolion.config_text import to_toml

    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(to_toml(SMALL, {}))
    return path


def evolion(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run([*EVOLION, *map(str, arguments)], capture_output=True, text=True, timeout=500)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Path:
    """The small run on one worker, without Ray."""
    folder = tmp_path_factory.mktemp("runs") / "one-worker"
    done = evolion("search", config, "--out", folder, "--workers", "1")
    assert done.returncode == 0, done.stderr
    return folder


def test_tiny_discovery(tmp_path: Path) -> None:
    """A search on real data in this process ends with a table, an ablated program and an export."""
    config = RunConfig(
        search=SearchConfig(budget=24, lag=4, population=10, tournament=3),
        stages=(StageConfig("digits-mlp", steps=40, learning_rates=(0.03,)),),
        retest=RetestConfig(finalists=1, trials=2, seeds=2, tasks=(RetestTask("digits-mlp", steps=40),)),
        ablation=AblationConfig(seeds=2),
    )
    with inline_evaluator() as evaluator:
        result = discover(config, tmp_path / "run", evaluator=evaluator)

    assert [row.program for row in result.table.rows] == ["discovered", "adamw", "lion"]
    assert all(row.loss is not None and 0 < row.loss.mean < 3 for row in result.table.rows)
    assert all(path.stat().st_size > 0 for path in result.files)


@pytest.mark.slow
@pytest.mark.ray
def test_ray_gives_the_same_run(undisturbed: Path, config: Path, tmp_path: Path) -> None:
    """Two Ray actors give the run that one process gives, candidate by candidate, score by score, bit for bit."""
    done = evolion("search", config, "--out", tmp_path / "ray", "--ray", "local", "--workers", "2")

    assert done.returncode == 0, done.stderr
    assert contents(undisturbed) == contents(tmp_path / "ray")


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_end(undisturbed: Path, config: Path, tmp_path: Path) -> None:
    """kill -9 of the whole command in the middle, then `evolion resume` on two workers: the same run."""
    folder = tmp_path / "killed"
    driver = subprocess.Popen(
        [*EVOLION, "search", str(config), "--out", str(folder), "--workers", "1"], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 200
    while driver.poll() is None and told(folder) < 23:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert told(folder) < 60
    done = evolion("resume", folder, "--workers", "2", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["generated"] == 60
    assert contents(undisturbed) == contents(folder)


@pytest.mark.slow
def test_interrupted_run_says_how_to_go_on(config: Path, tmp_path: Path) -> None:
    """Ctrl-C ends a run with one line that names the command to continue; no worker stays behind."""
    folder = tmp_path / "interrupted"
    driver = subprocess.Popen(
        [*EVOLION, "search", str(config), "--out", str(folder), "--workers", "2"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while driver.poll() is None and told(folder) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGINT)
    _, said = driver.communicate(timeout=60)

    assert driver.returncode == 1
    assert f"continue with: evolion resume {folder}" in said
    assert "Traceback" not in said

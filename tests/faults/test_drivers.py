"""Drivers that are killed, stopped, given wrong clocks and full disks: resumed, a run ends as if nothing had been."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from faults.faulty_jobs import sound_score
from laws.job_functions import fixed_tag
from run_contents import contents, told
from stub_evaluator import stub_config

from evolion.config import RetestConfig, RetestTask
from evolion.config_text import to_toml
from evolion.driver import discover
from evolion.evaluators.inline import inline_evaluator
from evolion.store import RunStore

HERE = Path(__file__).parent
BUDGET = 80
CONFIG = replace(
    stub_config(BUDGET),
    retest=RetestConfig(finalists=1, trials=2, seeds=2, tasks=(RetestTask("digits-mlp", steps=40),)),
)

JUMPING_CLOCK = """
import itertools, time
honest, jumps = time.time, itertools.cycle((0, 7200, -36000, 86400 * 365, -60, -86400 * 3650))
time.time = lambda: honest() + next(jumps)
time.time_ns = lambda: int(time.time() * 1e9)
"""

ON_A_DISK_THAT_FILLS = """
mount -t tmpfs -o size=16m none "$DISK" || exit 77
"$@" search "$CONFIG" --out "$DISK/run" > "$KEPT/search" 2>&1 &
driver=$!
while kill -0 $driver && [ ! -e "$DISK/run/run.sqlite" ]; do sleep 0.05; done
sleep 1
head -c 32m /dev/zero > "$DISK/filler"
wait $driver
echo $? >> "$KEPT/search"
cp -r "$DISK/run" "$KEPT/full"
rm "$DISK/filler"
"$@" resume "$DISK/run" > "$KEPT/resume" 2>&1
echo $? >> "$KEPT/resume"
cp -r "$DISK/run" "$KEPT/run"
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that all others here must equal, made in this process."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    with inline_evaluator(function=sound_score, tag=fixed_tag) as evaluator:
        discover(CONFIG, folder, evaluator=evaluator)
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(to_toml(CONFIG, {}), encoding="utf-8")
    return path


def command(kind: str) -> list[str]:
    return [sys.executable, str(HERE / "command_line.py"), kind]


def environment(*paths: Path, **more: str) -> dict[str, str]:
    known = os.environ.get("PYTHONPATH", "")
    places = [*map(str, paths), str(HERE.parent), *([known] if known else [])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(places)} | more


def evolion(kind: str, *arguments: str | Path, given: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit status and what was said on standard error."""
    words = [*command(kind), *map(str, arguments)]
    done = subprocess.run(words, env=given or environment(), capture_output=True, text=True, timeout=250)
    return done.returncode, done.stderr


@contextmanager
def begun(kind: str, *arguments: str | Path) -> Iterator["subprocess.Popen[str]"]:
    words = [*command(kind), *map(str, arguments)]
    with subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as it:
        try:
            yield it
        finally:
            it.kill()


def wait_until_told(driver: "subprocess.Popen[str]", folder: Path, number: int) -> None:
    deadline = time.monotonic() + 120
    while driver.poll() is None and told(folder) < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
def test_a_driver_killed_again_and_again(undisturbed: Path, config: Path, tmp_path: Path) -> None:
    """kill -9 at moments drawn at random, in the search and after it; each time another number of workers goes on."""
    folder, rng = tmp_path / "run", random.Random(7)
    moments = [*sorted(rng.sample(range(5, BUDGET - 10), 2)), BUDGET]
    for number, moment in enumerate(moments):
        arguments = ["resume", folder] if number else ["search", config, "--out", folder]
        with begun(str(1 + number % 3), *arguments) as driver:
            wait_until_told(driver, folder, moment)
            time.sleep(rng.uniform(0.0, 0.3))
            driver.kill()
            driver.wait()
            assert driver.returncode == -signal.SIGKILL, "the kill came too late to mean anything"
        with RunStore.open(folder, readonly=True) as store:
            assert store.winner() is None
    status, said = evolion("2", "resume", folder)

    assert status == 0, said
    assert contents(folder) == contents(undisturbed)


@pytest.mark.slow
def test_clocks_that_jump(undisturbed: Path, config: Path, tmp_path: Path) -> None:
    """The clock of the day leaps by hours and years in driver and workers: nothing is timed out, decided or lost."""
    (tmp_path / "sitecustomize.py").write_text(JUMPING_CLOCK, encoding="utf-8")
    given = environment(tmp_path)
    status, said = evolion("2", "search", config, "--out", tmp_path / "run", given=given)

    assert status == 0, said
    assert "replaced" not in said
    assert contents(tmp_path / "run") == contents(undisturbed)
    with RunStore.open(tmp_path / "run", readonly=True) as store:
        times = [event.time for event in store.events()]
    assert times != sorted(times) or max(times) - min(times) > 3600, "the clock did not jump"


@pytest.mark.slow
def test_a_driver_that_sleeps(undisturbed: Path, config: Path, tmp_path: Path) -> None:
    """A driver stopped for longer than a job may take, as in a laptop that is closed, takes the answers that wait."""
    with begun("2", "search", config, "--out", tmp_path / "run", "--progress") as driver:
        wait_until_told(driver, tmp_path / "run", 20)
        for _ in range(2):
            driver.send_signal(signal.SIGSTOP)
            time.sleep(5.0)
            driver.send_signal(signal.SIGCONT)
            time.sleep(0.3)
        _, said = driver.communicate(timeout=120)

    assert driver.returncode == 0, said
    assert contents(tmp_path / "run") == contents(undisturbed)


@pytest.mark.slow
def test_a_full_disk(undisturbed: Path, config: Path, tmp_path: Path) -> None:
    """A run whose disk is full ends with one line; what was scored is there, and with space it goes on to its end."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("nothing here can mount a small disk")
    places = {"DISK": str(disk), "KEPT": str(kept), "CONFIG": str(config)}
    words = ["unshare", "-rm", "sh", "-c", ON_A_DISK_THAT_FILLS, "sh", *command("1")]
    done = subprocess.run(words, env=environment(**places), capture_output=True, text=True, timeout=250)
    if done.returncode == 77 or not (kept / "search").exists():
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")

    *said, status = (kept / "search").read_text(encoding="utf-8").splitlines()
    assert status == "1", said
    # The log may meet the full disk first; the run does not hang on it.
    (last,) = [line for line in said if "log.jsonl is written no more, the run goes on" not in line]
    assert "full" in last or "No space left" in last
    assert f"continue with: evolion resume {disk}/run" in last
    before, after = contents(kept / "full"), contents(kept / "run")
    assert set(before["scores"]) <= set(after["scores"])
    assert after == contents(undisturbed)


@pytest.mark.slow
@pytest.mark.ray
def test_a_frozen_node_and_a_lost_head(undisturbed: Path, config: Path, tmp_path: Path) -> None:
    """What a node that hangs was at is done elsewhere; a lost head ends the driver, and any other machine goes on."""
    words = [sys.executable, str(HERE / "cluster_faults.py"), str(config), str(tmp_path / "run")]
    done = subprocess.run(words, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["status"] != 0, "the head was lost too late to mean anything"
    assert "its node" in found["said"]
    assert told(tmp_path / "run") >= 45
    status, said = evolion("2", "resume", tmp_path / "run")

    assert status == 0, said
    assert contents(tmp_path / "run") == contents(undisturbed)

"""A search on a Ray cluster of this machine whose workers, nodes and driver are killed all the time.

    python benchmarks/scale/chaos.py [--minutes 30] [--out kills.md]      # about four minutes more than the kills go on

A head without workers and two nodes. A busy worker is killed (kill -9) every 20 seconds, though never a second one over
the same job: that is how a candidate that kills its workers is told, and it would be quarantined. A node, with all that
is on it, is killed every two minutes, and another one takes its place 20 seconds later; the driver three times, and
`resume` takes the run up at once. The jobs are real trainings of `digits-mlp`, stretched by a pause (chaos_jobs.py).

The run is compared with one that processes of this machine made undisturbed before, without pauses: every table must be
the same but for times, so that no candidate is lost, counted twice or scored otherwise. Exit status 1 if it is not.
The sources must not change meanwhile: a run is resumed by the code that began it alone.

`--out` gets the table of kills as Markdown. For each kill: the seconds until the next answer of any worker, and until
as many processes as there are to be have answered since, which is when the run has its full strength again. A job that
is under way counts with its whole length, pause included.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos_jobs import ANSWERS, BUSY, FOLDER, PAUSE

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORKERS, CPUS_OF_A_NODE = 3, 2
MOST_PAUSE = 4.0
PATIENCE = 600.0
CONFIG = """
timeout = 120.0
[search]
budget = {budget}
lag = 8
population = 40
tournament = 8
[[stages]]
task = "digits-mlp"
steps = 30
learning_rates = [0.01, 0.03]
[[stages]]
task = "digits-mlp"
steps = 80
learning_rates = [0.01, 0.03]
hurdle = 0.3
[retest]
finalists = 1
trials = 4
seeds = 2
tasks = [{{ task = "digits-mlp", steps = 80 }}]
[ablation]
seeds = 2
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is killed when, in seconds; `budget` is the number of candidates."""

    minutes: float
    worker_every: float
    node_every: float
    node_back: float
    driver_kills: int
    budget: int

    def periods(self) -> dict[str, float]:
        """How often each is killed."""
        return {
            "worker": self.worker_every,
            "node": self.node_every,
            "driver": 60.0 * self.minutes / max(1, self.driver_kills),
        }


@dataclass(slots=True)
class Clock:
    """When each is killed next. What could not be killed in time is killed late, and the next one not right after."""

    plan: Plan
    due: dict[str, float]
    back: list[float] = field(default_factory=list)

    @staticmethod
    def of(plan: Plan) -> Clock:
        """The first kills: all at different times."""
        periods = plan.periods()
        worker, node, driver = periods["worker"], periods["node"], periods["driver"]
        return Clock(plan, {"worker": worker, "node": 0.9 * node, "driver": 0.6 * driver + 0.7 * worker})

    def now(self, elapsed: float) -> list[str]:
        """What is to be killed."""
        if elapsed >= 60.0 * self.plan.minutes:
            return []
        return [what for what, at in self.due.items() if at <= elapsed]

    def done(self, what: str, elapsed: float) -> None:
        """Note a kill."""
        period = self.plan.periods()[what]
        self.due[what] = max(self.due[what] + period, elapsed + 0.5 * period)
        if what == "node":
            self.back.append(elapsed + self.plan.node_back)

    def returns(self, elapsed: float) -> bool:
        """Whether a node is to come back; once for each that was killed."""
        if self.back and self.back[0] <= elapsed:
            self.back.pop(0)
            return True
        return False


@dataclass(slots=True)
class Kill:
    """One kill, and what was answered after it."""

    what: str
    at: float
    answered: float | None = None
    full: float | None = None
    seen: set[int] = field(default_factory=set)

    def take(self, at: float, process: int) -> None:
        """Hear of an answer."""
        if at <= self.at:
            return
        self.seen.add(process)
        self.answered = self.answered or at - self.at
        if len(self.seen) >= WORKERS:
            self.full = self.full or at - self.at


class Chaos:
    """A cluster, the driver of a run on it, and those that were killed. Kills nothing that it did not start."""

    def __init__(self, folder: Path, seed: int) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.rng, self.kills = folder, random.Random(seed), list[Kill]()
        self.struck = set[str]()
        self.cluster: Any = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **_store()}
        )
        self.driver: subprocess.Popen[bytes] | None = None
        self.starts = self.heard = 0
        for _ in range(2):
            self.add_node()

    def add_node(self) -> None:
        """A node joins."""
        self.cluster.add_node(num_cpus=CPUS_OF_A_NODE, wait=False, **_store())

    def start_driver(self) -> None:
        """Begin the run, or resume it."""
        self.starts += 1
        arguments = [self.cluster.address, str(WORKERS), str(self.folder / "config.toml"), str(self.folder / "run")]
        with open(self.folder / f"driver-{self.starts}.log", "wb") as log:
            words = [sys.executable, str(HERE / "chaos_jobs.py"), *arguments]
            # Workers of Ray look for modules where their driver was started: not among the sources.
            self.driver = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)

    def kill_worker(self) -> bool:
        """Kill one of the workers that are in the middle of a job; whether there was one."""
        raylets = {node.all_processes["raylet"][0].process.pid for node in self.cluster.worker_nodes}
        notes = sorted((self.folder / BUSY).iterdir())
        jobs = {int(note.name): _text(note) for note in notes if _parent(int(note.name)) in raylets}
        busy = [process for process, job in jobs.items() if job and job not in self.struck]
        if not busy:
            return False
        process = self.rng.choice(busy)
        self.struck.add(jobs[process])
        self._note("worker")
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        return True

    def kill_node(self) -> bool:
        """Kill the raylet of a node, and with it what runs there; whether there was one."""
        if not self.cluster.worker_nodes:
            return False
        node = self.rng.choice(sorted(self.cluster.worker_nodes, key=lambda node: node.node_id))
        self._note("node")
        self.cluster.remove_node(node, allow_graceful=False)
        return True

    def kill_driver(self) -> bool:
        """Kill the driver and have the run resumed."""
        if self.driver is None or self.driver.poll() is not None:
            return False
        self._note("driver")
        self.driver.kill()
        self.driver.wait()
        self.start_driver()
        return True

    def _note(self, what: str) -> None:
        self.kills.append(Kill(what, time.monotonic()))

    def listen(self) -> None:
        """Hear of answers since the last time."""
        with contextlib.suppress(FileNotFoundError), open(self.folder / ANSWERS, encoding="ascii") as file:
            file.seek(self.heard)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break
                self.heard += len(line)
                at, process = line.split()
                for kill in self.kills[-40:]:
                    kill.take(float(at), int(process))

    def close(self) -> None:
        """End everything that was started."""
        if self.driver is not None:
            self.driver.kill()
            self.driver.wait()
        self.cluster.shutdown()


def _store() -> dict[str, int]:
    return {"object_store_memory": 100 * 2**20}


def _text(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="ascii")
    return ""


def _parent(process: int) -> int | None:
    """The parent of a living process."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[1])


@contextlib.contextmanager
def chaos(folder: Path, seed: int) -> Iterator[Chaos]:
    """A cluster whose processes find the jobs and the folder of their notes; gone at the end."""
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(paths),
        FOLDER: str(folder),
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
    }
    (folder / BUSY).mkdir()
    made = Chaos(folder, seed)
    try:
        yield made
    finally:
        made.close()


def undisturbed(folder: Path, config: Path) -> float:
    """Make the run without kills and pauses; return the seconds that it took."""
    begun = time.monotonic()
    words = [sys.executable, str(HERE / "chaos_jobs.py"), "processes", "2", str(config), str(folder)]
    subprocess.run(words, check=True, cwd=folder.parent)
    return time.monotonic() - begun


def disturbed(folder: Path, plan: Plan, seed: int) -> tuple[list[Kill], int, float]:
    """Make the run under chaos; return the kills, how often a driver was started, and the seconds until its end."""
    with chaos(folder, seed) as it:
        begun, clock = time.monotonic(), Clock.of(plan)
        it.start_driver()
        acts = {"worker": it.kill_worker, "node": it.kill_node, "driver": it.kill_driver}
        while it.driver is not None and it.driver.poll() is None:
            elapsed = time.monotonic() - begun
            for what in clock.now(elapsed):
                if acts[what]():
                    clock.done(what, elapsed)
            if clock.returns(elapsed):
                it.add_node()
            it.listen()
            _set_pause(folder, plan, elapsed)
            if elapsed > 60.0 * plan.minutes + PATIENCE:
                raise SystemExit(f"the run has not ended {PATIENCE:g} s after the last kill: {folder}")
            time.sleep(0.1)
        if it.driver is None or it.driver.returncode:
            log = (folder / f"driver-{it.starts}.log").read_text(encoding="utf-8", errors="replace")
            raise SystemExit(f"the driver ended by itself; the end of its log:\n{log[-3000:]}")
        it.listen()
        return it.kills, it.starts, time.monotonic() - begun


def _set_pause(folder: Path, plan: Plan, elapsed: float) -> None:
    """Have jobs pause so long that the search lasts as long as the kills, and no longer."""
    share = elapsed / (60.0 * plan.minutes)
    ahead = told(folder / "run") - 0.95 * plan.budget * share
    pause = min(max(0.5 + 0.1 * ahead, 0.0), MOST_PAUSE) if share < 1.0 else 0.0
    temporary = folder / f"{PAUSE}.new"
    temporary.write_text(f"{pause}", encoding="ascii")
    temporary.replace(folder / PAUSE)


def told(run: Path) -> int:
    """How many candidates the run has told."""
    return int(_tests().told(run))


def _tests() -> Any:
    """What the tests compare runs by."""
    import importlib

    if str(ROOT / "tests") not in sys.path:
        sys.path.append(str(ROOT / "tests"))
    return importlib.import_module("run_contents")


def differences(one: Path, other: Path, budget: int) -> list[str]:
    """What the two runs do not have in common; no line if they are the same but for times."""
    contents = [_tests().contents(folder) for folder in (one, other)]
    found = [f"{name} differ" for name in contents[0] if contents[0][name] != contents[1][name]]
    for name in ("candidates", "outcomes"):
        numbers = [row.number for row in contents[1][name]]
        if numbers != list(range(budget)):
            found.append(f"{name} are not 0 to {budget - 1}, each once")
    return found


def report(plan: Plan, kills: Sequence[Kill], starts: int, seconds: tuple[float, float], wrong: Sequence[str]) -> str:
    """The table as Markdown."""
    lines = [
        "| killed | times | seconds to the next answer: median, worst | to full strength: median, worst |",
        "| --- | ---: | ---: | ---: |",
    ]
    for what in ("worker", "node", "driver"):
        those = [kill for kill in kills if kill.what == what]
        said = (_figures(kill.answered for kill in those), _figures(kill.full for kill in those))
        lines.append(f"| {what} | {len(those)} | {said[0]} | {said[1]} |")
    verdict = "; ".join(wrong) if wrong else "the same run but for times: no candidate lost, none counted twice"
    return "\n".join(
        [
            *lines,
            "",
            f"{plan.budget:,} candidates in {seconds[1] / 60:.1f} minutes on {WORKERS} workers, {starts} drivers; "
            f"undisturbed and without pauses {seconds[0] / 60:.1f} minutes. Against that one: {verdict}.",
        ]
    )


def _figures(values: Iterable[float | None]) -> str:
    known = sorted(value for value in values if value is not None)
    return f"{statistics.median(known):.1f}, {known[-1]:.1f}" if known else "-"


def main() -> int:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long things are killed")
    parser.add_argument("--worker-every", type=float, default=20.0, metavar="SECONDS")
    parser.add_argument("--node-every", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument(
        "--node-back", type=float, default=20.0, metavar="SECONDS", help="until another takes its place"
    )
    parser.add_argument("--driver-kills", type=int, default=3, metavar="N")
    parser.add_argument("--budget", type=int, help="candidates; 60 a minute without it")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed")
    parser.add_argument("--out", type=Path, help="a file for the table")
    given = parser.parse_args()
    budget = given.budget or max(40, round(60 * given.minutes))
    plan = Plan(given.minutes, given.worker_every, given.node_every, given.node_back, given.driver_kills, budget)
    folder = Path(tempfile.mkdtemp(prefix="evolion-chaos-"))
    config = folder / "config.toml"
    config.write_text(CONFIG.format(budget=plan.budget), encoding="utf-8")
    print(f"in {folder}: the undisturbed run ...", file=sys.stderr, flush=True)
    calm = undisturbed(folder / "undisturbed", config)
    print(f"took {calm:.0f} s; now {plan.minutes:g} minutes of kills ...", file=sys.stderr, flush=True)
    kills, starts, seconds = disturbed(folder, plan, given.seed)
    wrong = differences(folder / "undisturbed", folder / "run", plan.budget)
    text = report(plan, kills, starts, (calm, seconds), wrong)
    print(text)
    if given.out is not None:
        given.out.write_text(f"{text}\n", encoding="utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

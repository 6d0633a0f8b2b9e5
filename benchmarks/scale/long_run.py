"""A day of search, simulated: memory of the driver, and how soon a killed one goes on.

    python benchmarks/scale/long_run.py [--candidates 200000] [--structural] [--json]

A search over an evaluator that answers at once, in a process of its own. Its resident memory is noted along the way; at
95 % of the candidates it is killed (SIGKILL), and another process takes the run up: the time is taken from its start,
imports included, until it has told one candidate more than the first one did. The budget is memory that stays within
5 % from a twentieth of the candidates on, and 10 seconds. With the behavioural key it takes about five minutes; with
`--structural` every program counts as new and is trained, which fills the store faster.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SAMPLES = 40
KILLED_AT = 0.95
SETTLED_AT = 0.05
MEMORY, SECONDS = 1.05, 10.0


def resident_bytes() -> int:
    """What this process holds."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Samples:
    """Prints how far the search is and what the process holds, a line each."""

    every: int
    begun: float = field(default_factory=time.monotonic)
    next: int = 0

    def on_progress(self, progress: Any) -> None:
        """Print a line if it is time."""
        if progress.done >= self.next:
            self.next = progress.done + self.every
            line = {"told": progress.done, "bytes": resident_bytes(), "seconds": time.monotonic() - self.begun}
            print(json.dumps(line), flush=True)


def search(folder: Path, candidates: int, structural: bool, every: int) -> None:
    """Begin the search of a folder, or go on with it, in this process."""
    from driver import AtOnce, ByStructure

    from evolion.config import RunConfig, SearchConfig, StageConfig, program_of
    from evolion.funnel import run_search
    from evolion.ledger import Ledger
    from evolion.store import RunStore

    config = RunConfig(
        search=SearchConfig(budget=candidates),
        stages=(StageConfig("digits-mlp", steps=100), StageConfig("digits-mlp", hurdle=0.3)),
    )
    begun = (folder / "run.sqlite").exists()
    with RunStore.open(folder) if begun else RunStore.create(folder, config, {}) as store:
        screen: Any = ByStructure() if structural else None
        program = program_of(config.search.warm_start)
        run_search(store.config, program, Ledger(store, AtOnce()), Samples(every), screen=screen)


def child(folder: Path, arguments: argparse.Namespace, every: int) -> subprocess.Popen[str]:
    """Start the search in a process of its own."""
    command = [sys.executable, __file__, "--child", str(folder), "--every", str(every)]
    command += ["--candidates", str(arguments.candidates), *(["--structural"] if arguments.structural else [])]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run, kill, go on, and return the figures."""
    samples = []
    first = child(folder, arguments, max(1, arguments.candidates // SAMPLES))
    assert first.stdout is not None
    for line in first.stdout:
        samples.append(json.loads(line))
        if samples[-1]["told"] >= KILLED_AT * arguments.candidates:
            break
    first.send_signal(signal.SIGKILL)
    first.communicate()
    told = _told(folder)
    started = time.monotonic()
    second = child(folder, arguments, 1)
    assert second.stdout is not None
    taken = next((time.monotonic() - started for line in second.stdout if json.loads(line)["told"] > told), None)
    last = second.communicate()[0].splitlines()[-1:]
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name.startswith("run.sqlite"))
    settled = [s["bytes"] for s in samples if s["told"] >= SETTLED_AT * arguments.candidates]
    return {
        "samples": samples,
        "told when killed": told,
        "seconds until it went on": taken,
        "told at the end": json.loads(last[0])["told"] if last else told,
        "memory, largest over first": max(settled) / settled[0],
        "bytes of store a candidate": size / arguments.candidates,
        "candidates a second": samples[-1]["told"] / samples[-1]["seconds"],
    }


def _told(folder: Path) -> int:
    from evolion.store import RunStore

    with RunStore.open(folder, readonly=True) as store:
        return store.counts().told


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=200_000)
    parser.add_argument("--structural", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--every", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        search(arguments.child, arguments.candidates, arguments.structural, arguments.every)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, Path(folder) / "run")
    if arguments.json:
        print(json.dumps(figures))
        return
    for sample in figures.pop("samples"):
        print(f"{sample['told']:>10,} told  {sample['bytes'] / 2**20:8.1f} MiB  {sample['seconds']:8.1f} s")
    for name, value in figures.items():
        print(f"{name:32s} {value:,.3f}" if value is not None else f"{name:32s} never")
    within = figures["memory, largest over first"] <= MEMORY and (figures["seconds until it went on"] or 1e9) <= SECONDS
    print(f"budget of {MEMORY:.0%} of memory and {SECONDS:g} s: {'kept' if within else 'missed'}")


if __name__ == "__main__":
    main()

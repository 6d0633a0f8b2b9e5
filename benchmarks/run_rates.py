"""What a finished, uninterrupted run reached: candidates a second, what was known by key, where the time went.

python benchmarks/run_rates.py RUN_DIR
"""

from __future__ import annotations

import sys

from evolion.store import RunStore


def main(folder: str) -> None:
    """Print the rates of a run."""
    with RunStore.open(folder, readonly=True) as store:
        times = {event.kind: event for event in store.events()}
        counts, outcomes = store.counts(), list(store.outcomes())
        stages = {(stage.task, stage.seeds) for stage in store.config.stages}
        tasks = {task for task, _ in stages}
        seeds = {seeds for _, seeds in stages}
        # Scores of the search are those over a grid of learning rates; later ones have a single rate.
        searched = [score for key, score in store.scores() if key.seeds in seeds and len(key.learning_rates) > 1]
        size = (store.folder / "run.sqlite").stat().st_size
    if "resume" in times or "finish" not in times:
        sys.exit(f"{folder}: rates mean something for a run that ended without a break only")
    wall = times["searched"].time - times["start"].time
    after = times["finish"].time - times["searched"].time
    workers = times["start"].detail["workers"]
    cost = counts.cost
    answered = counts.generated - counts.evaluated
    stopped = sum(outcome.stage is None for outcome in outcomes)
    print(f"{workers} workers on {', '.join(sorted(tasks))}")
    print(f"search {wall:.0f} s, tuning, retest and ablation {after:.0f} s")
    print(f"generated {counts.generated}, {counts.generated / wall:.1f} a second")
    print(f"trained   {counts.evaluated}, {counts.evaluated / wall:.1f} a second; {len(searched)} stages")
    print(f"answered without training {answered / counts.generated:.0%}")
    print(f"  known by their key {counts.reused / counts.generated:.0%}, stopped by the probe "
          f"{stopped / counts.generated:.0%}")  # fmt: skip
    print(f"confirmed {counts.confirmed} in {cost.confirming_runs} trainings, {cost.share:.0%} of the training time")
    print(f"workers training {cost.seconds / (workers * wall):.0%} of their time (else: start, compilation, waiting)")
    print(f"store {size / counts.generated:.0f} bytes a candidate, scores after the search included")


if __name__ == "__main__":
    main(sys.argv[1])

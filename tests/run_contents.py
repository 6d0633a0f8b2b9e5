"""What a run folder holds, for comparing runs."""

from pathlib import Path
from typing import Any

from evolion.store import RunStore


def contents(folder: Path) -> dict[str, Any]:
    """Everything that a run holds but times and what it says of the workers."""
    with RunStore.open(folder, readonly=True) as store:
        scores = sorted(
            (repr(key), repr(score).split("seconds=")[0], repr(score.runs)) for key, score in store.scores()
        )
        return {
            "candidates": list(store.candidates()),
            "outcomes": list(store.outcomes()),
            "confirmations": list(store.confirmations()),
            "scores": scores,
            "winner": store.winner(),
            "table": store.get_record("table"),
            "ablation": store.get_record("ablation"),
            "files": {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*.txt"))},
        }


def told(folder: Path) -> int:
    """How many candidates of a run have an outcome; 0 while there is no run."""
    if not (folder / "run.sqlite").exists():
        return 0
    with RunStore.open(folder, readonly=True) as store:
        return store.counts().told

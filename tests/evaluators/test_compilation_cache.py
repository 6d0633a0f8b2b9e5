"""What was compiled is found again by the next process, and the folder of it does not grow without bound."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evolion.evaluators import compilation_cache, environment
from evolion.evaluators.compilation_cache import KEPT_DAYS, prune

DAY = 86_400.0
NOW = 1_800_000_000.0

SCRIPT = """
import json, logging, os
from evolion.evaluators.environment import prepare
prepare()
import jax
from evolion.discovered.library import known
from evolion.evaluators.evaluate import evaluate_compiled
from evolion.evaluators.types import Job

class Listener(logging.Handler):
    def __init__(self):
        super().__init__()
        self.found = {"hit": 0, "miss": 0}
    def emit(self, record):
        text = record.getMessage()
        for name in self.found:
            self.found[name] += "jit_run" in text and f"persistent compilation cache {name} for" in text.lower()

listener = Listener()
logger = logging.getLogger("jax._src.compiler")
logger.addHandler(listener)
logger.setLevel(logging.DEBUG)
logger.propagate = False
score = evaluate_compiled(Job(0, known()["adamw"], "noisy-quadratic", 20, (0,), (1e-2,)))
print(json.dumps([listener.found, repr((score.loss, score.curve, score.runs))]))
"""


def entry(folder: Path, name: str, *, days: float = 0.0, size: int = 100) -> Path:
    """A file that was used so many days before `NOW`."""
    path = folder / f"{name}-cache"
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))
    return path


def test_a_compiled_loop_is_found_again_by_another_process(tmp_path: Path) -> None:
    """A survivor costs its compilation once: the next process reads the loop of a small task, and scores the same.

    jax keeps by default only what took more than a second.
    """
    given = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    given |= {"XDG_CACHE_HOME": str(tmp_path), "EVOLION_DATA": str(tmp_path)}

    def process() -> tuple[dict[str, int], str]:
        command = [sys.executable, "-c", SCRIPT]
        found, score = json.loads(subprocess.run(command, env=given, capture_output=True, text=True, check=True).stdout)
        return found, score

    first, score = process()
    assert first == {"hit": 0, "miss": 1}
    second, again = process()
    assert second == {"hit": 1, "miss": 0}
    assert again == score


def test_what_is_old_is_removed(tmp_path: Path) -> None:
    """Programs of a search that ended months ago are of no use to anyone."""
    old, young = entry(tmp_path, "old", days=KEPT_DAYS + 1), entry(tmp_path, "young", days=KEPT_DAYS - 1)
    assert prune(tmp_path, now=NOW) == 1
    assert (old.exists(), young.exists()) == (False, True)


def test_a_folder_that_is_too_large_loses_what_was_used_longest_ago(tmp_path: Path) -> None:
    """The size is bounded, with room to grow until the next start."""
    paths = [entry(tmp_path, str(days), days=days) for days in (5, 1, 4, 2, 3)]
    assert prune(tmp_path, largest=500, now=NOW) == 0
    assert prune(tmp_path, largest=499, now=NOW) == 2
    assert [path.exists() for path in paths] == [False, True, False, True, True]


def test_what_was_read_of_late_stays(tmp_path: Path) -> None:
    """A file counts by its last use, not its making; what running processes may be about to read is left to them."""
    used = entry(tmp_path, "used", days=KEPT_DAYS + 1)
    os.utime(used, (NOW - DAY, NOW - (KEPT_DAYS + 1) * DAY))
    assert prune(tmp_path, now=NOW) == 0
    used.unlink()
    read = entry(tmp_path, "read", days=50)
    os.utime(read, (NOW - 10 * DAY, NOW - 50 * DAY))
    written = entry(tmp_path, "written", days=20)
    recent = [entry(tmp_path, f"recent {i}", days=0.01) for i in range(5)]
    assert prune(tmp_path, largest=650, now=NOW) == 2
    assert prune(tmp_path, largest=1, now=NOW) == 0
    assert all(path.exists() for path in recent)
    assert (read.exists(), written.exists()) == (False, False)


def test_many_processes_may_prune_at_once(tmp_path: Path) -> None:
    """Workers start together: each file is removed once, and nobody fails because it is gone."""
    for i in range(400):
        entry(tmp_path, str(i), days=KEPT_DAYS + 1)
    kept = entry(tmp_path, "kept")
    with ThreadPoolExecutor(8) as pool:
        removed = list(pool.map(lambda _: prune(tmp_path, now=NOW), range(8)))
    assert sum(removed) == 400
    assert list(tmp_path.iterdir()) == [kept]


def test_a_folder_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    """Someone may clear the cache at any time; what is no file of the cache's is left alone."""
    (tmp_path / "folder").mkdir()
    assert prune(tmp_path / "missing") == 0
    assert prune(tmp_path, now=NOW + 1e9) == 0
    assert (tmp_path / "folder").is_dir()


def test_only_the_folder_of_evolion_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that the user has chosen holds the work of other programs too."""
    pruned: list[Path] = []
    monkeypatch.setattr(environment, "prune_once", pruned.append)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "theirs"))
    environment.prepare()
    assert pruned == []
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    environment.prepare()
    assert [folder.parent.parent for folder in pruned] == [tmp_path]
    monkeypatch.setattr(compilation_cache, "prune", pruned.append)
    compilation_cache.prune_once(pruned[0])
    compilation_cache.prune_once(pruned[0])
    assert len(pruned) == 2

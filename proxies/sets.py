"""Sets of tasks, frozen in a lock file, and the count of looks at the one that is locked.

`search` is what evolution sees; `validation` chooses among its programs; `test` is looked at once a release; `ladder`
extrapolates. The families of `test` occur in no other set but the smoke set.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from evolion.proxies.data.streams import integers, raw_stream
from evolion.proxies.registry import get_spec

__all__ = [
    "LOCK",
    "SETS",
    "TaskSet",
    "check_lock",
    "get_set",
    "held_out_variants",
    "looks",
    "record_look",
    "set_digest",
]

LOCK = Path(__file__).with_name("suite.lock.json")


@dataclass(frozen=True, slots=True)
class TaskSet:
    """Some tasks and what they are for.

    Attributes:
        name: What `--set` takes.
        summary: One line.
        tasks: Names of tasks, with modifiers; the fastest first.
        locked: Whether every look at it is counted.

    """

    name: str
    summary: str
    tasks: tuple[str, ...]
    locked: bool = False


_ALL = (
    TaskSet("smoke", "whether everything works, in seconds", ("noisy-quadratic", "digits-mlp")),
    TaskSet(
        "search",
        "what a search sees: four tasks of three families",
        ("teacher-student", "mnist1d-cnn", "text-lm", "text-lm-large-batch"),
    ),
    TaskSet(
        "validation",
        "ten times the compute of the search tasks, and tasks it has not seen",
        (
            "patch-autoencoder:10x",
            "teacher-student:10x",
            "mnist1d-cnn:10x",
            "glyph-resnet:10x",
            "glyph-vit:10x",
            "markov-lm:10x",
            "zipf-lm:10x",
            "text-lm:10x",
        ),
    ),
    TaskSet(
        "test",
        "families that no search and no choice has seen",
        (
            "poisson-pinn",
            "image-field",
            "linear-attention",
            "digits-denoiser",
            "block-graph",
            "mnist1d-gru",
            "text-gru",
        ),
        locked=True,
    ),
    TaskSet(
        "ladder",
        "one language model over three decades of parameters",
        ("ladder-30k", "ladder-100k", "ladder-300k", "ladder-1m", "ladder-3m", "ladder-10m", "ladder-30m"),
    ),
)

SETS: Mapping[str, TaskSet] = MappingProxyType({task_set.name: task_set for task_set in _ALL})
"""The sets by name."""

VARIANTS = (
    "activation=gelu",
    "activation=relu",
    "activation=tanh",
    "activation=silu",
    "norm=post",
    "norm=none",
    "init=0.5",
    "init=2",
    "width=0.5",
    "width=2",
    "batch=0.25",
    "batch=4",
    "label-noise=0.1",
    "reparameterized",
    "bfloat16-gradients",
    "delay=4",
)
"""Modifiers of which held-out variants are drawn."""


def get_set(name: str) -> TaskSet:
    """Return the set of this name. Raises ValueError, naming the sets there are, if there is none."""
    if name not in SETS:
        near = get_close_matches(name, SETS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown set {name!r}{hint} (known: {', '.join(SETS)})")
    return SETS[name]


def held_out_variants(tasks: Sequence[str], seed: str, count: int) -> tuple[str, ...]:
    """Return `count` different variants of tasks, drawn by a text that nobody can choose after the fact.

    The text is what is compared: a digest of the programs. Whoever changes a program draws other variants. A modifier
    that changes nothing of a task, or that it cannot take, is not drawn.
    """
    possible = [_varied(task, modifier) for task in tasks for modifier in VARIANTS if _changes(task, modifier)]
    number = int.from_bytes(sha256(seed.encode()).digest()[:4], "little")
    keys = integers(raw_stream(_VARIANT_STREAM, number), 2**31, (len(possible),))
    return tuple(possible[index] for index in sorted(keys.argsort(kind="stable")[:count]))


_VARIANT_STREAM = 6


def _varied(task: str, modifier: str) -> str:
    return f"{task}{',' if ':' in task else ':'}{modifier}"


def _changes(task: str, modifier: str) -> bool:
    base = get_spec(task)
    try:
        changed = get_spec(_varied(task, modifier))
    except ValueError:
        return False
    return changed.recipe() != base.recipe()


def set_digest(name: str) -> str:
    """Return a SHA-256 of the set: its tasks, their recipes and horizons."""
    specs = [get_spec(task) for task in get_set(name).tasks]
    return sha256("\n".join(f"{spec.name} {spec.steps} {spec.recipe()}" for spec in specs).encode()).hexdigest()


def check_lock(name: str) -> tuple[str, ...]:
    """Return a line for each task of a set that is not what the lock file froze; none if the set is as it was.

    Data is not looked at here: that of a task is in its own digest, which rows of a comparison carry.
    """
    locked = json.loads(LOCK.read_text(encoding="utf-8"))["sets"].get(name, {})
    tasks = get_set(name).tasks
    changed = [f"{task}: not in the lock file" for task in tasks if task not in locked]
    changed += [f"{task}: in the lock file, no longer in the set" for task in locked if task not in tasks]
    for task in tasks:
        if task in locked and locked[task]["recipe"] != recipe_digest(task):
            changed.append(f"{task}: its recipe is not the one of the lock file")
    return tuple(changed)


def recipe_digest(task: str) -> str:
    """Return the SHA-256 of the recipe and the horizon of a task."""
    spec = get_spec(task)
    return sha256(f"{spec.steps} {spec.recipe()}".encode()).hexdigest()


def looks() -> list[dict[str, object]]:
    """Return what this user's looks at locked sets were: set, time (UTC), what was compared.

    Raises:
        OSError: If the file cannot be read, or a line of it is no look.

    """
    path = _ledger()
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            look: dict[str, object] = json.loads(line)
            found.append({key: look[key] for key in ("set", "time", "compared")})
        except (ValueError, KeyError, TypeError):
            raise OSError(f"{path}, line {number}: this is no look at a set; mend or remove the line") from None
    return found


def record_look(name: str, compared: Sequence[str]) -> int:
    """Count a look at a locked set and return how many there have been, this one included; 0 for a set without lock.

    Looking again at the same programs, as a resumed comparison does, is the same look.

    Raises:
        OSError: If it cannot be written down; then nothing may be looked at.

    """
    if not get_set(name).locked:
        return 0
    before = [look for look in looks() if look["set"] == name]
    if not any(look["compared"] == list(compared) for look in before):
        path = _ledger()
        path.parent.mkdir(parents=True, exist_ok=True)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"set": name, "time": now, "compared": list(compared)}) + "\n"
        with path.open("ab", buffering=0) as file:  # one write: lines of two processes never mix
            file.write(line.encode())
            os.fsync(file.fileno())
        before.append({})
    return len(before)


def _ledger() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    try:
        return Path(base).expanduser() / "evolion" / "looks.jsonl"
    except RuntimeError:
        raise OSError("there is no home folder to count looks at locked sets in: set XDG_DATA_HOME") from None

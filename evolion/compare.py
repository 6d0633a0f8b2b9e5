"""A comparison in its folder: the plan, the table, the report and the pictures, made or gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from evolion.errors import InputError, JobError, RunError
from evolion.evaluators.protocol.plan import Manifest, Plan, PlanError, from_json, resumed, to_json
from evolion.evaluators.protocol.table import Table, TableError
from evolion.evaluators.types import EvaluatorUnavailable
from evolion.progress import Observer, Phase, Progress, silent
from evolion.run_files import LOCK, locked, write_atomically

if TYPE_CHECKING:
    from evolion.evaluators.protocol.report import Report
    from evolion.evaluators.protocol.rows import Row
    from evolion.evaluators.types import Evaluator

__all__ = [
    "PLAN",
    "TABLE",
    "Comparison",
    "compare",
    "default_folder",
    "manifest_of",
    "read_manifest",
    "variants_for",
    "write_outputs",
]

PLAN, TABLE, TEXT, PAGE, PICTURES = "plan.json", "table.jsonl", "report.txt", "report.html", "pictures"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison has found.

    Attributes:
        folder: Where its files are.
        manifest: What was run.
        rows: The table, in the order of tasks, optimizers and stages.
        report: What it says.
        text: The report as plain text.
        files: The files of the folder that are for people, by their names in it.

    """

    folder: Path
    manifest: Manifest
    rows: tuple[Row, ...]
    report: Report
    text: str
    files: tuple[str, ...]


def default_folder(plan: Plan, source: str) -> Path:
    """Return where a comparison is when nobody says: the same for the same plan, so that it is gone on with."""
    return Path("comparisons", f"{source or 'tasks'}-{plan.digest()}")


def read_manifest(folder: Path) -> Manifest:
    """Return what a folder says that it holds. Raises InputError if it holds no comparison."""
    path = folder / PLAN
    try:
        return from_json(path.read_bytes(), str(path))
    except PlanError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"{folder} holds no comparison: cannot read {path}: {error.strerror}") from None


def variants_for(programs: Iterable[str], tasks: Sequence[str], count: int) -> tuple[str, ...]:
    """Return `count` held-out variants of tasks, drawn by what the programs do: other programs draw others."""
    from evolion.proxies.sets import held_out_variants

    drawn = held_out_variants(tasks, _behaviour(programs), count)
    return tuple(task for task in drawn if task not in tasks)


def _behaviour(programs: Iterable[str]) -> str:
    """Return a SHA-256 of the behavioural keys of program texts, in whatever order these come."""
    from evolion.primitives.keys import behavioural_key
    from evolion.primitives.parser import parse

    keys = sorted({behavioural_key(parse(text)) for text in programs})
    return sha256("\n".join(keys).encode()).hexdigest()


def manifest_of(plan: Plan, source: str = "", variants: tuple[str, ...] = ()) -> Manifest:
    """Return a plan with the digests of its tasks; loads their data.

    Args:
        plan: The plan.
        source: The name of the set that its tasks are of; "" for tasks by name.
        variants: Those of its tasks that were drawn (`variants_for`).

    Raises:
        InputError: If data cannot be read, or all of it is missing.

    """
    from evolion.proxies.data.source import DataError, DataMissing
    from evolion.proxies.registry import get_task
    from evolion.proxies.sets import set_digest

    digests: dict[str, str] = {}
    missing: dict[str, str] = {}
    for task in plan.tasks:
        try:
            digests[task] = get_task(task).digest
        except DataMissing as error:
            missing[task] = " ".join(str(error).split())
        except (DataError, OSError) as error:
            raise InputError(f"task {task!r}: {error}") from None
    if not digests:
        raise InputError(f"no task has its data on this machine: {'; '.join(missing.values())}")
    return Manifest(plan, digests, missing, set_digest(source) if source else "", source, variants)


def compare(
    manifest: Manifest,
    folder: Path | str,
    make: Callable[[], Evaluator],
    *,
    observer: Observer | None = None,
) -> Comparison:
    """Run a comparison, or what is left of it, and write its table, report and pictures.

    Args:
        manifest: What to run.
        folder: Where its files are and go; new, empty, or that of the same comparison.
        make: Gives the evaluator, once the folder is known to be good; it is closed at the end.
        observer: Is told about progress.

    Raises:
        InputError: For a folder that is taken, holds another comparison, or is at work in another process.
        OSError: If files cannot be written, the list of looks at a locked set among them: nothing is run then.
        JobError: If no optimizer could be scored, or no worker can go on, as where the data of a task is away.

    """
    folder = Path(folder)
    watcher = silent() if observer is None else observer
    with _own(folder), _as_input_errors():
        manifest = _settled(manifest, folder)
        notes = _looked(manifest)
        try:
            _execute(manifest, folder, make, watcher)
        except EvaluatorUnavailable as error:
            raise JobError(f"{error}: what was run is kept in {folder}; the same command goes on") from error
        return write_outputs(manifest, folder, notes)


@contextmanager
def _as_input_errors() -> Iterator[None]:
    from evolion.evaluators.protocol.stages import StaleRow

    try:
        yield
    except (PlanError, TableError, StaleRow) as error:
        raise InputError(str(error)) from None


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Make the folder where there is none, refuse one of somebody else, and keep other processes out."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder for the comparison with --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {entry.name for entry in folder.iterdir()}
    except OSError as error:
        raise InputError(f"cannot make or read {folder}: {error.strerror}; choose another with --out") from None
    if PLAN not in names and (strangers := sorted(names - {LOCK})):
        raise InputError(f"{folder} holds {strangers[0]} and no comparison; choose a new or an empty folder with --out")
    try:
        lock = locked(folder)
    except RunError:
        raise InputError(f"another process is at work on {folder}; wait for it, or choose another --out") from None
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out") from None
    with lock:
        yield


def _settled(manifest: Manifest, folder: Path) -> Manifest:
    """Return what the folder goes on with, and keep it there."""
    path = folder / PLAN
    if path.exists():
        manifest = resumed(from_json(path.read_bytes(), str(path)), manifest, str(folder))
    write_atomically(path, to_json(manifest))
    return manifest


def _looked(manifest: Manifest) -> tuple[str, ...]:
    """Count a look at a locked set, before anything of it can be seen, and return what is to be said of sets.

    Whoever names tasks of a locked set one by one looks at it as well.
    """
    from evolion.primitives.keys import structural_key
    from evolion.primitives.parser import parse
    from evolion.proxies.sets import SETS, check_lock, record_look

    notes = []
    if manifest.source:
        chosen = manifest.plan.tasks
        changed = [said for said in check_lock(manifest.source) if said.partition(": ")[0] in chosen]
        notes += [f"not the set as it was frozen: {said}" for said in changed]
    compared = sorted({structural_key(parse(entrant.program)) for entrant in manifest.plan.entrants})
    seen = {task.partition(":")[0] for task in manifest.plan.tasks}
    for name, each in SETS.items():
        if each.locked and seen & {task.partition(":")[0] for task in each.tasks}:
            count = record_look(name, compared)
            notes.append(f"look {count} at the locked set {name}: the more looks, the less it tells")
    return tuple(notes)


def _execute(manifest: Manifest, folder: Path, make: Callable[[], Evaluator], observer: Observer) -> None:
    from evolion.evaluators.protocol.execution import execute

    def report(done: int, total: int) -> None:
        observer.on_progress(Progress(Phase.COMPARISON, done, total))

    tasks = [task for task in manifest.plan.tasks if task not in manifest.missing]
    with Table(folder / TABLE) as table, closing(make()) as evaluator:
        execute(manifest.plan, tasks, table, evaluator, report=report)


def write_outputs(manifest: Manifest, folder: Path, notes: Sequence[str] = ()) -> Comparison:
    """Score the table of a folder and write what it says: report.txt, report.html and pictures/*.svg.

    Args:
        manifest: What was run.
        folder: Where the table is and the rest goes.
        notes: What is to be said besides.

    Raises:
        JobError: If there are no rows to score.

    """
    from evolion.evaluators.protocol.execution import ordered
    from evolion.evaluators.protocol.scoring import report
    from evolion.evaluators.protocol.table import read_rows
    from evolion.pictures.files import write_pictures
    from evolion.pictures.html import write_html
    from evolion.report_tables import render

    plan = manifest.plan
    rows = tuple(ordered(plan, read_rows(folder / TABLE)))
    if not any(row.optimizer == plan.reference for row in rows):
        raise JobError(f"nothing to report: the table of {folder} has no row of {plan.reference}")
    found = report(rows, reference=plan.reference, missing=tuple(manifest.missing), kinds=_kinds(plan))
    found = replace(found, notes=(*notes, *_drawn(manifest), *_diagnostic(manifest), *found.notes, *_crashes(rows)))
    text = render(found)
    write_atomically(folder / TEXT, text.rstrip("\n") + "\n")
    write_pictures(found, rows, folder / PICTURES)
    write_html(found, rows, folder / PAGE, _title(manifest), text, _details(manifest, rows))
    return Comparison(folder, manifest, rows, found, text, (TEXT, PAGE, f"{PICTURES}/", TABLE))


def _diagnostic(manifest: Manifest) -> Iterator[str]:
    """Say by which tasks optimizers are not to be ranked."""
    from evolion.proxies.registry import get_spec

    names = [task for task in manifest.digests if get_spec(task).purpose != "ranking"]
    if names:
        yield f"diagnostic, their order alone is not to be believed (docs/tasks.md): {', '.join(names)}"


def _drawn(manifest: Manifest) -> Iterator[str]:
    """Say which variants were drawn and how, so that anybody can draw them again."""
    if manifest.variants:
        seed = _behaviour(entrant.program for entrant in manifest.plan.entrants)
        yield (
            f"held-out variants of the tasks, drawn by what the programs do (digest {seed[:12]}) and not chosen: "
            f"{'; '.join(manifest.variants)}"
        )


def _title(manifest: Manifest) -> str:
    names = [entrant.name for entrant in manifest.plan.entrants if not entrant.control]
    chosen = [task for task in manifest.plan.tasks if task not in manifest.variants]
    what = f"the set {manifest.source}" if manifest.source else ", ".join(chosen)
    more = f" and {len(manifest.variants)} held-out variants" if manifest.variants else ""
    return f"{', '.join(names)} on {what}{more}"


def _details(manifest: Manifest, rows: Sequence[Row]) -> dict[str, str]:
    """Return what was run and by what, for the foot of the page."""
    plan = manifest.plan
    copies = sum(bool(entrant.control) for entrant in plan.entrants)
    seconds = sum(row.seconds for row in rows)
    return {
        "trials": f"{plan.trials} at the same points for all, then up to {plan.refinements} of refinement",
        "fresh seeds": str(plan.seeds),
        "renamed copies of the reference": str(copies),
        "plan": plan.digest(),
        "runs": f"{len(rows):,}, {seconds / 60.0:,.1f} minutes of one core",
        "computed by": "; ".join(sorted({row.numerics for row in rows})),
    }


def _kinds(plan: Plan) -> dict[str, str]:
    """Return for each optimizer what its program works on: tiny tasks flatter programs that see whole matrices."""
    from evolion.primitives.cost import cost
    from evolion.primitives.parser import parse

    def kind(text: str) -> str:
        price = cost(parse(text))
        if price.matrix_operations:
            return "matrix"
        return "per-tensor" if price.tensor_reductions or price.tree_reductions else "element-wise"

    return {entrant.name: kind(entrant.program) for entrant in plan.entrants}


def _crashes(rows: Sequence[Row]) -> Iterator[str]:
    """Say where runs were lost for reasons that are not the optimizer's."""
    lost: dict[tuple[str, str, str], int] = {}
    for row in rows:
        if row.status.value not in ("ok", "diverged"):
            key = row.optimizer, row.task, row.status.value
            lost[key] = lost.get(key, 0) + 1
    for (optimizer, task, status), number in lost.items():
        yield f"{optimizer} on {task}: {number} run{'s' * (number != 1)} {status}"

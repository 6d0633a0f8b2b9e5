"""What a score store holds, whether it is sound, and what may go; all of it while runs read and write."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

from evolion.evaluators.score_keys import ScoreKey, dump_score, execution_key, read_score
from evolion.evaluators.score_store import LASTING, Entry, Row, ScoreStore, StoreError
from evolion.evaluators.types import Job
from evolion.primitives.parser import parse
from evolion.proxies.score import Score

__all__ = [
    "Group",
    "Holdings",
    "Merged",
    "Trial",
    "damages",
    "doomed",
    "entries_of",
    "holdings",
    "merge",
    "remove",
    "retrained",
    "tasks_of",
]

_CHUNK = 500
"""So many rows go in one transaction: a run that wants to write waits for one of them, not for all."""
_PAGES = 2000


@dataclass(frozen=True, slots=True)
class Group:
    """Scores of one task and origin; `seconds` is what they cost, `oldest` and `newest` are in seconds since 1970."""

    task: str
    origin: str
    scores: int
    programs: int
    seconds: float
    oldest: float
    newest: float


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a store holds.

    Attributes:
        groups: By task and origin.
        scores: Scores.
        programs: Programs.
        size: Bytes that are in use.
        seconds: What the scores cost to compute.
        reused: How often a run took a score instead of computing it, as far as runs came to their end.
        saved: The seconds that this saved.

    """

    groups: tuple[Group, ...]
    scores: int
    programs: int
    size: int
    seconds: float
    reused: int
    saved: float


def holdings(store: ScoreStore) -> Holdings:
    """Count what is there.

    Raises:
        StoreError: If the file cannot be read.

    """
    with store.reading():
        run = store.connection.execute
        groups = run(
            "SELECT task, origins.text, count(*), count(DISTINCT program), sum(seconds), min(made), max(made) "
            "FROM scores JOIN budgets USING (budget) JOIN origins USING (origin) "
            "GROUP BY task, origins.text ORDER BY task, min(made)"
        ).fetchall()
        programs = run("SELECT count(*) FROM programs").fetchone()[0]
        reuse = dict(run("SELECT name, value FROM reuse").fetchall())
        size = _used(store.connection)
    found = tuple(Group(*group) for group in groups)
    counted, seconds = sum(group.scores for group in found), sum(group.seconds for group in found)
    return Holdings(found, counted, programs, size, seconds, round(reuse["scores"]), reuse["seconds"])


def _used(connection: sqlite3.Connection) -> int:
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
    return (pages - free) * size


def damages(store: ScoreStore) -> Iterator[str]:
    """Check the file and every row of it, and say in a line each what is wrong.

    Checksums are computed again, and the key of every program from its text.
    """
    try:
        with store.reading():
            for (said,) in store.connection.execute("PRAGMA integrity_check").fetchall():
                if said != "ok":
                    yield f"SQLite: {said}"
            texts = store.connection.execute("SELECT key, text FROM programs ORDER BY program")
            with closing(texts):
                for key, text in texts:
                    yield from _damaged_program(key, text)
        for row in store.rows():
            yield from _damaged_row(row)
    except StoreError as error:
        yield str(error)


def _damaged_program(key: object, text: object) -> Iterator[str]:
    name = key.hex() if isinstance(key, bytes) else repr(key)
    try:
        program = parse(str(text))
        sound = name == execution_key(program) and text == str(program)
    except ValueError as error:
        yield f"program {name}: its text cannot be read ({error})"
        return
    if not sound:
        yield f"program {name}: its text is that of another program"


def _damaged_row(row: Row) -> Iterator[str]:
    if None in (row.key, row.task, row.origin):
        yield f"score {row.number}: what it belongs to is missing"
        return
    try:
        sound = row.checksum == row.expected_checksum()
        score = read_score(row.score) if sound else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        yield f"score {row.number}: it cannot be read ({error})"
        return
    if score is None:
        yield f"score {row.number}: its checksum does not fit"


@dataclass(frozen=True, slots=True)
class Trial:
    """A stored score beside the one that training gives now; they are the same if they are so bit for bit."""

    row: Row
    stored: Score
    trained: Score

    @property
    def same(self) -> bool:
        """Whether nothing but the seconds differs."""
        return _bits(self.stored) == _bits(self.trained)


def _bits(score: Score) -> str:
    return dump_score(replace(score, seconds=0.0))


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of scores that were to go into a store.

    Attributes:
        new: Scores that it did not hold.
        known: Scores that it held, bit for bit.
        refused: Scores that say as much about a machine as about a program: timeouts, crashes.
        conflicts: A line for each score where it holds another one; that one stays.

    """

    new: int = 0
    known: int = 0
    refused: int = 0
    conflicts: tuple[str, ...] = ()

    def plus(self, other: Merged) -> Merged:
        """Return both together."""
        counts = (self.new + other.new, self.known + other.known, self.refused + other.refused)
        return Merged(*counts, (*self.conflicts, *other.conflicts))


def merge(store: ScoreStore, entries: Iterable[Entry]) -> Merged:
    """Put scores that were computed elsewhere into a store; doing so again changes nothing.

    Raises:
        StoreError: If the file cannot be read or written.

    """
    total, waiting = Merged(), iter(entries)
    while chunk := list(islice(waiting, _CHUNK)):
        lasting = [entry for entry in chunk if entry.score.status in LASTING]
        fresh, conflicts, known = [], [], 0
        for entry in lasting:
            before = store.get(entry.program, entry.key).score
            if before is None:
                fresh.append(entry)
            elif _bits(before) == _bits(entry.score):
                known += 1
            else:
                said = f"it holds {before.loss!r}, not {entry.score.loss!r}, made with {entry.key.numerics}"
                conflicts.append(f"{entry.task}, {entry.key.steps:,} steps: {said}; its program:\n{entry.program}")
        new = store.put(fresh)
        total = total.plus(Merged(new, known + len(fresh) - new, len(chunk) - len(lasting), tuple(conflicts)))
    return total


def entries_of(store: ScoreStore) -> Iterator[Entry]:
    """All scores of a store, as another one takes them.

    Raises:
        StoreError: If a row is damaged.

    """
    for row in store.rows():
        if None in (row.key, row.task, row.origin) or row.checksum != row.expected_checksum():
            raise StoreError(f"score store {store.path}: row {row.number} is damaged; see 'evolion store verify'")
        seeds, rates = tuple(json.loads(row.seeds)), tuple(json.loads(row.learning_rates))
        key = ScoreKey("", row.task_digest, row.steps, seeds, rates, row.split, row.origin)
        yield Entry(parse(row.program), row.task, key, read_score(row.score))


def tasks_of(store: ScoreStore, digest: Callable[[str], str | None]) -> tuple[set[str], set[str]]:
    """Return the task digests in a store that are those of a task of this installation, and the others.

    `digest` returns the digest of the task of a name, None for one that does not exist, an empty text for one that
    cannot be built here: that one is in neither set.
    """
    with store.reading():
        pairs = store.connection.execute("SELECT DISTINCT task, task_digest FROM budgets ORDER BY task").fetchall()
    current = {name: digest(name) for name in dict.fromkeys(name for name, _ in pairs)}
    known = {found for name, found in pairs if current[name] == found}
    return known, {found for name, found in pairs if current[name] != ""} - known


def retrained(
    store: ScoreStore, origin: str, digests: set[str], count: int, seed: int, train: Callable[[Job], Score]
) -> Iterator[Trial]:
    """Train `count` programs again, drawn by `seed` among the scores of an origin on tasks of these digests.

    Args:
        store: The store.
        origin: What computes here.
        digests: Digests of tasks that can be trained here.
        count: How many; all if there are fewer.
        seed: Of the draw.
        train: What scores a job.

    """
    checkable = [row.number for row in store.rows() if row.origin == origin and row.task_digest in digests]
    drawn = set(random.Random(seed).sample(checkable, min(count, len(checkable))))
    for row in [row for row in store.rows() if row.number in drawn]:
        job = Job(
            row.number,
            parse(row.program),
            row.task,
            row.steps,
            tuple(json.loads(row.seeds)),
            tuple(json.loads(row.learning_rates)),
            row.split,
        )
        yield Trial(row, read_score(row.score), train(job))


def doomed(
    store: ScoreStore,
    *,
    keep_origin: str | None = None,
    made_before: float | None = None,
    unknown_digests: Sequence[str] = (),
    keep_bytes: int | None = None,
) -> list[int]:
    """Return the numbers of the rows that go, oldest first.

    Args:
        store: The store.
        keep_origin: Rows of other origins go.
        made_before: Rows older than this go; seconds since 1970.
        unknown_digests: Rows of these tasks go.
        keep_bytes: As many of the oldest go that about this much is left.

    """
    with store.reading():
        rows = store.connection.execute(
            "SELECT number, origins.text, made, task_digest FROM scores "
            "JOIN budgets USING (budget) JOIN origins USING (origin) ORDER BY made, number"
        ).fetchall()
        used = _used(store.connection)
    unknown = set(unknown_digests)
    gone = [
        (keep_origin is not None and origin != keep_origin)
        or (made_before is not None and made < made_before)
        or digest in unknown
        for _, origin, made, digest in rows
    ]
    if keep_bytes is not None and rows:
        excess = min(len(rows), -(-max(0, used - keep_bytes) * len(rows) // used)) - sum(gone)
        for place, already in enumerate(gone):
            if excess > 0 and not already:
                gone[place], excess = True, excess - 1
    return [row[0] for row, goes in zip(rows, gone, strict=True) if goes]


def remove(store: ScoreStore, numbers: Sequence[int]) -> int:
    """Remove rows, and what only they referred to, give the space back, and return how many have gone.

    A run that writes meanwhile waits for one of many short transactions, and loses nothing.

    Raises:
        StoreError: If the file cannot be written.

    """
    gone = 0
    for start in range(0, len(numbers), _CHUNK):
        chunk = numbers[start : start + _CHUNK]
        with store.writing():
            marks = ", ".join("?" * len(chunk))
            gone += store.connection.execute(f"DELETE FROM scores WHERE number IN ({marks})", chunk).rowcount
    with store.writing():
        for table, name in (("programs", "program"), ("budgets", "budget"), ("origins", "origin")):
            store.connection.execute(f"DELETE FROM {table} WHERE {name} NOT IN (SELECT {name} FROM scores)")
    with store.reading():
        free = store.connection.execute("PRAGMA freelist_count").fetchone()[0]
        for _ in range(-(-free // _PAGES)):
            # As a script, which is stepped to its end: `execute` stops after the first page.
            store.connection.executescript(f"PRAGMA incremental_vacuum({_PAGES})")
        # Where somebody reads just now, the file shrinks at the next opportunity.
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return gone

"""A file of scores that several processes share: nothing lost, nothing mixed up, damage found."""

import dataclasses
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evolion.evaluators import score_store
from evolion.evaluators.score_keys import ScoreKey, dump_score, executed, execution_key
from evolion.evaluators.score_store import FORMAT, Entry, ScoreStore, StoreError
from evolion.evaluators.score_upkeep import damages, doomed, holdings, remove, retrained, tasks_of
from evolion.evaluators.types import Job
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.proxies.score import Run, Score, Status

KEY = ScoreKey("", "cd" * 32, 500, (0, 1), (0.001, 1 / 3), "validation", "cpu; jax 0.10; interpreter")


def program(number: int) -> Program:
    return parse(
        f"def train(g, m, lr, *, b1=0.9):\n    m = interp(g, m, b1)\n    u = {number + 1}.5 * m\n    return u, m\n"
    )


def score(loss: float = 0.1 + 0.2) -> Score:
    curve = tuple(float(f"{2.3 / (step + 1):.7g}") for step in range(20))
    runs = tuple(Run(rate, seed, Status.OK, loss, 1e-3, 500) for rate in KEY.learning_rates for seed in KEY.seeds)
    return Score(Status.OK, loss, curve, 500, 0.25, 1e-3, 1 / 3, runs)


def entry(number: int, **key: object) -> Entry:
    return Entry(program(number), "digits-mlp", dataclasses.replace(KEY, **key), score(float(number)))  # type: ignore[arg-type]


def filled(path: Path, count: int) -> None:
    with ScoreStore.open(path, create=True) as store:
        store.put([entry(number) for number in range(count)])


def found_damages(path: Path) -> list[str]:
    try:
        with ScoreStore.open(path, readonly=True) as store:
            return list(damages(store))
    except StoreError as error:
        return [str(error)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scores.sqlite"


def test_scores_come_back_exactly(path: Path) -> None:
    """A stored score is the score, to the last bit, for whoever opens the file next; no file stays beside it."""
    filled(path, 3)
    with ScoreStore.open(path) as store:
        found = store.get(program(2), KEY)
        assert found.score is not None
        assert dump_score(found.score) == dump_score(score(2.0))
        assert store.get(program(3), KEY).score is None
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(ScoreKey) if f.name != "behaviour"])
def test_every_part_of_a_key_counts(path: Path, field: str) -> None:
    """A score is never given for another task, budget, seed, split or numerics; those of other numerics are named."""
    filled(path, 1)
    other = dataclasses.replace(KEY, **{field: getattr(KEY, field) * 2})
    with ScoreStore.open(path) as store:
        found = store.get(program(0), other)
        assert found.score is None
        assert found.others == ((KEY.numerics,) if field == "numerics" else ())


def test_first_score_stays(path: Path) -> None:
    """Two runs that work out the same at a time leave one score."""
    filled(path, 2)
    with ScoreStore.open(path) as store:
        assert store.put([dataclasses.replace(entry(1), score=score(7.0)), entry(2)]) == 1
        assert store.get(program(1), KEY).score == score(1.0)


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_what_a_machine_did_is_not_kept(path: Path, status: Status) -> None:
    """A divergence is the program's, a timeout or a crash may be the machine's: another run must find out itself."""
    failed = dataclasses.replace(entry(0), score=Score(status, None, (), 3, 0.1))
    with ScoreStore.open(path, create=True) as store:
        assert store.put([failed]) == (status is Status.DIVERGED)


WRITER = """
import sys
from pathlib import Path
from test_score_store import *
path, first, count, chunk = Path(sys.argv[1]), *map(int, sys.argv[2:])
print("ready", flush=True)
sys.stdin.readline()
with ScoreStore.open(path, create=True) as store:
    for start in range(first, first + count, chunk):
        store.put([entry(number) for number in range(start, start + chunk)])
        print(start + chunk, flush=True)
"""


def writer(path: Path, first: int, count: int, chunk: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(path), str(first), str(count), str(chunk)]
    folder = str(Path(__file__).parent)
    pipe = subprocess.PIPE
    started = subprocess.Popen(
        arguments, cwd=folder, env=os.environ | {"PYTHONPATH": folder}, stdin=pipe, stdout=pipe, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def release(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_several_processes_write_at_once(path: Path) -> None:
    """Processes that make the file and write overlapping scores at the same moment lose none and fail with nothing."""
    writers = [writer(path, first, 60, 3) for first in (0, 30, 60)]
    for process in writers:
        release(process)
    for process in writers:
        process.communicate(timeout=60)
        assert process.returncode == 0
    with ScoreStore.open(path) as store:
        assert [store.get(program(number), KEY).score for number in range(120)] == [score(float(n)) for n in range(120)]
        assert holdings(store).scores == 120
        assert not list(damages(store))


def test_a_store_made_during_a_look_is_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that looks at the file while another makes the tables takes it for the store that it becomes."""
    number = score_store._number
    other = threading.Thread(target=filled, args=(path, 1))

    def number_while_another_begins(connection: sqlite3.Connection, question: str) -> int:
        found = number(connection, question)
        if other.ident is None:
            other.start()
            other.join(0.5)
        return found

    monkeypatch.setattr(score_store, "_number", number_while_another_begins)
    with ScoreStore.open(path, create=True) as store:
        other.join(60)
        assert holdings(store).scores == 1


def test_killed_writer_leaves_a_sound_store(path: Path) -> None:
    """kill -9 in the middle of writing loses nothing that was written, and the next process simply goes on."""
    rng, done = random.Random(3), 0
    for _ in range(2):
        process = writer(path, done, 100_000, 5)
        release(process)
        assert process.stdout is not None
        wanted = done + 5 * rng.randint(2, 20)
        while done < wanted:
            done = int(process.stdout.readline())
        time.sleep(rng.random() * 0.003)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert found_damages(path) == []
        with ScoreStore.open(path) as store:
            assert holdings(store).scores >= done
            assert holdings(store).scores % 5 == 0, "a transaction was written in part"


def test_transaction_that_never_ended_is_not_there(path: Path) -> None:
    """What was written before a crash and not yet committed leaves no trace, and holds nobody up."""
    filled(path, 5)
    script = (
        f"import os, sys\nfrom test_score_store import *\nstore = ScoreStore.open({str(path)!r})\n"
        "with store.writing():\n    [store._put(entry(n)) for n in range(5, 500)]\n    os.kill(os.getpid(), 9)\n"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=os.environ | {"PYTHONPATH": folder})
    assert done.returncode == -signal.SIGKILL
    assert found_damages(path) == []
    with ScoreStore.open(path) as store:
        assert holdings(store).scores == 5
        assert store.put([entry(5)]) == 1


def test_flipped_byte_is_found(path: Path) -> None:
    """Whatever a flipped bit changes of what the store says, the check finds."""
    filled(path, 100)
    sound = path.read_bytes()

    def said(file: Path) -> list[object]:
        with ScoreStore.open(file, readonly=True) as store:
            return [store.connection.execute("SELECT * FROM programs ORDER BY program").fetchall(), *store.rows()]

    before, rng, found = said(path), random.Random(0), 0
    texts = (
        b"interp(g, m",
        b'"loss":',
        b"digits-mlp",
        b"validation",
        b"jax 0.10",
        bytes.fromhex(execution_key(program(4))),
    )
    places = [sound.index(text) + 2 for text in texts] + [rng.randrange(100, len(sound)) for _ in range(60)]
    for number, place in enumerate(places):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 1 << rng.randrange(8)]) + sound[place + 1 :])
        if found_damages(path):
            found += 1
        else:
            assert number >= len(texts)
            assert said(path) == before, f"byte {place} changes what is said and is not found"
    assert found > 20, "the bytes were chosen where nothing stands"


def test_row_that_is_damaged_is_never_given(path: Path) -> None:
    """A score whose checksum does not fit is an error, not a score."""
    filled(path, 2)
    with ScoreStore.open(path) as store:
        store.connection.execute("UPDATE scores SET score = replace(score, '1.0', '0.5') WHERE number = 2")
        assert store.get(program(0), KEY).score == score(0.0)
        with pytest.raises(StoreError, match="row 2 is damaged; see 'evolion store verify'"):
            store.get(program(1), KEY)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a text": lambda path: path.write_text("loss = 1\n" * 500),
    "another database": lambda path: sqlite3.connect(path).execute("CREATE TABLE mine (x)"),
    "a folder": lambda path: path.mkdir(),
    "a newer format": lambda path: (
        filled(path, 1),
        sqlite3.connect(path).execute(f"PRAGMA user_version = {FORMAT + 1}"),
    ),
}
MESSAGES = {
    "a text": "file is not a database",
    "another database": "is not a score store of Evolion",
    "a folder": "is a folder; name a file",
    "a newer format": f"newer Evolion .format {FORMAT + 1}; this version reads up to {FORMAT}.*upgrade",
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("readonly", [False, True])
def test_file_of_another_kind_is_refused_and_left_alone(path: Path, kind: str, readonly: bool) -> None:
    """One line that names the file, and not a byte of somebody else's changed."""
    FOREIGN[kind](path)
    before = None if path.is_dir() else path.read_bytes()
    with pytest.raises(StoreError, match=MESSAGES[kind]) as caught:
        ScoreStore.open(path, create=True, readonly=readonly)
    assert str(path) in str(caught.value)
    assert before is None or path.read_bytes() == before


def test_missing_store_is_made_only_where_that_is_wanted(path: Path) -> None:
    """A mistyped name makes no empty store; neither does a folder that is not there."""
    with pytest.raises(StoreError, match="there is no score store"):
        ScoreStore.open(path)
    with pytest.raises(StoreError, match=r"there is no folder .*nowhere"):
        ScoreStore.open(path.parent / "nowhere" / "scores", create=True)
    assert not list(path.parent.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_store_that_cannot_be_written_is_found_at_once(path: Path) -> None:
    """A run learns at its start, not at its first score, that nothing can be kept."""
    filled(path, 1)
    path.chmod(0o400)
    with pytest.raises(StoreError, match="readonly"):
        ScoreStore.open(path)
    with ScoreStore.open(path, readonly=True) as store:
        assert holdings(store).scores == 1


def test_a_score_takes_less_than_two_kilobytes(path: Path) -> None:
    """A store grows slowly: with its curve, four runs and its program, a score takes under 2 kB."""
    filled(path, 10)
    small = path.stat().st_size
    filled(path, 510)

    assert (path.stat().st_size - small) / 500 < 2000


def test_removal_takes_what_is_named_and_gives_space_back(path: Path) -> None:
    """Old scores, other numerics, unknown tasks: each rule takes its own, and programs that nobody needs go too."""
    with ScoreStore.open(path, create=True) as store:
        store.put([entry(number) for number in range(400)])
        store.put([entry(number, numerics="elsewhere") for number in range(390, 410)])
        store.put([dataclasses.replace(entry(number, task_digest="ee" * 32), task="gone") for number in range(5)])
        known, unknown = tasks_of(store, lambda name: "cd" * 32 if name == "digits-mlp" else None)
        assert (known, unknown) == ({"cd" * 32}, {"ee" * 32})
        assert len(doomed(store, made_before=0.0)) == 0
        assert len(doomed(store, made_before=time.time() + 1)) == 425
        assert len(doomed(store, unknown_digests=list(unknown))) == 5
        other = doomed(store, keep_origin=KEY.numerics)
        assert (len(other), remove(store, other), holdings(store).programs) == (20, 20, 400)
        used = holdings(store).size
        remove(store, doomed(store, keep_bytes=used // 2))
        assert abs(holdings(store).size - used / 2) < 0.1 * used
        assert store.get(program(399), KEY).score is not None, "the newest stay"
        assert store.get(program(0), KEY).score is None
        assert not list(damages(store))
    assert path.stat().st_size < 0.7 * used


def test_removal_while_a_run_writes(path: Path) -> None:
    """What a run writes during a removal is kept, and the run notices nothing."""
    filled(path, 1500)
    process = writer(path, 2000, 150, 1)
    release(process)
    with ScoreStore.open(path) as store:
        assert remove(store, doomed(store, made_before=time.time())[:1500]) == 1500
    process.communicate(timeout=60)
    assert process.returncode == 0
    with ScoreStore.open(path) as store:
        assert holdings(store).scores == 150
        assert not list(damages(store))


def test_training_again_finds_a_score_that_is_not_true(path: Path) -> None:
    """A stored score with a right checksum and a wrong last bit does not pass the sample; a true one does."""
    seen: list[Job] = []

    def train(job: Job) -> Score:
        seen.append(job)
        return dataclasses.replace(score(1.5), seconds=77.0)

    with ScoreStore.open(path, create=True) as store:
        store.put(
            [dataclasses.replace(entry(number), score=score(loss)) for number, loss in enumerate((1.5, 1.5 + 2**-52))]
        )
        trials = list(retrained(store, KEY.numerics, {KEY.task_digest}, 5, 0, train))
        assert [trial.same for trial in trials] == [True, False]
        assert len(list(retrained(store, KEY.numerics, {KEY.task_digest}, 1, 0, train))) == 1
        assert not list(retrained(store, "elsewhere", {KEY.task_digest}, 5, 0, train))
        assert not list(retrained(store, KEY.numerics, set(), 5, 0, train))
    assert [(job.program, job.task, job.steps, job.seeds, job.learning_rates, job.split) for job in seen[:2]] == [
        (executed(program(number)), "digits-mlp", KEY.steps, KEY.seeds, KEY.learning_rates, KEY.split)
        for number in (0, 1)
    ]


def test_copy_of_a_store_is_a_store(path: Path, tmp_path: Path) -> None:
    """A closed store is one file that can be carried to another machine."""
    filled(path, 3)
    shutil.copy(path, tmp_path / "copy")
    assert found_damages(tmp_path / "copy") == []

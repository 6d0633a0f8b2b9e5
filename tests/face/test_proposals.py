import hashlib
import itertools
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from chat_server import PROGRAM, chat_server, completion, fenced
from interruptions import begun, events, record, resumed, short
from stub_evaluator import StubEvaluator, stub_config

import evolion
from evolion.checkpoints import read_checkpoint
from evolion.config import RunConfig, program_of
from evolion.config_algorithms import ProposerConfig
from evolion.config_text import from_toml
from evolion.continuation import continued_config
from evolion.driver import discover
from evolion.errors import InputError, RunError
from evolion.evaluators.types import Job, Score
from evolion.primitives.program import Program
from evolion.progress import Phase, Progress
from evolion.proposals import proposals_of
from evolion.run_status import status_lines, status_of
from evolion.search.proposals import PROPOSAL, Parent, ProposerError
from evolion.search.registry import ALGORITHMS, CONTROLS
from evolion.search_settings import algorithm_of
from evolion.store import RunStore

GARBAGE = "def train(w, g):\n    return nothing\n"
PLAIN = PROGRAM.removeprefix("@protected\n").format(scale=2)
KEY = "sk-of-a-person"
Answer = tuple[str, ...]


def at_once(work: Callable[[], Answer]) -> "Future[Answer]":
    future: Future[Answer] = Future()
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
    return future


@dataclass
class Scripted:
    """Proposes two programs, a text that is none and one of the other arithmetic; fails at every third request."""

    asked: list[tuple[Parent, ...]] = field(default_factory=list)

    def propose(self, parents: Sequence[Parent], count: int) -> Answer:
        self.asked.append(tuple(parents))
        digest = hashlib.sha256(repr(parents).encode()).digest()
        if len(self.asked) % 3 == 0:
            raise ProposerError("the endpoint is tired")
        scales = (1 + len(self.asked), 100 + len(self.asked) + digest[0] / 256)
        return (*(PROGRAM.format(scale=scale) for scale in scales), GARBAGE, PLAIN)[:count]


def given(config: RunConfig, proposer: object, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """A run whose proposer answers at once."""

    def made(run: RunConfig, seed: Program, store: RunStore, _: object) -> object:
        return proposals_of(run, seed, store, proposer, at_once)  # type: ignore[arg-type]

    monkeypatch.setattr("evolion.funnel.proposals_of", made)
    return replace(short(config), proposer=ProposerConfig(every=10, parents=3))


def proposals(folder: Path) -> list[tuple[int, int | None, str]]:
    with RunStore.open(folder, readonly=True) as run:
        return [(c.number, c.parent, c.text) for c in run.candidates() if c.mutation == PROPOSAL]


def rows(folder: Path) -> list[object]:
    with RunStore.open(folder, readonly=True) as run:
        return [*run.candidates(), *run.outcomes(), *run.confirmations()]


def test_proposals_become_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request shows the best so far; its programs come next, as children of the best of them."""
    scripted = Scripted()
    folder = begun(given(stub_config(100), scripted, monkeypatch), tmp_path / "run", after=None)
    found = proposals(folder)
    numbers = [number for number, _, _ in found]
    # Sent at 10 and every 10th, there at the next one; the third and the sixth fail.
    assert numbers == [20, 21, 30, 31, 50, 51, 60, 61, 80, 81, 90, 91]
    assert [parent for _, parent, _ in found[:2]] == [scripted.asked[0][0].number] * 2
    assert all(len(parents) <= 3 for parents in scripted.asked)
    assert all(list(parents) == sorted(parents, key=lambda one: one.fitness[:-1]) for parents in scripted.asked)
    with RunStore.open(folder, readonly=True) as run:
        assert run.outcome(20) is not None


def test_what_is_invalid_is_counted_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a model gets wrong goes unseen, and nothing of it ends a run."""
    seen: list[Progress] = []

    class Seeing:
        def on_progress(self, progress: Progress) -> None:
            seen.append(progress)

    config = given(stub_config(60), Scripted(), monkeypatch)
    discover(config, tmp_path / "run", evaluator=StubEvaluator(), observer=Seeing())
    counts = {"requests": 4, "failed": 1, "accepted": 6, "invalid": {"not a program": 3, "other arithmetic": 3}}
    assert record(tmp_path / "run", "proposals") == counts
    assert record(tmp_path / "run", "proposals 1")["texts"][2:] == [GARBAGE, PLAIN]
    assert record(tmp_path / "run", "proposals 3")["failed"] == "the endpoint is tired"
    assert [progress.invalid for progress in seen if progress.phase is Phase.SEARCH][-1] == 6
    assert events(tmp_path / "run").count("proposals") == 4
    with RunStore.open(tmp_path / "run", readonly=True) as run:
        said = "\n".join(status_lines(status_of(run)))
    assert "4 requests (1 without an answer), 6 programs; invalid: 3 not a program, 3 other arithmetic" in said


@pytest.mark.parametrize("after", [30, 90])
def test_a_stopped_run_keeps_its_proposals(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the store has is read and never asked for again; answers not yet used are used after all."""
    scripted = Scripted()
    config = given(stub_config(100), scripted, monkeypatch)
    folder = begun(config, tmp_path / "run", after=after)
    before, asked = proposals(folder), record(folder, "proposals")
    assert resumed(folder)
    assert proposals(folder)[: len(before)] == before
    assert record(folder, "proposals")["requests"] >= asked["requests"]
    with RunStore.open(folder, readonly=True) as run:
        texts = [text for n in range(1, record(folder, "proposals")["requests"] + 1)
                 for text in (run.get_record(f"proposals {n}") or {}).get("accepted", [])]  # fmt: skip
        assert run.counts().told == 100
    used = [text for _, _, text in proposals(folder)]
    assert used == texts[: len(used)]
    assert len(texts) - len(used) <= 4


def test_an_answer_that_was_not_used_up_waits_for_the_next_sitting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver that dies between two proposals of one answer loses neither."""
    config = given(stub_config(100), Scripted(), monkeypatch)
    with RunStore.create(tmp_path / "run", config, {}) as store:
        made = {"parents": [0], "parent": 0, "texts": [], "accepted": [PROGRAM.format(scale=s) for s in (2, 3)]}
        store.put_record("proposals 1", made)
        store.put_record("proposals", {"requests": 1, "failed": 0, "accepted": 2, "invalid": {}})
        with proposals_of(config, evolion.known()["adamw_seed"], store, Scripted()) as found:
            assert found.candidate(0, (), {}) is None
            drawn = [found.candidate(number, (), {}) for number in (1, 2, 3)]
    assert [one and one.parent for one in drawn] == [0, 0, None]


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name not in CONTROLS])
def test_every_algorithm_takes_proposals(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate that the algorithm was not asked for is told like any other, also after a stop."""
    config = stub_config(80)
    config = replace(config, search=replace(config.search, algorithm=name, adapt_mutations=True))
    folder = begun(given(config, Scripted(), monkeypatch), tmp_path / "run", after=50)
    assert resumed(folder)
    assert len(proposals(folder)) >= 6


def test_a_proposer_that_breaks_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in a proposer costs its proposals and nothing else: the run is the one without it."""

    class Broken:
        def propose(self, parents: Sequence[Parent], count: int) -> Answer:
            raise ZeroDivisionError(KEY)

    folder = begun(given(stub_config(60), Broken(), monkeypatch), tmp_path / "run", after=None)
    monkeypatch.undo()
    plain = begun(short(stub_config(60)), tmp_path / "plain", after=None)
    assert rows(folder) == rows(plain)
    assert record(folder, "proposals")["failed"] == 4
    assert events(folder).count("proposals") == 1
    assert record(folder, "proposals 4")["failed"] == "ZeroDivisionError in the proposer"


def test_without_an_endpoint_there_is_no_trace(tmp_path: Path) -> None:
    """Off by default: no record, no line in the status."""
    folder = begun(short(stub_config(30)), tmp_path / "run", after=None)
    assert record(folder, "proposals") is None
    with RunStore.open(folder, readonly=True) as run:
        assert not any(line.startswith("proposals") for line in status_lines(status_of(run)))


@dataclass
class Unhurried(StubEvaluator):
    """Leaves the server a moment."""

    def collect(self, timeout: float | None = None) -> list[tuple[Job, Score]]:
        time.sleep(0.003)
        return StubEvaluator.collect(self, timeout)


def test_a_run_with_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the configuration to the candidates, with a server that errs, is late and says nonsense; no key is kept."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KEY_OF_A_TEST", KEY)
    scales = itertools.count(2)

    def answer(number: int) -> bytes | tuple[int, bytes]:
        if number == 2:
            return 400, KEY.encode()
        if number == 3:
            time.sleep(0.1)
        return completion(f"{KEY} " + fenced(PROGRAM.format(scale=next(scales)), GARBAGE))

    with chat_server(answer) as server:
        proposer = ProposerConfig(server.endpoint, "m", every=10, programs=2, key_variable="KEY_OF_A_TEST")
        config = replace(short(stub_config(250)), proposer=proposer)
        discover(config, tmp_path / "run", evaluator=Unhurried())
        assert len(server.requests) >= 4
        assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
        assert KEY not in json.dumps(server.requests)
    counts = record(tmp_path / "run", "proposals")
    assert counts["failed"] == 1
    assert counts["accepted"] == counts["invalid"]["not a program"] >= 2
    assert len(proposals(tmp_path / "run")) >= 2
    held = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert held
    assert not [path for path in held if KEY.encode() in path.read_bytes()]


DRIVER = """
import sys
from dataclasses import replace
from interruptions import short
from stub_evaluator import stub_config
from test_proposals import Unhurried
from evolion.config_algorithms import ProposerConfig
from evolion.driver import discover

endpoint, folder = sys.argv[1:]
proposer = ProposerConfig(endpoint, "m", every=10, programs=2)
discover(replace(short(stub_config(2000)), proposer=proposer), folder, evaluator=Unhurried())
"""


@pytest.mark.slow
def test_a_killed_driver_loses_no_proposal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After kill -9 the run is taken up with the answers that it has: every request that is sent then is a new one."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", f"{tests}:{tests / 'face'}")
    folder = tmp_path / "run"

    def kept() -> dict[str, int]:
        with suppress(RunError, sqlite3.OperationalError), RunStore.open(folder, readonly=True) as run:
            return run.get_record("proposals") or {"requests": 0}
        return {"requests": 0}

    scales = itertools.count(2)
    with chat_server(lambda _: completion(fenced(*(PROGRAM.format(scale=next(scales)) for _ in "ab")))) as server:
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, server.endpoint, str(folder)], cwd=tmp_path)
        until = time.monotonic() + 120
        while kept()["requests"] < 3:
            assert time.monotonic() < until
            assert driver.poll() is None
            time.sleep(0.05)
        driver.kill()
        driver.wait()
        before, answered = proposals(folder), kept()["requests"]
        assert not resumed(folder, after=300)
        after = proposals(folder)
        held = {number: record(folder, f"proposals {number}") for number in range(1, kept()["requests"] + 1)}
    assert after[: len(before)] == before
    texts = [text for number in sorted(held) for text in held[number]["accepted"]]
    used = [text for _, _, text in after]
    assert used == texts[: len(used)]
    assert len(used) >= 2 * answered


def test_an_endpoint_that_moved_is_set_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked is no part of what a run is: it goes on at its checkpoint, and both files say the new endpoint."""
    monkeypatch.setattr("evolion.funnel.interval", lambda told: 20)
    monkeypatch.setattr("evolion.proposer_http.ChatProposer.propose", lambda *_: ())
    config = replace(short(stub_config(120)), proposer=ProposerConfig("http://localhost:1/v1", "m", every=10))
    folder = begun(config, tmp_path / "run", after=50)
    before, told = (folder / "config.toml").read_text(), record(folder, "checkpoint")["told"]
    assert not resumed(folder, 'proposer.endpoint="http://localhost:2/v1"', "proposer.every=20", after=0)
    with RunStore.open(folder, readonly=True) as run:
        assert (run.config.proposer.endpoint, run.config.proposer.every) == ("http://localhost:2/v1", 20)
        assert (folder / "config.toml").read_text() == run.get_config()
        checkpoint = read_checkpoint(run, algorithm_of(run.config, program_of(run.config.search.warm_start)))
    assert checkpoint is not None
    assert checkpoint.told >= told > 0
    (folder / "config.toml").write_text(before)  # as a process leaves it that died between the two files
    assert resumed(folder, 'proposer.endpoint=""')
    assert from_toml((folder / "config.toml").read_text()).proposer.endpoint == ""


def test_who_asks_nothing_needs_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The retest of a run whose search is over goes on without httpx; another endpoint for it is refused at once."""
    monkeypatch.setattr("evolion.proposer_http.ChatProposer.propose", lambda *_: ())
    config = replace(short(stub_config(40)), proposer=ProposerConfig("http://localhost:1/v1", "m", every=10))
    folder = begun(config, tmp_path / "run", after=None)
    with RunStore.open(folder) as run:
        run.forget_record("winner")
        run.forget_record("table")
    monkeypatch.setattr("evolion.proposer_http.find_spec", lambda name: None)
    assert resumed(folder)
    with pytest.raises(InputError, match="needs httpx"):
        continued_config(config, ['proposer.endpoint="http://localhost:2/v1"'])


def test_an_endpoint_that_hangs_delays_nothing(tmp_path: Path) -> None:
    """Requests wait in the background: the search has its end, and the process its own, without an answer."""
    with chat_server(lambda _: (server.released.wait(60), completion(""))[1]) as server:
        proposer = ProposerConfig(server.endpoint, "m", every=10, timeout=60.0)
        began = time.monotonic()
        discover(replace(short(stub_config(60)), proposer=proposer), tmp_path / "run", evaluator=StubEvaluator())
        assert time.monotonic() - began < 50
        server.released.set()
    plain = begun(short(stub_config(60)), tmp_path / "plain", after=None)
    assert rows(tmp_path / "run") == rows(plain)

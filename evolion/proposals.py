"""Proposals in a search: asked for ahead in the background, checked, written down, and then candidates.

What a model answers cannot be had again, so it is in the store before anything is made of it: a resumed run reads it.
Whether an answer is there when a candidate is due hangs on time; everything else of a run does not.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from evolion.config import RunConfig
from evolion.primitives.program import Program
from evolion.records import Standing
from evolion.search.proposals import (
    MAXIMUM_CHARACTERS,
    PROPOSAL,
    Parent,
    Proposed,
    Proposer,
    ProposerError,
    Refusal,
    Rules,
    checked,
)
from evolion.search.types import Candidate, Programs
from evolion.search_settings import settings_of
from evolion.store import RunStore

__all__ = ["RECORD", "Background", "Proposals", "check_proposer", "in_background", "proposals_of"]

RECORD = "proposals"
"""The name of the record that adds them up; `proposals 3` is what the third request brought."""

_log = logging.getLogger(__name__)

Answer = tuple[str, ...]
Background = Callable[[Callable[[], Answer]], "Future[Answer]"]
"""Starts some work and returns at once."""


def in_background(work: Callable[[], Answer]) -> Future[Answer]:
    """Do some work in a thread that keeps no process from ending, as those of an executor would."""
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="proposer", daemon=True).start()
    return future


@dataclass(frozen=True, slots=True)
class _Request:
    number: int
    parents: tuple[Parent, ...]
    answer: Future[Answer]


@dataclass(slots=True)
class Proposals:
    """Who is asked, and what came of it.

    Attributes:
        store: The run.
        proposer: Is asked; None for nobody.
        rules: What proposals are held to.
        every: A request goes out every so many candidates.
        programs: How many programs a request asks for.
        parents: How many it shows.
        background: Where requests wait for their answers.

    """

    store: RunStore
    proposer: Proposer | None
    rules: Rules
    every: int
    programs: int
    parents: int
    background: Background = in_background
    _counts: dict[str, Any] = field(default_factory=lambda: {"requests": 0, "failed": 0, "accepted": 0, "invalid": {}})
    _seen: set[str] = field(default_factory=set)
    _waiting: deque[tuple[int, Proposed]] = field(default_factory=deque)
    _request: _Request | None = None
    _warned: str = ""

    @property
    def invalid(self) -> int:
        """How many texts became no candidate."""
        return sum(self._counts["invalid"].values())

    def restore(self) -> None:
        """Go on with what the store has: the answers so far, and of them those that are no candidates yet."""
        self._counts = self.store.get_record(RECORD) or self._counts
        rows = self.store.database.read("SELECT text FROM candidates WHERE mutation = ?", (PROPOSAL,))
        used = {text for (text,) in rows}
        for number in range(1, self._counts["requests"] + 1):
            answer = self.store.get_record(f"{RECORD} {number}") or {}
            for text in answer.get("accepted", ()):
                proposed = checked(text, self.rules)
                if isinstance(proposed, Proposed):
                    self._seen.add(proposed.key)
                    if text not in used:
                        self._waiting.append((answer["parent"], proposed))

    def candidate(self, number: int, top: Sequence[Standing], programs: Programs) -> Candidate | None:
        """Return the candidate of this number if a proposal is to be it; returns at once.

        Args:
            number: The candidate.
            top: The best few told so far, best first.
            programs: Those of candidates.

        """
        if self.proposer is None or not number:
            return None
        if number % self.every == 0:
            self._collect()
            if self._request is None and top:
                self._ask(top, programs)
        if not self._waiting:
            return None
        parent, proposed = self._waiting.popleft()
        return Candidate(number, proposed.program, parent, PROPOSAL, proposed.key)

    def _ask(self, top: Sequence[Standing], programs: Programs) -> None:
        proposer, count = self.proposer, self.programs
        assert proposer is not None
        shown = tuple(Parent(one.number, str(programs[one.number]), one.fitness) for one in top[: self.parents])
        number = self._counts["requests"] + 1
        self._request = _Request(number, shown, self.background(lambda: proposer.propose(shown, count)))

    def _collect(self) -> None:
        """Write down the answer, if it has come, and line up what may become a candidate."""
        request = self._request
        if request is None or not request.answer.done():
            return
        self._request = None
        answer: dict[str, Any] = {"parents": [parent.number for parent in request.parents]}
        try:
            texts = tuple(text[:MAXIMUM_CHARACTERS] for text in request.answer.result()[: self.programs])
        except Exception as error:  # Whatever is wrong with a proposer, the search is worth more.
            known = isinstance(error, ProposerError)
            answer["failed"] = str(error) if known else f"{type(error).__name__} in the proposer"
            self._write(request.number, answer, (), Counter())
            return
        accepted, invalid = self._sorted(texts)
        parent = request.parents[0].number
        answer |= {"parent": parent, "texts": list(texts), "accepted": [str(one.program) for one in accepted]}
        self._write(request.number, answer, accepted, invalid)
        self._warned = ""
        self._waiting.extend((parent, one) for one in accepted)

    def _sorted(self, texts: Sequence[str]) -> tuple[list[Proposed], Counter[str]]:
        accepted: list[Proposed] = []
        invalid: Counter[str] = Counter()
        for text in texts:
            proposed = checked(text, self.rules)
            if isinstance(proposed, Proposed) and proposed.key in self._seen:
                proposed = Refusal.REPEATED
            if isinstance(proposed, Refusal):
                invalid[proposed.value] += 1
            else:
                self._seen.add(proposed.key)
                accepted.append(proposed)
        if not texts:
            invalid[Refusal.SYNTAX.value] += 1
        return accepted, invalid

    def _write(self, number: int, answer: dict[str, Any], accepted: Sequence[Proposed], invalid: Counter[str]) -> None:
        counts, failed = self._counts, answer.get("failed", "")
        self._counts = {
            "requests": number,
            "failed": counts["failed"] + bool(failed),
            "accepted": counts["accepted"] + len(accepted),
            "invalid": dict(Counter(counts["invalid"]) + invalid),
        }
        with self.store.transaction():
            self.store.put_record(f"{RECORD} {number}", answer | {"invalid": dict(invalid)})
            self.store.put_record(RECORD, self._counts)
            if not failed or failed != self._warned:
                detail = {"request": number, "failed": failed, "accepted": len(accepted), "invalid": dict(invalid)}
                self.store.event(RECORD, detail)
        if failed and failed != self._warned:
            self._warned = failed
            _log.warning("no proposals: %s; the search goes on with its mutations and asks again later", failed)


def check_proposer(config: RunConfig) -> None:
    """Raise InputError if the proposer of a configuration needs a library that is not installed."""
    if config.proposer.endpoint:
        from evolion.proposer_http import check_library

        check_library()


@contextmanager
def proposals_of(
    config: RunConfig,
    seed: Program,
    store: RunStore,
    proposer: Proposer | None = None,
    background: Background = in_background,
) -> Iterator[Proposals]:
    """Give the proposals of a run inside the block; without an endpoint in its configuration, none.

    A run that holds all of its candidates has nothing to ask, so it needs neither endpoint nor library.

    Args:
        config: That of the run.
        seed: Its warm start.
        store: The run.
        proposer: Is asked instead of the endpoint.
        background: Where requests wait for their answers.

    Raises:
        InputError: If a library that the proposer needs is not installed.

    """
    mutation = settings_of(config, seed).mutation
    rules = Rules.of(seed, mutation)
    settings = config.proposer
    with ExitStack() as closing:
        if proposer is None and settings.endpoint and store.last_number() + 1 < config.search.budget:
            from evolion.proposer_http import chat_proposer

            made = chat_proposer(settings, rules)
            closing.callback(made.closed.set)
            proposer = made
        found = Proposals(store, proposer, rules, settings.every, settings.programs, settings.parents, background)
        if proposer is not None or settings.endpoint:
            found.restore()
        yield found

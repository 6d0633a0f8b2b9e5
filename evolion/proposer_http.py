"""A proposer behind any HTTP endpoint that speaks OpenAI's chat completions, as most servers of language models do."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from evolion.config_algorithms import ProposerConfig
from evolion.errors import InputError
from evolion.proposer_prompt import language_text, programs_in, request_text
from evolion.search.proposals import Parent, ProposerError, Rules

if TYPE_CHECKING:
    import httpx

__all__ = ["ChatProposer", "chat_proposer", "check_library"]

_ATTEMPTS = 3
_MAXIMUM_BYTES = 4 * 2**20
"""A longer answer is no answer."""

_TRANSIENT = {408, 409, 425, 429}
"""Statuses that may be others a moment later, besides those of a server's own fault."""


@dataclass(eq=False)
class _Transient(Exception):
    """What another attempt may mend."""

    reason: str
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class ChatProposer:
    """`Proposer` that sends `POST {endpoint}/chat/completions`.

    Attributes:
        config: Endpoint, model, temperature, seconds for one attempt.
        language: What the model is told of the language.
        environment: Where the key is looked up when it is needed; it is held nowhere else.
        backoff: Seconds before the second attempt, twice as many before the third.
        closed: Ends the waiting between attempts.

    """

    config: ProposerConfig
    language: str
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    backoff: float = 2.0
    closed: threading.Event = field(default_factory=threading.Event)

    def propose(self, parents: Sequence[Parent], count: int) -> tuple[str, ...]:
        """Return the programs in the model's answer; three attempts at most, see `Proposer`."""
        import httpx

        key = self._key()
        body = {
            "model": self.config.model,
            "messages": [
                {"role": "system", "content": self.language},
                {"role": "user", "content": request_text(parents, count)},
            ],
            "temperature": self.config.temperature,
        }
        reason = "the search has ended"
        # Redirects are not followed: the key goes where the configuration says and nowhere else.
        with httpx.Client(timeout=self.config.timeout, follow_redirects=False) as client:
            for attempt in range(_ATTEMPTS):
                try:
                    answer = _answer_of(self._posted(client, body, key))
                except _Transient as error:
                    reason = error.reason
                    wait = self.backoff * 2**attempt if error.wait is None else error.wait
                    last = attempt == _ATTEMPTS - 1
                    if last or self.closed.wait(min(wait, self.config.timeout)):
                        break
                else:
                    # A server that sends the key back shall not bring it into the run.
                    return programs_in(answer.replace(key, "…") if key else answer)[:count]
        raise ProposerError(reason)

    def _key(self) -> str:
        key = self.environment.get(self.config.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ProposerError(f"${self.config.key_variable} holds characters that no HTTP header may have")
        return key

    def _posted(self, client: httpx.Client, body: dict[str, Any], key: str) -> bytes:
        """Send the request once and return what comes back within the time, all of it together."""
        import httpx

        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"{self.config.endpoint.rstrip('/')}/chat/completions"
        deadline = time.monotonic() + self.config.timeout
        try:
            with client.stream("POST", url, json=body, headers=headers) as response:
                status, chunks, size = response.status_code, [], 0
                if status != HTTPStatus.OK:
                    raise _refused(status, response.headers.get("retry-after", ""))
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > _MAXIMUM_BYTES:
                        raise ProposerError(f"the answer is longer than {_MAXIMUM_BYTES // 2**20} MiB")
                    # The client's own limit is for each piece: a server that sends byte by byte would never be late.
                    if time.monotonic() > deadline or self.closed.is_set():
                        raise _Transient(f"no whole answer within {self.config.timeout:g} s")
                return b"".join(chunks)
        except httpx.TimeoutException:
            raise _Transient(f"no answer within {self.config.timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _Transient(f"{url} cannot be reached ({type(error).__name__})") from None


def _refused(status: int, wait: str) -> Exception:
    # What a server says in words may repeat what it was sent, the key included: only the number is passed on.
    known = {one.value: one.phrase for one in HTTPStatus}
    reason = f"the endpoint answers {status} {known.get(status, '')}".rstrip()
    if status in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _Transient(reason, float(wait) if wait.isdecimal() else None)
    return ProposerError(reason)


def _answer_of(content: bytes) -> str:
    """Return the text of a chat completion, all its choices."""
    try:
        choices = json.loads(content)["choices"]
        said = [choice["message"]["content"] for choice in choices]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProposerError("the answer is not that of a chat completion") from None
    return "\n".join(text for text in said if isinstance(text, str))


def check_library() -> None:
    """Raise InputError if httpx is not installed."""
    if find_spec("httpx") is None:
        raise InputError("proposer.endpoint is set, which needs httpx: install it with pip install 'evolion[llm]'")


def chat_proposer(config: ProposerConfig, rules: Rules) -> ChatProposer:
    """Return the proposer of a configuration.

    Raises:
        InputError: If httpx, which it needs, is not installed.

    """
    check_library()
    return ChatProposer(config, language_text(rules))

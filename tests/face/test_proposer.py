import json
import subprocess
import sys
import time

import pytest
from chat_server import PROGRAM, chat_server, completion, fenced
from hypothesis import given
from hypothesis import strategies as st

import evolion
from evolion.config_algorithms import ProposerConfig
from evolion.config_text import read_config
from evolion.errors import ConfigError
from evolion.primitives.names import RESERVED
from evolion.primitives.ops import VOCABULARIES
from evolion.primitives.parser import parse
from evolion.proposer_http import ChatProposer
from evolion.proposer_prompt import INPUTS, language_text, programs_in, request_text
from evolion.search.proposals import Parent, ProposerError, Rules
from evolion.search_settings import settings_of

PARENTS = (Parent(3, PROGRAM.format(scale=2), (-1.0, 0.25)), Parent(0, PROGRAM.format(scale=1), (-0.0, 0.5)))
FIRST, SECOND = PROGRAM.format(scale=2), PROGRAM.format(scale=3)
KEY = "sk-of-a-person"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def proposer(endpoint: str, *, timeout: float = 5.0, key: str = "") -> ChatProposer:
    config = ProposerConfig(endpoint, "a-model", timeout=timeout, temperature=0.5)
    return ChatProposer(config, "the language", {"OPENAI_API_KEY": key} if key else {}, backoff=0.01)


def test_a_request_is_a_chat_completion() -> None:
    """Any server of that interface understands what it is asked, and sees the parents with their fitness."""
    with chat_server(lambda _: completion(fenced(FIRST, SECOND))) as server:
        assert proposer(server.endpoint + "/", key=KEY).propose(PARENTS, 2) == (FIRST, SECOND)
    (body,), (headers,), (path,) = server.requests, server.headers, server.paths
    assert path == "/v1/chat/completions"
    assert (body["model"], body["temperature"]) == ("a-model", 0.5)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert all(parent.text in body["messages"][1]["content"] for parent in PARENTS)
    assert "0.25 in stage 2 (candidate 3)" in body["messages"][1]["content"]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(body)


def test_without_a_key_none_is_sent() -> None:
    """A local model needs no key."""
    with chat_server(lambda _: completion(fenced(FIRST))) as server:
        assert proposer(server.endpoint).propose(PARENTS, 4) == (FIRST,)
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(status: int) -> None:
    """A busy server costs a moment, not the request."""
    with chat_server(lambda n: (status, b"busy") if n < 3 else completion(fenced(FIRST))) as server:
        assert proposer(server.endpoint).propose(PARENTS, 1) == (FIRST,)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "requests", "message"),
    [
        ((500, b"no"), 3, "500 Internal Server Error"),
        ((429, b"no"), 3, "429 Too Many Requests"),
        ((401, KEY.encode()), 1, "401 Unauthorized"),
        ((404, b"no"), 1, "404 Not Found"),
        ((302, b""), 1, "302 Found"),
        (b"no JSON", 1, "not that of a chat completion"),
        (b"[" * 100_000, 1, "not that of a chat completion"),
        (b'{"choices": 3}', 1, "not that of a chat completion"),
        (b"x" * 5_000_000, 1, "longer than 4 MiB"),
    ],
)
def test_a_refusal_is_one_error_without_secrets(answer: object, requests: int, message: str) -> None:
    """Attempts are bounded, and what a server repeats of a key reaches no log."""
    with chat_server(lambda _: answer) as server, pytest.raises(ProposerError, match=message) as error:  # type: ignore[arg-type,return-value]
        proposer(server.endpoint, key=KEY).propose(PARENTS, 1)
    assert len(server.requests) == requests
    assert KEY not in str(error.value)


def test_an_endpoint_that_hangs_is_given_up() -> None:
    """Time is bounded for each attempt."""
    began = time.monotonic()
    with chat_server(lambda _: (server.released.wait(20), completion(""))[1]) as server:
        with pytest.raises(ProposerError, match=r"no answer within 0\.1 s"):
            proposer(server.endpoint, timeout=0.1).propose(PARENTS, 1)
        server.released.set()
    assert time.monotonic() - began < 15


def test_nobody_there_is_one_error() -> None:
    """A wrong port reads as such."""
    with chat_server(lambda _: b"") as server:
        pass
    with pytest.raises(ProposerError, match=r"cannot be reached \(ConnectError\)"):
        proposer(server.endpoint).propose(PARENTS, 1)


@pytest.mark.parametrize("key", ["two\nlines", "sk-\u00e9"])
def test_a_key_that_no_header_may_have_is_not_repeated(key: str) -> None:
    """A broken key reads as such, and not in the log."""
    with pytest.raises(ProposerError, match="OPENAI_API_KEY holds characters") as error:
        proposer("http://127.0.0.1:9", key=key).propose(PARENTS, 1)
    assert key not in str(error.value)


def test_a_key_that_is_sent_back_is_taken_out() -> None:
    """Nothing that a server says brings the key into a run."""
    text = FIRST.replace("    m =", f"    # {KEY}\n    m =")
    with chat_server(lambda _: completion(fenced(text))) as server:
        assert KEY not in proposer(server.endpoint, key=KEY).propose(PARENTS, 1)[0]


def test_the_closed_proposer_does_not_wait() -> None:
    """The end of a search is not the end of a backoff."""
    with chat_server(lambda _: (500, b"")) as server:
        asked = proposer(server.endpoint)
        asked.closed.set()
        with pytest.raises(ProposerError):
            asked.propose(PARENTS, 1)
    assert len(server.requests) == 1


BARE = FIRST.removeprefix("@protected\n")


@pytest.mark.parametrize(
    ("answer", "programs"),
    [
        (fenced(FIRST, SECOND), (FIRST, SECOND)),
        (f"```\n{FIRST}\n{SECOND}\n```", (FIRST, SECOND)),
        (f"Sure.\n{FIRST}\nThat is all.", (FIRST,)),
        (f"```python\n{BARE}", (BARE,)),
        (f"1. One:\n   ```python\n{''.join(f'   {line}' for line in FIRST.splitlines(True))}   ```", (FIRST,)),
        (f"```python\nimport numpy as np\n\n# a rule\n{FIRST}print(train)\n```", (FIRST,)),
        (FIRST.replace("\n", "\r\n"), (FIRST,)),
        ("```json\n{}\n```\nI cannot.", ()),
        ("", ()),
    ],
)
def test_programs_are_found_in_answers(answer: str, programs: tuple[str, ...]) -> None:
    """Models wrap programs in prose, fences, lists and imports, and are cut off."""
    assert programs_in(answer) == programs


@given(st.text() | st.text(alphabet="`def train(w):\n @)#", max_size=200))
def test_any_answer_is_read(answer: str) -> None:
    """Whatever comes, there is no exception."""
    assert all("def train" in text for text in programs_in(answer))


def test_every_input_is_explained() -> None:
    """A new reserved input is told to models too."""
    assert set(INPUTS) == set(RESERVED)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("start", ["adamw_seed", "lion"])
def test_the_language_is_told_from_the_registries(vocabulary: str, start: str) -> None:
    """The model knows every op of the vocabulary and whether arithmetic is protected; the example is a program."""
    config, seed = read_config(overrides=[f"search.vocabulary={vocabulary}"]), evolion.known()[start]
    rules = Rules.of(seed, settings_of(config, seed).mutation)
    text = language_text(rules)
    lines = text.splitlines()
    assert sum(line.startswith("- ") for line in lines) == len(rules.inputs) + len(rules.vocabulary) - 1
    assert ("@protected" in text) == seed.protected
    (example,) = programs_in(text)
    assert parse(example).protected == seed.protected
    assert "hess" not in text
    assert f"Propose {7} different programs" in request_text(PARENTS, 7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('proposer.endpoint="ftp://host"', "endpoint is a base URL"),
        ('proposer.endpoint="http://me:secret@host/v1"', "without a user"),
        ('proposer.endpoint="http://host/v1?key=secret"', "without a user"),
        ('proposer.endpoint="http://host:x/v1"', "endpoint is a base URL"),
        ('proposer.endpoint="http://host/v1"', "model is not"),
        ('proposer.key_variable="sk-secret"', "never the key itself"),
        ("proposer.programs=51", "more than every"),
        ("proposer.temperature=3.0", "less than or equal to 2"),
        ("proposer.models=3", "did you mean 'model'"),
    ],
)
def test_a_wrong_configuration_is_one_error_without_secrets(override: str, message: str) -> None:
    """What is wrong is said before a run begins; a key in the wrong place is not printed."""
    with pytest.raises(ConfigError, match=message) as error:
        read_config(overrides=[override])
    assert "secret" not in str(error.value)


def test_controls_take_no_proposals() -> None:
    """A control that a model helped would be no control."""
    where = ['proposer.endpoint="http://host/v1"', "proposer.model=m"]
    assert read_config(overrides=where).proposer.endpoint == "http://host/v1"
    with pytest.raises(ConfigError, match="'random' is a control"):
        read_config(overrides=[*where, "search.algorithm=random"])


def test_nobody_pays_for_what_is_off() -> None:
    """A run without a proposer loads no HTTP library."""
    code = "import evolion.driver, evolion.proposals, sys; print('httpx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""The text of docstrings."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolion.proxies.data import docstrings
from evolion.proxies.data.docstrings import ALPHABET, decode, divided, docstrings_of, encode
from evolion.proxies.data.source import SPLITS, DataMissing
from evolion.proxies.data.uri import open_source

LONG = "Words " * 40
NO_RETURNS = st.text(
    st.characters(codec="ascii", exclude_characters="".join(map(chr, [*range(10), *range(11, 32), 127])))
)


@pytest.fixture
def small_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only package there is: two modules with text, of which one cannot be imported, tests, and a broken file."""
    folder = tmp_path / "numpy"
    (folder / "tests").mkdir(parents=True)
    texts = [f"{LONG}{number} more." for number in range(200)]
    functions = "\n".join(f'def f{number}():\n    """{text}"""\n' for number, text in enumerate(texts))
    (folder / "one.py").write_text(f"raise SystemExit\n{functions}")
    (folder / "two.py").write_text(f'"""{texts[0]}"""\n')
    (folder / "broken.py").write_text('def f(:\n    """ """')
    (folder / "tests" / "helper.py").write_text(f'"""{LONG} of a test"""\n')
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(docstrings, "_folders", lambda package: [folder] if package == "numpy" else [])
    docstrings.splits_of.cache_clear()
    open_source.cache_clear()
    yield folder
    docstrings.splits_of.cache_clear()
    open_source.cache_clear()


@given(NO_RETURNS)
def test_encoding_keeps_lines_and_printable_ascii(text: str) -> None:
    """What a model reads can be read back."""
    tokens = encode(text)
    assert decode(tokens) == text
    assert tokens.dtype == np.uint8


@given(st.text())
def test_any_text_has_tokens_of_the_alphabet(text: str) -> None:
    """Every character becomes exactly one token, whatever it is."""
    tokens = encode(text)
    assert len(tokens) == len(text)
    assert (tokens < ALPHABET).all()


def test_docstrings_are_found_by_parsing() -> None:
    """Modules, classes, functions and coroutines count; short texts, other strings and broken modules do not."""
    names = ("module", "class", "method", "async")
    module, kind, method, coroutine = (f"{LONG}{name}" for name in names)
    source = (
        f'"""{module}"""\nclass A:\n    """{kind}"""\n    def f(self):\n        """{method}"""\n        x = "{LONG}"\n'
        f'async def g():\n    """{coroutine}"""\ndef h():\n    """Short."""\n'
    )
    assert sorted(docstrings_of(source.encode())) == sorted([module, kind, method, coroutine])
    assert not list(docstrings_of(b"def f(:"))
    assert not list(docstrings_of(b"x = '\xff'"))


@given(st.sets(st.text(min_size=1, max_size=30), min_size=8, max_size=40))
def test_every_document_is_in_one_split(documents: set[str]) -> None:
    """Text is neither lost nor scored and trained on, and the order in which it was found does not matter."""
    parts = divided(sorted(documents))
    again = divided(sorted(documents, reverse=True))
    assert all(np.array_equal(parts[split], again[split]) for split in SPLITS)
    # Splits are of tokens: one document that is longer than the others together leaves nothing for the last.
    filled = sum(part.size > 0 for part in parts.values())
    # Two tokens between the documents of a split.
    assert sum(part.size for part in parts.values()) == sum(map(len, documents)) + 2 * (len(documents) - filled)


@pytest.mark.usefixtures("small_package")
def test_source_reads_packages_without_importing_them() -> None:
    """Windows of text come from sources alone, without tests and without a text twice, and say where from."""
    source = open_source("docstrings:?context=16")
    batch = source.gather("train", np.arange(10))
    assert np.array_equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])
    assert source.info.fields["targets"].classes == ALPHABET
    assert source.info.note.startswith("docstrings of numpy ")
    whole = "\n\n".join(decode(part) for part in docstrings.splits_of(docstrings.installed_versions()).values())
    assert "of a test" not in whole
    assert whole.count(" 0 more.") == 1
    assert whole.count(" more.") == 200


def test_text_is_read_from_the_cache(small_package: Path) -> None:
    """The sources are read once on a machine: a second process finds the text."""
    digest = open_source("docstrings:?context=16").info.digest
    (small_package / "one.py").unlink()
    docstrings.splits_of.cache_clear()
    open_source.cache_clear()
    assert open_source("docstrings:?context=16").info.digest == digest


def test_no_package_is_missing_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a source to read the data is not on this machine, which is said, not guessed."""
    monkeypatch.setattr(docstrings, "_folders", lambda package: [])
    open_source.cache_clear()
    with pytest.raises(DataMissing, match="none of numpy, scipy"):
        open_source("docstrings:?context=17")

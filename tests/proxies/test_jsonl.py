"""Text in lines of JSON."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_images import everything

from evolion.proxies.data.jsonl import open_uri
from evolion.proxies.data.source import SPLITS, DataError, DataMissing, Source
from evolion.proxies.data.uri import open_source, parse_uri

DOCUMENTS = [f"Text number {number}, which goes on for {'very ' * (number % 5)}long." for number in range(120)]


def opened(text: str) -> Source:
    uri = parse_uri(text)
    source = open_uri(uri)
    uri.finish()
    return source


def lines(documents: Sequence[str]) -> bytes:
    return b"".join(json.dumps({"text": text, "url": "http"}).encode() + b"\n" for text in documents)


def texts(source: Source) -> dict[str, set[bytes]]:
    """The documents of each split, of a source whose context is 1; a last byte may be missing."""
    found = {}
    for split, batch in everything(source).items():
        run = np.stack([batch["inputs"], batch["targets"]], axis=-1).astype(np.uint8).tobytes()
        found[str(split)] = {text for text in run.split(b"\0") if text}
    return found


def test_documents_become_bytes(tmp_path: Path) -> None:
    """Documents are in one split each, as UTF-8, int32 from 0 to 255, targets one later."""
    (tmp_path / "d.jsonl").write_bytes(lines(DOCUMENTS) + b"\n" + lines(["é"]))
    source = open_source(f"jsonl:{tmp_path}/d.jsonl?context=16")
    batch = source.gather("train", np.arange(3))
    assert batch["inputs"].shape == batch["targets"].shape == (3, 16)
    assert batch["inputs"].dtype == np.int32
    assert np.array_equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])
    assert source.info.fields["targets"].classes == 256
    found = texts(opened(f"jsonl:{tmp_path}/d.jsonl?context=1"))
    assert {text.encode() for text in [*DOCUMENTS, "é"]} == {text for split in SPLITS for text in found[split]}
    assert sum(len(part) for part in found.values()) == len(DOCUMENTS) + 1


def test_splits_follow_content_alone(tmp_path: Path) -> None:
    """The order of documents, the files they lie in and their compression move none to another split."""
    (tmp_path / "a.jsonl").write_bytes(lines(DOCUMENTS))
    (tmp_path / "b.0.json.gz").write_bytes(gzip.compress(lines(DOCUMENTS[:50:-1])))
    (tmp_path / "b.1.json").write_bytes(lines(DOCUMENTS[:51]))
    first, second = (opened(f"jsonl:{tmp_path}/{name}?context=1") for name in ("a.jsonl", "b.*"))
    assert texts(first)["validation"] == texts(second)["validation"]
    assert texts(first)["test"] == texts(second)["test"]


def test_compression_and_name_are_no_part_of_the_data(tmp_path: Path) -> None:
    """The digest is of the text and the context."""
    (tmp_path / "a.jsonl").write_bytes(lines(DOCUMENTS))
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(lines(DOCUMENTS)))
    (tmp_path / "c.jsonl").write_bytes(lines([*DOCUMENTS, "more"]))
    digests = [opened(f"jsonl:{tmp_path}/{name}").info.digest for name in ("a.jsonl", "b.json.gz", "c.jsonl")]
    digests.append(opened(f"jsonl:{tmp_path}/a.jsonl?context=8").info.digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_files_named_after_splits_stay_apart(tmp_path: Path) -> None:
    """`c4-train.…` and `c4-validation.…` are what their names say; half of validation is for testing."""
    (tmp_path / "c4-train.0.json.gz").write_bytes(gzip.compress(lines(DOCUMENTS[:80])))
    (tmp_path / "c4-validation.0.json.gz").write_bytes(gzip.compress(lines(DOCUMENTS[80:])))
    found = texts(opened(f"jsonl:{tmp_path}/c4-*.json.gz?context=1"))
    late = {text.encode() for text in DOCUMENTS[80:]}
    assert len(found["train"] & late) == 0
    assert found["validation"]
    assert found["test"]
    assert len((found["validation"] | found["test"]) & late) >= 38


GOOD = lines(DOCUMENTS)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (GOOD + b'{"text": "abc\n' + GOOD, "", r"d\.jsonl, line 121: this is no JSON .*; mend or remove the line"),
        (GOOD + b'{"text": "\xff"}\n', "", r"d\.jsonl, line 121: this is no JSON"),
        (b"[" * 100_000, "", r"d\.jsonl, line 1: this is no JSON"),
        (b'["text"]\n', "", r"d\.jsonl, line 1: this is no JSON object; write one object in each line"),
        (GOOD, "?text=body", r"d\.jsonl, line 1: there is no 'body' \(there is: text, url\); say text=KEY"),
        (b'{"text": null}\n', "", r"d\.jsonl, line 1: 'text' is NoneType, not text"),
        (b"", "", r"d\.jsonl: there is no document in it"),
        (b"\n \n", "", r"d\.jsonl: there is no document in it"),
        (lines(["short"]), "", r"too little text: the \w+ split has \d bytes, one window of context 64 takes 65; give"),
        (gzip.compress(GOOD)[:-20], "", r"d\.jsonl: it (ends too early|is damaged)"),
        (gzip.compress(GOOD)[:40] + b"\0" * 40 + gzip.compress(GOOD)[80:], "", r"d\.jsonl: it is damaged"),
        (GOOD, "?context=0", r"context is '0', not a whole number from 1"),
        (GOOD, "?txt=text", r"jsonl has no option 'txt'"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes, options: str, message: str) -> None:
    """Each thing that may be wrong with a file of text is one error with the file, the line and the mend."""
    (tmp_path / "d.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=message):
        opened(f"jsonl:{tmp_path}/d.jsonl{options}")


def test_absent_files_are_missing_data(tmp_path: Path) -> None:
    """A pattern without a match is data that is not there."""
    with pytest.raises(DataMissing, match=r"d\.\*\.json: no such file"):
        opened(f"jsonl:{tmp_path}/d.*.json")


def test_a_folder_stands_for_its_files(tmp_path: Path) -> None:
    """A folder is read as the JSON files in it."""
    content: dict[str, Any] = {"a.json": lines(DOCUMENTS), "notes.md": b"none"}
    for name, text in content.items():
        (tmp_path / name).write_bytes(text)
    assert opened(f"jsonl:{tmp_path}").info.digest == opened(f"jsonl:{tmp_path}/a.json").info.digest

"""Files of tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_images import everything

from evolion.proxies.data.source import DataError, DataMissing, Source
from evolion.proxies.data.token_bin import open_uri
from evolion.proxies.data.uri import open_source, parse_uri

LLM_C = {"u2": (20240520, 1), "u4": (20240801, 7)}


def opened(text: str) -> Source:
    uri = parse_uri(text)
    source = open_uri(uri)
    uri.finish()
    return source


def header(count: int, dtype: str = "u2", **changes: int) -> bytes:
    words = np.zeros(256, "<i4")
    words[:3] = changes.get("magic", LLM_C[dtype][0]), changes.get("version", LLM_C[dtype][1]), count
    return words.tobytes()


def written(path: Path, tokens: Any, dtype: str = "u2", head: bytes = b"") -> Path:
    path.write_bytes(head + np.asarray(tokens).astype(f"<{dtype}").tobytes())
    return path


def test_windows_of_a_bare_file(tmp_path: Path) -> None:
    """nanoGPT's layout: windows follow one another, the last hundredths are for validation and testing."""
    written(tmp_path / "d.bin", np.arange(2003))
    source = open_source(f"bin:{tmp_path}/d.bin?context=9&vocabulary=3000")
    assert source.info.examples == {"train": 196, "validation": 2, "test": 2}
    assert source.info.fields["inputs"].classes == 3000
    parts = everything(source)
    assert parts["train"]["inputs"][1].tolist() == list(range(10, 19))
    assert parts["train"]["targets"][1].tolist() == list(range(11, 20))
    firsts = np.concatenate([parts[split]["inputs"][:, 0] for split in ("train", "validation", "test")])
    assert firsts.tolist() == list(range(0, 2000, 10))


@pytest.mark.parametrize("dtype", ["u2", "u4"])
def test_files_of_llm_c(tmp_path: Path, dtype: str) -> None:
    """The header is checked and left out; both widths of tokens are read."""
    tokens = np.arange(50_000, 50_300)
    written(tmp_path / "f_train_000001.bin", tokens[:100], dtype, header(100, dtype))
    written(tmp_path / "f_train_000002.bin", tokens[100:200], dtype, header(100, dtype))
    written(tmp_path / "f_val_000000.bin", tokens[200:], dtype, header(100, dtype))
    source = opened(f"bin:{tmp_path}/f_*.bin?dtype={dtype}&header=1024&context=8&vocabulary=50304")
    assert source.info.examples == {"train": 22, "validation": 6, "test": 5}
    parts = everything(source)
    expected = [*range(50_000, 50_099, 9), *range(50_100, 50_199, 9)]
    assert parts["train"]["inputs"][:, 0].tolist() == expected
    assert parts["validation"]["inputs"][:, 0].tolist() == list(range(50_200, 50_254, 9))
    assert parts["test"]["inputs"][:, 0].tolist() == list(range(50_254, 50_299, 9))


def test_layout_is_no_part_of_the_data(tmp_path: Path) -> None:
    """A header changes nothing; another token or context does."""
    tokens = np.arange(1000)
    written(tmp_path / "a.bin", tokens)
    written(tmp_path / "b.bin", tokens, head=header(1000))
    written(tmp_path / "c.bin", tokens[::-1])
    digests = [opened(f"bin:{tmp_path}/{rest}").info.digest for rest in ("a.bin", "b.bin?header=1024", "c.bin")]
    digests.append(opened(f"bin:{tmp_path}/a.bin?context=5").info.digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_test_files_are_kept(tmp_path: Path) -> None:
    """Where files for testing are there, only validation comes out of training."""
    written(tmp_path / "train.bin", np.arange(900))
    written(tmp_path / "test.bin", np.arange(900, 1000))
    source = opened(f"bin:{tmp_path}/*.bin?context=8")
    assert source.info.examples == {"train": 99, "validation": 1, "test": 11}
    written(tmp_path / "val.bin", np.arange(900, 1000))
    assert opened(f"bin:{tmp_path}/*.bin?context=8").info.examples == {"train": 100, "validation": 11, "test": 11}


MANY = np.arange(1000)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", "", r"d\.bin: it is empty; copy or download it again"),
        (b"abc", "", r"d\.bin: its 3 bytes are no whole number of u2 tokens; .* or say dtype=u4"),
        (MANY.astype("<u2").tobytes(), "?vocabulary=900", r"d\.bin: token 900 is 900, outside the vocabulary of 900"),
        (np.array([9, 70_000], "<u4").tobytes(), "?dtype=u4", r"d\.bin: token 1 is 70000, outside .* 50304"),
        (header(10), "", r"d\.bin: it starts with a header of llm\.c; say header=1024"),
        (header(0), "?header=1024", r"d\.bin: there are no tokens in it"),
        (header(2)[:500], "?header=1024", r"d\.bin: it ends within the header of 1024 bytes"),
        (header(9) + bytes(10), "?header=1024", r"d\.bin: by its header it holds 9 tokens, by its size 5; copy"),
        (header(5, magic=1) + bytes(10), "?header=1024", r"version are 1 and 1, not 20240520 and 1; .* say header=0"),
        (header(5, version=2) + bytes(10), "?header=1024", r"are 20240520 and 2, not 20240520 and 1"),
        (header(5) + bytes(20), "?header=1024&dtype=u4", r"d\.bin: by its header the tokens are u2; say dtype=u2"),
        (bytes(200), "?context=98", r"too little text: 100 tokens for .* each takes at least one window of 99; give"),
        (bytes(200), "?header=7", r"header is 7; write 0 \(nanoGPT\) or 1024 \(llm\.c\)"),
        (bytes(200), "?dtype=i8", r"dtype is 'i8'; write u2 or u4"),
        (bytes(2000), "?vocab=5", r"bin has no option 'vocab'"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes, options: str, message: str) -> None:
    """Each thing that may be wrong with a file of tokens is one error with the file, the place and the mend."""
    (tmp_path / "d.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        opened(f"bin:{tmp_path}/d.bin{options}")


def test_training_is_needed(tmp_path: Path) -> None:
    """Tokens that are published for validation are never trained on, and absent files are missing data."""
    written(tmp_path / "val.bin", MANY)
    with pytest.raises(DataError, match="no file is for training by its name"):
        opened(f"bin:{tmp_path}/val.bin")
    with pytest.raises(DataMissing, match=r"train\.bin: no such file"):
        opened(f"bin:{tmp_path}/train.bin")


def test_tokens_stay_on_disk(tmp_path: Path) -> None:
    """Files are mapped, not read into memory: what is written later is what is gathered."""
    path = written(tmp_path / "d.bin", np.zeros(10_000))
    source = opened(f"bin:{tmp_path}/d.bin?context=4")
    with path.open("r+b") as handle:
        handle.write(np.full(5, 7, "<u2").tobytes())
    assert source.gather("train", np.array([0]))["inputs"].tolist() == [[7, 7, 7, 7]]

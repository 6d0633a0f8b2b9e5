"""`bin:/data/fineweb_*.bin?header=1024&context=64&vocabulary=50304`: files of tokens, memory-mapped.

Those of nanoGPT are bare 16-bit tokens. Those of llm.c and modded-nanogpt start with 256 int32 numbers (1,024 bytes):
magic number, version, number of tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.file_splits import files_of, split_named
from evolion.proxies.data.source import SPLITS, DataError, Source, Split
from evolion.proxies.data.splitting import reading
from evolion.proxies.data.text_windows import windows
from evolion.proxies.data.uri import Uri

HEADER_BYTES = 1024
MAGIC = {"u2": (20240520, 1), "u4": (20240801, 7)}
"""Magic number and version of the files of llm.c (dev/data/data_common.py), by the type of their tokens."""

_SHARE = 100
_CHUNK = 2**22


def open_uri(uri: Uri) -> Source:
    """Tokens (inputs) and the tokens that follow them (targets), int32 of shape (context,).

    Options: `dtype` (u2 or u4), `header` (bytes: 0 or 1024), `context`, `vocabulary` (number of tokens). Files are for
    training or validation by their names; of validation the later half is for testing. Without files for validation
    the last windows but one hundredth are for validation, the last hundredth for testing.

    Raises:
        DataMissing: If a file is not there.
        DataError: If one is cut short, has another header, or holds a token outside the vocabulary; or if there is too
            little text.

    """
    dtype = uri.text_option("dtype", "u2")
    if dtype not in MAGIC:
        raise DataError(f"{uri.text}: dtype is {dtype!r}; write u2 or u4")
    header = uri.integer("header", 0, 0)
    if header not in (0, HEADER_BYTES):
        raise DataError(f"{uri.text}: header is {header}; write 0 (nanoGPT) or {HEADER_BYTES} (llm.c)")
    context = uri.integer("context", 64, 1, 65536)
    vocabulary = uri.integer("vocabulary", 50304, 2, 2**31 - 1)
    named: dict[Split, list[NDArray[Any]]] = {split: [] for split in SPLITS}
    for path in files_of(str(Path(uri.path).expanduser()), "*.bin"):
        tokens = _tokens(path, dtype, header)
        _check(path, tokens, vocabulary)
        named[split_named(path.name)].append(tokens)
    return windows(_divided(uri.path, named, context), context, name=uri.path, vocabulary=vocabulary)


def _tokens(path: Path, dtype: str, header: int) -> NDArray[Any]:
    with reading(path), path.open("rb") as handle:
        head = handle.read(HEADER_BYTES)
    size = path.stat().st_size
    if not size:
        raise DataError(f"{path}: it is empty; copy or download it again")
    words = np.frombuffer(head[: len(head) // 4 * 4], "<i4")
    magics = {magic: kind for kind, (magic, _) in MAGIC.items()}
    if not header and len(head) == HEADER_BYTES and int(words[0]) in magics:
        raise DataError(f"{path}: it starts with a header of llm.c; say header={HEADER_BYTES}")
    body, odd = divmod(size - header, int(dtype[1]))
    if header:
        _check_header(path, words, dtype, body, magics)
    if odd:
        raise DataError(f"{path}: its {size - header} bytes are no whole number of {dtype} tokens; {_mend(dtype)}")
    if not body:
        raise DataError(f"{path}: there are no tokens in it; copy or download it again")
    with reading(path):
        return np.memmap(path, f"<{dtype}", "r", header, (body,))


def _mend(dtype: str) -> str:
    return f"copy or download it again, or say dtype={'u4' if dtype == 'u2' else 'u2'} if that is what it holds"


def _check_header(path: Path, words: NDArray[Any], dtype: str, body: int, magics: dict[int, str]) -> None:
    if len(words) < HEADER_BYTES // 4:
        raise DataError(f"{path}: it ends within the header of {HEADER_BYTES} bytes; copy or download it again")
    magic, version, count = (int(word) for word in words[:3])
    if magics.get(magic, dtype) != dtype:
        raise DataError(f"{path}: by its header the tokens are {magics[magic]}; say dtype={magics[magic]}")
    if (magic, version) != MAGIC[dtype]:
        wanted = "{} and {}".format(*MAGIC[dtype])
        raise DataError(
            f"{path}: its magic number and version are {magic} and {version}, not {wanted}; it is no file of llm.c: "
            "for bare tokens say header=0"
        )
    if count != body:
        raise DataError(f"{path}: by its header it holds {count} tokens, by its size {body}; copy or download it again")


def _check(path: Path, tokens: NDArray[Any], vocabulary: int) -> None:
    for start in range(0, len(tokens), _CHUNK):
        chunk = tokens[start : start + _CHUNK]
        if int(chunk.max()) >= vocabulary:
            place = int(np.argmax(chunk >= vocabulary))
            raise DataError(
                f"{path}: token {start + place} is {chunk[place]}, outside the vocabulary of {vocabulary}; "
                "say vocabulary=N, or another dtype or header"
            )


def _divided(name: str, named: dict[Split, list[NDArray[Any]]], context: int) -> dict[Split, Sequence[NDArray[Any]]]:
    if not named["train"]:
        raise DataError(f"{name}: no file is for training by its name; give those for training as well")
    if named["validation"] and named["test"]:
        return dict(named)
    if named["validation"]:
        first = -(-_count(named["validation"], context) // 2)
        validation = _cut(named["validation"], context, 0, first)
        return {**named, "validation": validation, "test": _cut(named["validation"], context, first, None)}
    total = _count(named["train"], context)
    if total < 3 - bool(named["test"]):
        raise DataError(
            f"{name}: too little text: {sum(map(len, named['train']))} tokens for training, validation and testing; "
            f"each takes at least one window of {context + 1}; give more text or a smaller context"
        )
    share = max(total // _SHARE, 1)
    last = total if named["test"] else total - share
    return {
        "train": _cut(named["train"], context, 0, last - share),
        "validation": _cut(named["train"], context, last - share, last),
        "test": named["test"] or _cut(named["train"], context, last, None),
    }


def _count(parts: Sequence[NDArray[Any]], context: int) -> int:
    return sum(len(part) // (context + 1) for part in parts)


def _cut(parts: Sequence[NDArray[Any]], context: int, first: int, last: int | None) -> list[NDArray[Any]]:
    """The part of each array that holds the windows from `first` to before `last`, counted through all arrays."""
    cut, before = [], 0
    for part in parts:
        count = len(part) // (context + 1)
        start = max(first - before, 0)
        stop = count if last is None else min(max(last - before, 0), count)
        if start < stop:
            cut.append(part[start * (context + 1) : stop * (context + 1)])
        before += count
    return cut

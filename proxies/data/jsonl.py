"""`jsonl:/data/c4-train.*.json.gz?text=text&context=64`: text, one JSON object in each line, as bytes.

Whole documents are assigned to splits, by the names of the files (`c4-validation.…`) and by their content. They are
held in memory.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evolion.proxies.data.file_splits import files_of, split_named
from evolion.proxies.data.source import DataError, Source, Split
from evolion.proxies.data.splitting import reading
from evolion.proxies.data.text_windows import document_windows
from evolion.proxies.data.uri import Uri

_GZIP = b"\x1f\x8b"


def open_uri(uri: Uri) -> Source:
    """Bytes (inputs) and the bytes that follow them (targets), int32 of shape (context,), 0 to 255.

    Options: `text`, the key of the text, and `context`. Files may be compressed by gzip.

    Raises:
        DataMissing: If a file is not there.
        DataError: If one is damaged, a line is no JSON object with the text, or there is too little text.

    """
    key = uri.text_option("text", "text")
    context = uri.integer("context", 64, 1, 65536)
    paths = files_of(str(Path(uri.path).expanduser()), "*.json*")
    documents: list[bytes] = []
    named: list[Split] = []
    for path in paths:
        before = len(documents)
        documents += _documents(path, key)
        if len(documents) == before:
            raise DataError(f"{path}: there is no document in it; remove it, or download it again")
        named += [split_named(path.name)] * (len(documents) - before)
    return document_windows(uri.path, documents, named, context)


def _documents(path: Path, key: str) -> Iterator[bytes]:
    with reading(path), path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        with gzip.open(raw) if packed else raw as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _text(f"{path}, line {number}", line, key).encode("utf-8", "replace")


def _text(where: str, line: bytes, key: str) -> str:
    try:
        document: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: this is no JSON ({error}); mend or remove the line") from None
    if not isinstance(document, dict):
        raise DataError(f"{where}: this is no JSON object; write one object in each line")
    if key not in document:
        raise DataError(f"{where}: there is no {key!r} (there is: {', '.join(sorted(document))}); say text=KEY")
    if not isinstance(document[key], str):
        raise DataError(f"{where}: {key!r} is {type(document[key]).__name__}, not text; mend it, or say text=KEY")
    text: str = document[key]
    return text

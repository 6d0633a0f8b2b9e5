"""`parquet:/data/*.parquet?image=image.bytes&label=label` and `arrow:/data/cifar10`: tables of Hugging Face.

`parquet:` takes files, `arrow:` a folder of `datasets.save_to_disk` or `.arrow` files. The columns are images and
labels (`image`, `label`), text (`text`), or numbers (`inputs`, `targets`). Needs pyarrow, the extra `arrow`, and not
the library `datasets`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolion.proxies.data.arrow_tables import (
    TableFile,
    arrow_files,
    arrow_module,
    column,
    declared_classes,
    parquet_files,
)
from evolion.proxies.data.file_splits import divide
from evolion.proxies.data.images_from_bytes import Record, image_options, image_source
from evolion.proxies.data.source import SPLITS, DataError, Source, Split
from evolion.proxies.data.splitting import (
    Part,
    check_divided,
    check_labels,
    class_count,
    digests_of,
    stored_source,
)
from evolion.proxies.data.text_windows import document_windows
from evolion.proxies.data.uri import Uri


def open_uri(uri: Uri) -> Source:
    """The examples of tables, divided by the names of files (`train-…`, `test-…`, `validation-…`) and by record.

    Options, of one of three kinds:
    - `image` and `label` (columns; `image.bytes` for the field of a struct), `size`, `channels`, `classes`;
    - `text` (a column) and `context`: bytes, int32 of shape (context,);
    - `inputs` (a column of numbers or of equally long lists, or several columns: `a,b`), `targets`, `classes`.
      Whole numbers as targets are classes. Inputs are float32, or stay uint8.

    Raises:
        DataMissing: If there are no files.
        DataError: If pyarrow is missing, a file is damaged, a column is not there (names those that are), or what it
            holds cannot be used.

    """
    path = str(Path(uri.path).expanduser())
    files = parquet_files(path) if uri.scheme == "parquet" else arrow_files(path)
    for file in files:
        if not sum(file.rows):
            raise DataError(f"{file.path}: there are no rows in it; remove it, or download it again")
    if "text" in uri.options:
        return _text(uri, files)
    if "inputs" in uri.options:
        return _numbers(uri, files)
    return _images(uri, files)


def _text(uri: Uri, files: Sequence[TableFile]) -> Source:
    name, context = uri.text_option("text", "text"), uri.integer("context", 64, 1, 65536)
    documents: list[bytes] = []
    named: list[Split] = []
    for file, number in _chunks(files):
        array = column(file, number, name)
        types = arrow_module("pyarrow").types
        if not (types.is_string(array.type) or types.is_large_string(array.type)):
            raise DataError(f"{file.path}: column {name!r} is {array.type}, not text; say text=COLUMN")
        documents += [text.encode("utf-8", "replace") for text in array.to_pylist()]
        named += [file.split] * len(array)
    return document_windows(uri.path, documents, named, context)


def _images(uri: Uri, files: Sequence[TableFile]) -> Source:
    image, label = uri.text_option("image", "image"), uri.text_option("label", "label")
    options = image_options(uri)
    options = replace(options, classes=options.classes or declared_classes(files, label))
    chunks = list(_chunks(files))
    starts = np.cumsum([0, *(file.rows[number] for file, number in chunks)])

    def records() -> Iterator[Record]:
        for file, number in chunks:
            labels = _labels(file, number, label).tolist()
            encoded = _encoded(file, number, image)
            before = sum(file.rows[:number])
            for row, (content, its_label) in enumerate(zip(encoded, labels, strict=True), before):
                yield Record(f"{file.path}, row {row}", str(file.path), content.as_py(), its_label, file.split)

    def read(numbers: NDArray[np.int64]) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = [("", b"")] * len(numbers)
        owner = np.searchsorted(starts, numbers, side="right") - 1
        for chunk in np.unique(owner):
            file, number = chunks[chunk]
            encoded, before = _encoded(file, number, image), sum(file.rows[:number])
            for place in np.flatnonzero(owner == chunk):
                row = int(numbers[place] - starts[chunk])
                found[place] = f"{file.path}, row {before + row}", encoded[row].as_py()
        return found

    return image_source(uri.path, records(), read, options)


def _numbers(uri: Uri, files: Sequence[TableFile]) -> Source:
    inputs, target = uri.text_option("inputs", "inputs").split(","), uri.text_option("targets", "targets")
    classes = uri.integer("classes", 0, 0) or declared_classes(files, target)
    parts: dict[str, list[NDArray[Any]]] = {"inputs": [], "targets": []}
    named: list[Split] = []
    for file, number in _chunks(files):
        columns = [_values(file, number, name) for name in inputs]
        rows = columns[0] if len(columns) == 1 and columns[0].ndim > 1 else _stacked(file, inputs, columns)
        parts["inputs"].append(rows if rows.dtype == np.uint8 else _float32(rows))
        targets = _values(file, number, target)
        if targets.ndim == 1 and targets.dtype.kind in "iu":
            where = f"{file.path}, from row {sum(file.rows[:number])} on"
            targets = check_labels(where, targets, classes or 2**31 - 1)
        parts["targets"].append(targets if targets.dtype == np.int32 else _float32(targets))
        for name, arrays in parts.items():
            if arrays[-1].shape[1:] != arrays[0].shape[1:] or arrays[-1].dtype != arrays[0].dtype:
                raise DataError(f"{file.path}: {name} differ in shape or type from those of {files[0].path}")
        named += [file.split] * len(targets)
    whole = {name: np.concatenate(each) for name, each in parts.items()}
    labelled = whole["targets"].dtype == np.int32
    places = divide(uri.path, digests_of(whole), named)
    check_divided(uri.path, {split: len(places[split]) for split in SPLITS})
    divided = {split: Part(uri.path, {name: array[places[split]] for name, array in whole.items()}) for split in SPLITS}
    counted = (classes or class_count(uri.path, whole["targets"])) if labelled else None
    return stored_source(divided, classes=counted)


def _stacked(file: TableFile, names: Sequence[str], columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    for name, values in zip(names, columns, strict=True):
        if values.ndim > 1:
            raise DataError(f"{file.path}: column {name!r} holds lists; give it as the only one of inputs")
    return np.stack(columns, axis=1)


def _float32(values: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which stored_source refuses
        return values.astype(np.float32)


def _chunks(files: Sequence[TableFile]) -> Iterator[tuple[TableFile, int]]:
    """Every chunk that has rows: its file and its number in the file."""
    for file in files:
        yield from ((file, number) for number, rows in enumerate(file.rows) if rows)


def _encoded(file: TableFile, number: int, name: str) -> Any:
    """The encoded images of a chunk; a struct stands for its field `bytes`."""
    types = arrow_module("pyarrow").types
    array = column(file, number, name)
    if types.is_struct(array.type):
        array = column(file, number, f"{name}.bytes")
    if not (types.is_binary(array.type) or types.is_large_binary(array.type)):
        raise DataError(f"{file.path}: column {name!r} is {array.type}, not encoded images; say image=COLUMN.bytes")
    return array


def _labels(file: TableFile, number: int, name: str) -> NDArray[np.int64]:
    array = column(file, number, name)
    if not arrow_module("pyarrow").types.is_integer(array.type):
        raise DataError(f"{file.path}: column {name!r} is {array.type}, not whole numbers; say label=COLUMN")
    labels: NDArray[np.int64] = array.to_numpy(zero_copy_only=False).astype(np.int64)
    return labels


def _values(file: TableFile, number: int, name: str) -> NDArray[Any]:
    """A column of numbers, or of lists of them that are equally long; rows first."""
    arrow, compute = arrow_module("pyarrow"), arrow_module("pyarrow.compute")
    types = arrow.types
    array = column(file, number, name)
    shape = [len(array)]
    while types.is_list(array.type) or types.is_large_list(array.type) or types.is_fixed_size_list(array.type):
        lengths = compute.list_value_length(array).unique().to_pylist()
        if len(lengths) > 1:
            raise DataError(f"{file.path}: the lists of {name!r} differ in length: {lengths[0]} and {lengths[1]}")
        shape.append(lengths[0])
        array = array.flatten()
        if array.null_count:
            raise DataError(f"{file.path}: {name!r} has missing values; remove those rows")
    if not (types.is_integer(array.type) or types.is_floating(array.type)):
        raise DataError(f"{file.path}: column {name!r} is {array.type}, not numbers; choose another")
    return np.asarray(array.to_numpy(zero_copy_only=False)).reshape(shape)

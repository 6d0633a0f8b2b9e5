"""Tables in Parquet and Arrow files, read in chunks by pyarrow, the extra `arrow`."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from evolion.proxies.data.file_splits import NAMES, files_of, split_named
from evolion.proxies.data.source import DataError, DataMissing, Split
from evolion.proxies.data.splitting import reading

_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_AGAIN = "copy or download it again"


@dataclass(frozen=True, slots=True)
class TableFile:
    """One file.

    Attributes:
        path: Where it is.
        split: The split it is published in.
        schema: Its columns, a pyarrow.Schema.
        rows: How many rows each of its chunks has.
        load: The chunk of a number with the named columns, a pyarrow.Table.

    """

    path: Path
    split: Split
    schema: Any
    rows: tuple[int, ...]
    load: Callable[[int, tuple[str, ...]], Any]


def arrow_module(name: str) -> Any:
    """`pyarrow` or a module of it. Raises DataError if it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise DataError("Parquet and Arrow files are read by pyarrow: pip install 'evolion[arrow]'") from None


def parquet_files(pattern: str) -> list[TableFile]:
    """Parquet files, for training, validation or testing by their names."""
    arrow_module("pyarrow.parquet")
    return [_parquet(path) for path in files_of(pattern, "*.parquet")]


def arrow_files(pattern: str) -> list[TableFile]:
    """Arrow files, or those of a folder of `datasets.save_to_disk`, with or without folders of splits.

    Raises:
        DataMissing: If there are none.
        DataError: If a folder lacks a file or a split that it lists, or a file is damaged.

    """
    arrow_module("pyarrow")
    folder = Path(pattern)
    if not folder.is_dir():
        return [_arrow(path, split_named(path.name)) for path in files_of(pattern)]
    listed = _listed(folder / "dataset_dict.json", "splits")
    inner = {each: folder / each for each in map(str, listed) if each.lower() in NAMES} or {
        each.name: each for each in sorted(folder.iterdir()) if each.is_dir() and each.name.lower() in NAMES
    }
    if inner:
        return [_arrow(path, NAMES[name.lower()]) for name, each in inner.items() for path in _saved(each)]
    return [_arrow(path, split_named(path.name)) for path in _saved(folder)]


def _saved(folder: Path) -> list[Path]:
    """The files of one split, in the order that `state.json` lists them."""
    listed = _listed(folder / "state.json", "_data_files")
    files = [str(each["filename"] if isinstance(each, dict) and "filename" in each else each) for each in listed]
    for name in files:
        if Path(name).name != name or not (folder / name).is_file():
            raise DataError(f"{folder}: state.json lists {name}, which is not there; copy the whole folder again")
    found = [folder / name for name in files] or sorted(folder.glob("*.arrow"))
    if not found:
        raise DataMissing(f"{folder}: no .arrow file in it; give the folder that save_to_disk has made")
    return found


def _listed(path: Path, key: str) -> list[Any]:
    if not path.is_file():
        return []
    with reading(path):
        content = path.read_bytes()
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError):
        raise DataError(f"{path}: it is no JSON; {_AGAIN}") from None
    values = found.get(key) if isinstance(found, dict) else None
    if not isinstance(values, list):
        raise DataError(f"{path}: it has no list {key!r}; {_AGAIN}")
    return values


@contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    arrow = arrow_module("pyarrow")
    try:
        yield
    except FileNotFoundError:
        raise DataMissing(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise DataError(f"{path}: it may not be read; change its permissions") from None
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: it is no {kind} file, or damaged ({what}); {_AGAIN}") from None


def _parquet(path: Path) -> TableFile:
    with _reading(path, "Parquet"), arrow_module("pyarrow.parquet").ParquetFile(path) as file:
        groups = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
        return TableFile(path, split_named(path.name), file.schema_arrow, tuple(groups), partial(_row_group, path))


@lru_cache(maxsize=2)
def _row_group(path: Path, number: int, columns: tuple[str, ...]) -> Any:
    with _reading(path, "Parquet"), arrow_module("pyarrow.parquet").ParquetFile(path, memory_map=True) as file:
        return file.read_row_group(number, columns=list(columns))


def _arrow(path: Path, split: Split) -> TableFile:
    arrow = arrow_module("pyarrow")
    with _reading(path, "Arrow"):
        mapped = arrow.memory_map(str(path))
        if mapped.read(6) == b"ARROW1":
            table = arrow.ipc.open_file(mapped).read_all()
        else:
            mapped.seek(max(mapped.size() - len(_END_OF_STREAM), 0))
            ended = mapped.read() == _END_OF_STREAM
            mapped.seek(0)
            table = arrow.ipc.open_stream(mapped).read_all()
            # A stream cut between two batches reads as a shorter one.
            if not ended:
                raise DataError(f"{path}: it ends too early; {_AGAIN}")
    batches = [batch for batch in table.to_batches() if batch.num_rows]

    def load(number: int, columns: tuple[str, ...]) -> Any:
        return arrow.Table.from_batches([batches[number]]).select(list(columns))

    return TableFile(path, split, table.schema, tuple(batch.num_rows for batch in batches), load)


def column(file: TableFile, number: int, name: str) -> Any:
    """One column of a chunk, a pyarrow.Array; `image.bytes` is the field of a struct.

    Raises:
        DataError: If the file has no such column; names those there are. If a value is missing; names its row.

    """
    root, path = _place(file, name)
    chunk = file.load(number, (root,)).column(root)
    for field in path:
        chunk = arrow_module("pyarrow.compute").struct_field(chunk, field)
    array = arrow_module("pyarrow").concat_arrays(chunk.chunks)
    if array.null_count:
        missing = array.is_null().to_pylist().index(True)
        raise DataError(f"{file.path}, row {sum(file.rows[:number]) + missing}: {name} is missing; remove the row")
    return array


def _place(file: TableFile, name: str) -> tuple[str, Sequence[str]]:
    arrow = arrow_module("pyarrow")
    if name in file.schema.names:
        return name, ()
    root, *path = name.split(".")
    kind: Any = file.schema.field(root).type if root in file.schema.names else None
    for field in path:
        names = (
            [kind.field(i).name for i in range(kind.num_fields)]
            if kind is not None and arrow.types.is_struct(kind)
            else []
        )
        kind = kind.field(field).type if field in names else None
    if kind is None:
        raise DataError(f"{file.path}: there is no column {name!r} (there is: {', '.join(_names(file.schema))})")
    return root, path


def _names(schema: Any) -> Iterator[str]:
    for field in schema:
        if arrow_module("pyarrow").types.is_struct(field.type):
            yield from (f"{field.name}.{field.type.field(i).name}" for i in range(field.type.num_fields))
        else:
            yield field.name


def declared_classes(files: Sequence[TableFile], name: str) -> int:
    """The number of classes that the library `datasets` has noted for a column; 0 where there is no such note."""
    for file in files:
        try:
            value: Any = json.loads((file.schema.metadata or {})[b"huggingface"])
            for key in ("info", "features", name, "names"):
                value = value[key]
            return len(value)
        except (KeyError, ValueError, TypeError, IndexError, RecursionError):
            continue
    return 0

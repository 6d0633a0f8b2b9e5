"""Parquet and Arrow files."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_images import contents, encoded, everything, pixels_of

from evolion.proxies.data.arrow import open_uri
from evolion.proxies.data.source import SPLITS, DataError, DataMissing, Source
from evolion.proxies.data.uri import open_source, parse_uri


def opened(text: str) -> Source:
    uri = parse_uri(text)
    source = open_uri(uri)
    uri.finish()
    return source


def images(numbers: Sequence[int], names: Sequence[str] | None = None) -> pa.Table:
    """The layout of MNIST, CIFAR-10 and ImageNet on the Hugging Face hub."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "image": pa.array([{"bytes": encoded(pixels_of(n)), "path": None} for n in numbers], kind),
            "label": pa.array([n % 3 for n in numbers], pa.int64()),
        }
    )
    if names is None:
        return table
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def parquet(path: Path, table: pa.Table, rows: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)
    return path


def stream(path: Path, table: pa.Table, make: Callable[..., Any] = pa.ipc.new_stream) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, make(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=30)
    return path


def saved(folder: Path, tables: Sequence[pa.Table]) -> Path:
    """A folder as `datasets.save_to_disk` writes it."""
    names = [f"data-{place:05d}-of-{len(tables):05d}.arrow" for place in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        stream(folder / name, table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


EXPECTED = {(pixels_of(n).tobytes(), np.int32(n % 3).tobytes()) for n in range(120)}


def test_images_of_parquet_files(tmp_path: Path) -> None:
    """Every image of every file is there once beside its label, in the order asked for."""
    parquet(tmp_path / "a.parquet", images(range(70)))
    parquet(tmp_path / "b.parquet", images(range(70, 120)))
    source = open_source(f"parquet:{tmp_path}/*.parquet?image=image.bytes&label=label")
    assert set().union(*contents(source).values()) == EXPECTED
    assert source.info.fields["inputs"].shape == (6, 6, 3)
    assert source.info.fields["targets"].classes == 3
    batch = everything(source)["train"]
    order = np.arange(len(batch["targets"]))[::-1]
    assert np.array_equal(source.gather("train", order)["inputs"], batch["inputs"][order])


def test_all_layouts_are_the_same_data(tmp_path: Path) -> None:
    """Parquet, a saved folder, one Arrow stream and one Arrow file hold equal examples with equal digests."""
    parquet(tmp_path / "p" / "a.parquet", images(range(120)), rows=17)
    saved(tmp_path / "ds", [images(range(50)), images(range(50, 120))])
    stream(tmp_path / "one.arrow", images(range(120)))
    stream(tmp_path / "file.arrow", images(range(120)), pa.ipc.new_file)
    uris = [f"parquet:{tmp_path}/p", *(f"arrow:{tmp_path}/{name}" for name in ("ds", "one.arrow", "file.arrow"))]
    uris.append(f"parquet:{tmp_path}/p/a.parquet?image=image.bytes")
    sources = [opened(uri) for uri in uris]
    assert len({source.info.digest for source in sources}) == 1
    for source in sources[1:]:
        assert np.array_equal(everything(source)["test"]["inputs"], everything(sources[0])["test"]["inputs"])


def test_splits_follow_content_alone(tmp_path: Path) -> None:
    """The order of rows moves none to another split."""
    parquet(tmp_path / "a.parquet", images(range(120)))
    parquet(tmp_path / "b.parquet", images(range(119, -1, -1)))
    assert contents(opened(f"parquet:{tmp_path}/a.parquet")) == contents(opened(f"parquet:{tmp_path}/b.parquet"))


def test_published_splits_stay(tmp_path: Path) -> None:
    """`train-…`, `validation-…` and `test-…` files, and folders of splits, are what their names say."""
    tables = {"train": images(range(90)), "validation": images(range(90, 105)), "test": images(range(105, 120))}
    for split, table in tables.items():
        parquet(tmp_path / "p" / f"{split}-00000-of-00001.parquet", table)
        saved(tmp_path / "ds" / split, [table])
    (tmp_path / "ds" / "dataset_dict.json").write_text(json.dumps({"splits": list(tables)}))
    first, second = opened(f"parquet:{tmp_path}/p/*.parquet"), opened(f"arrow:{tmp_path}/ds")
    assert first.info.examples == second.info.examples == {"train": 90, "validation": 15, "test": 15}
    assert first.info.digest == second.info.digest
    (tmp_path / "ds" / "dataset_dict.json").unlink()
    assert opened(f"arrow:{tmp_path}/ds").info.digest == first.info.digest


def test_classes_are_those_the_file_declares(tmp_path: Path) -> None:
    """A note of class names counts, and a label beyond it is an error, not a further class."""
    parquet(tmp_path / "a.parquet", images(range(120), ["a", "b", "c", "d"]))
    assert opened(f"parquet:{tmp_path}/a.parquet").info.fields["targets"].classes == 4
    parquet(tmp_path / "b.parquet", images(range(120), ["a", "b"]))
    with pytest.raises(DataError, match=r"b\.parquet: the label of example 2 is 2, outside 0 to 1"):
        opened(f"parquet:{tmp_path}/b.parquet")


def test_numbers(tmp_path: Path) -> None:
    """Columns of numbers or of equal lists become float32 inputs; whole targets are classes, others values."""
    rows = np.arange(200)
    table = pa.table(
        {
            "a": rows * 0.5,
            "b": rows.astype(np.int32),
            "list": pa.array([[[n, n + 1], [n, 0]] for n in rows.tolist()]),
            "pixels": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(400) % 256, pa.uint8()), 2),
            "class": rows % 4,
        }
    )
    parquet(tmp_path / "a.parquet", table)
    uri = f"parquet:{tmp_path}/a.parquet"
    source = opened(f"{uri}?inputs=a,b&targets=class")
    batch = everything(source)["train"]
    assert batch["inputs"].dtype == np.float32
    assert np.array_equal(batch["inputs"][:, 0] * 2, batch["inputs"][:, 1])
    assert np.array_equal(batch["inputs"][:, 1] % 4, batch["targets"])
    assert source.info.fields["targets"].classes == 4
    assert sum(source.info.examples[split] or 0 for split in SPLITS) == 200
    values = opened(f"{uri}?inputs=list&targets=a")
    assert values.info.fields["inputs"].shape == (2, 2)
    assert values.info.fields["targets"].dtype == "float32"
    batch = everything(values)["test"]
    assert np.array_equal(batch["inputs"][:, 0, 1], batch["targets"] * 2 + 1)
    assert opened(f"{uri}?inputs=pixels&targets=class").info.fields["inputs"].dtype == "uint8"
    assert opened(f"{uri}?inputs=a&targets=class&classes=9").info.fields["inputs"].shape == (1,)


def test_text(tmp_path: Path) -> None:
    """A column of text is read as `jsonl:` reads it."""
    documents = [f"Document {n} of some length, {'and ' * (n % 6)}so on." for n in range(120)]
    parquet(tmp_path / "a.parquet", pa.table({"text": documents}))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    source = opened(f"parquet:{tmp_path}/a.parquet?text=text&context=16")
    assert source.info.digest == open_source(f"jsonl:{tmp_path}/a.jsonl?context=16").info.digest
    with pytest.raises(DataError, match=r"too little text: .* one window of context 9999 takes 10000"):
        opened(f"parquet:{tmp_path}/a.parquet?text=text&context=9999")


def _table(**columns: Any) -> Callable[[Path], Any]:
    return lambda path: parquet(path, pa.table(columns))


def _cut(end: int) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(parquet(path, images(range(100))).read_bytes()[:end])


def _damaged(path: Path) -> None:
    content = parquet(path, images(range(100))).read_bytes()
    path.write_bytes(content[:100] + b"\0" * 200 + content[300:])


ENCODED = encoded(pixels_of(0))


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda path: path.write_bytes(b""), "", r"a\.parquet: it is no Parquet file, or damaged \(.*\); copy"),
        (lambda path: path.write_bytes(b"text" * 99), "", r"a\.parquet: it is no Parquet file, or damaged"),
        (_cut(-40), "", r"a\.parquet: it is no Parquet file, or damaged"),
        (_damaged, "", r"a\.parquet: it is no Parquet file, or damaged"),
        (lambda path: parquet(path, images([])), "", r"a\.parquet: there are no rows in it"),
        (_table(img=[ENCODED], label=[1]), "", r"a\.parquet: there is no column 'image' \(there is: img, label\)"),
        (
            lambda path: parquet(path, images([1])),
            "label=x",
            r"no column 'x' \(there is: image.bytes, image.path, label",
        ),
        (lambda path: parquet(path, images([1])), "image=image.b", r"no column 'image.b' \(there is: image.bytes"),
        (_table(image=[1], label=[1]), "", r"column 'image' is int64, not encoded images; say image=COLUMN.bytes"),
        (_table(image=[b"no"], label=[1]), "", r"a\.parquet, row 0: it is no image that Pillow knows"),
        (_table(image=[ENCODED, None], label=[1, 1]), "", r"a\.parquet, row 1: image is missing; remove the row"),
        (_table(image=[ENCODED], label=["cat"]), "", r"column 'label' is string, not whole numbers; say label=COLUMN"),
        (_table(image=[ENCODED, ENCODED], label=[0, -1]), "", r"a\.parquet: the label of example 1 is -1, outside 0"),
        (_table(image=[ENCODED], label=[7]), "", r"labels go up to 7 .* classes=N"),
        (_table(image=[ENCODED], label=[7]), "classes=5", r"a\.parquet: the label of example 0 is 7, outside 0 to 4"),
        (_table(image=[ENCODED], label=[0]), "", r"1 examples are too few to divide"),
        (_table(x=[[1, 2], [3]], y=[1, 2]), "inputs=x&targets=y", r"the lists of 'x' differ in length: 2 and 1"),
        (_table(x=[[1, None]], y=[1]), "inputs=x&targets=y", r"a\.parquet: 'x' has missing values"),
        (_table(x=["a"], y=[1]), "inputs=x&targets=y", r"column 'x' is string, not numbers"),
        (_table(x=[[1]], z=[2], y=[1]), "inputs=x,z&targets=y", r"column 'x' holds lists; give it as the only one"),
        (_table(x=[1.0] * 99 + [np.inf], y=np.arange(100) * 0.1), "inputs=x&targets=y", r"inputs that are not finite"),
        (_table(x=[1.0], y=[-1]), "inputs=x&targets=y", r"a\.parquet, from row 0 on: the label of example 0 is -1"),
        (_table(x=[1.0], y=[1]), "inputs=x&targets=q", r"no column 'q' \(there is: x, y\)"),
        (_table(t=[1]), "text=t", r"column 't' is int64, not text; say text=COLUMN"),
        (_table(t=["a"] * 9), "text=t&size=3", r"too little text|no option 'size'"),
        (lambda path: parquet(path, images(range(100))), "context=3", r"parquet has no option 'context'"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, make: Callable[[Path], Any], options: str, message: str) -> None:
    """Each thing that may be wrong with a table is one error with the file, the column or row, and the mend."""
    make(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        opened(f"parquet:{tmp_path}/a.parquet{'?' if options else ''}{options}")


@pytest.mark.parametrize("keep", [0, 3, 100, 600, -8, -100])
@pytest.mark.parametrize("make", [pa.ipc.new_stream, pa.ipc.new_file])
def test_cut_arrow_files_are_named(tmp_path: Path, make: Callable[..., Any], keep: int) -> None:
    """A file that ends early is never read as a shorter one, not even where it is cut between two batches."""
    path = stream(tmp_path / "a.arrow", images(range(100)), make)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.arrow: it (is no Arrow file, or damaged|ends too early).*; copy"):
        opened(f"arrow:{path}")


def test_incomplete_folders_are_named(tmp_path: Path) -> None:
    """A saved folder without one of its files or splits is not read as a smaller set."""
    saved(tmp_path / "ds" / "train", [images(range(50)), images(range(50, 100))])
    (tmp_path / "ds" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(DataMissing, match=r"ds/test: no \.arrow file in it"):
        opened(f"arrow:{tmp_path}/ds")
    (tmp_path / "ds" / "dataset_dict.json").write_text("{")
    with pytest.raises(DataError, match=r"dataset_dict\.json: it is no JSON"):
        opened(f"arrow:{tmp_path}/ds")
    (tmp_path / "ds" / "train" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"state\.json lists data-00001-of-00002\.arrow, which is not there; copy"):
        opened(f"arrow:{tmp_path}/ds/train")
    (tmp_path / "ds" / "train" / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')
    with pytest.raises(DataError, match=r"state\.json lists \.\./x\.arrow"):
        opened(f"arrow:{tmp_path}/ds/train")


@pytest.mark.parametrize("scheme", ["parquet", "arrow"])
def test_absent_files_are_missing_data(tmp_path: Path, scheme: str) -> None:
    """What is not on this machine is told apart from what is broken."""
    for path in ("absent", "", "*.x"):
        with pytest.raises(DataMissing, match=r"no such file|no \.arrow file"):
            opened(f"{scheme}:{tmp_path}/{path}")


@pytest.mark.parametrize("scheme", ["parquet", "arrow"])
def test_without_pyarrow_one_line_says_what_to_install(
    tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyarrow is an extra: its absence is an error that names the extra."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"pip install 'evolion\[arrow\]'"):
        opened(f"{scheme}:{tmp_path}")

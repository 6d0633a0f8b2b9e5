"""Image folders, and the images of every source that holds them encoded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_images import contents, encoded, everything, pixels_of

from evolion.proxies.data.image_folder import open_uri
from evolion.proxies.data.images_from_bytes import decode
from evolion.proxies.data.source import DataError, DataMissing, Source
from evolion.proxies.data.uri import open_source, parse_uri


def opened(folder: Path, options: str = "") -> Source:
    uri = parse_uri(f"dir:{folder}{options}")
    source = open_uri(uri)
    uri.finish()
    return source


def fill(folder: Path, numbers: Any, shape: tuple[int, ...] = (6, 6, 3)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{number}.png").write_bytes(encoded(pixels_of(number, shape)))
    return folder


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    fill(tmp_path / "birds" / "wren", range(60))
    fill(tmp_path / "birds" / "crow", range(60, 120))
    (tmp_path / "birds" / "readme.txt").write_text("not an image")
    (tmp_path / "birds" / "crow" / ".DS_Store").write_bytes(b"\0")
    return tmp_path / "birds"


def test_pixels_and_classes_are_those_of_the_files(birds: Path) -> None:
    """Every image is there once, unchanged, with the number of its folder among the sorted names."""
    source = open_source(f"dir:{birds}")
    expected = {
        (pixels_of(number).tobytes(), np.int32(number < 60).tobytes()) for number in range(120)
    }  # crow 0, wren 1
    parts = contents(source)
    assert set().union(*parts.values()) == expected
    assert sum(len(part) for part in parts.values()) == 120
    assert source.info.fields["inputs"].shape == (6, 6, 3)
    assert source.info.fields["targets"].classes == 2


def test_any_order_of_numbers_gives_the_same_examples(birds: Path) -> None:
    """Gathering reads files in their own order and yet answers in the order asked for."""
    source = opened(birds)
    batch = everything(source)["train"]
    order = np.arange(len(batch["targets"]))[::-1]
    assert np.array_equal(source.gather("train", order)["inputs"], batch["inputs"][order])
    assert source.gather("test", np.array([], np.int64))["inputs"].shape == (0, 6, 6, 3)
    with pytest.raises(IndexError, match="asked for 9999"):
        source.gather("train", np.array([9999]))


def test_splits_follow_content_alone(birds: Path) -> None:
    """Renaming files, and so their order, moves no image to another split; a further image moves none either."""
    before = contents(opened(birds))
    for path in list((birds / "wren").iterdir()):
        path.rename(path.with_name(f"{999 - int(path.stem)}.png"))
    assert contents(opened(birds)) == before
    fill(birds / "crow", [300])
    after = contents(opened(birds))
    assert all(before[split] <= after[split] for split in before)


def test_digest_follows_content_and_layout(birds: Path) -> None:
    """Another pixel, label or size is other data; the same folder elsewhere is the same."""
    first = opened(birds).info.digest
    elsewhere = birds.rename(birds.with_name("moved"))
    assert opened(elsewhere).info.digest == first
    others = {opened(elsewhere, "?size=4").info.digest, opened(elsewhere, "?channels=1").info.digest}
    (elsewhere / "wren" / "0.png").rename(elsewhere / "crow" / "0.png")
    assert len({first, *others, opened(elsewhere).info.digest}) == 4


def test_published_splits_stay(tmp_path: Path) -> None:
    """Folders of splits are kept; an absent validation comes out of training, an absent test out of validation."""
    for top, start in (("train", 0), ("test", 100)):
        fill(tmp_path / "a" / top / "x", range(start, start + 50))
        fill(tmp_path / "a" / top / "y", range(start + 50, start + 100))
    parts = contents(opened(tmp_path / "a"))
    assert len(parts["test"]) == 100
    assert len(parts["train"]) + len(parts["validation"]) == 100 > len(parts["train"])
    (tmp_path / "a" / "test").rename(tmp_path / "a" / "val")
    parts = contents(opened(tmp_path / "a"))
    assert len(parts["train"]) == 100
    assert len(parts["test"]) + len(parts["validation"]) == 100 > len(parts["test"]) > 0


def test_sizes_and_channels_are_brought_about(tmp_path: Path) -> None:
    """Images that differ in size and mode become equal ones where a size is given; grey ones alone stay grey."""
    fill(tmp_path / "grey" / "a", range(100), (5, 5))
    assert opened(tmp_path / "grey").info.fields["inputs"].shape == (5, 5, 1)
    assert opened(tmp_path / "grey", "?channels=3").info.fields["inputs"].shape == (5, 5, 3)
    fill(tmp_path / "grey" / "a", range(100, 110), (6, 9, 3))
    with pytest.raises(DataError, match=r"differ in size: .*png has \dx\d pixels, .*; say .* size=32"):
        opened(tmp_path / "grey")
    assert opened(tmp_path / "grey", "?size=4").gather("train", np.arange(5))["inputs"].shape == (5, 4, 4, 3)


def test_the_middle_is_cut_out_and_resized() -> None:
    """Another shape is cut to its middle, not squeezed, before it is resized."""
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 200
    assert (decode(encoded(wide), "x", (4, 4, 1)) == 200).all()
    assert decode(encoded(wide), "x", (2, 2, 3)).min() > 150  # a third of 200, were it squeezed


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_all_modes_become_bytes(tmp_path: Path, mode: str) -> None:
    """Palettes, transparency and CMYK are converted like any other image."""
    Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode).save(path := tmp_path / "x.tiff")
    assert decode(path.read_bytes(), "x", (4, 4, 3)).min() == 255
    assert decode(path.read_bytes(), "x", (4, 4, 1)).min() == 255


def _empty_file(folder: Path) -> None:
    (folder / "wren" / "0.png").write_bytes(b"")


def _not_an_image(folder: Path) -> None:
    (folder / "wren" / "0.png").write_bytes(b"GIF? no")


def _sixteen_bits(folder: Path) -> None:
    Image.fromarray(np.full((6, 6), 40000, np.uint16)).save(folder / "wren" / "0.png")


def _empty_class(folder: Path) -> None:
    (folder / "gull").mkdir()


def _no_classes(folder: Path) -> None:
    for path in folder.glob("*/*"):
        path.unlink()
    (folder / "wren").rmdir()
    (folder / "crow").rmdir()


def _unknown_class(folder: Path) -> None:
    fill(folder / "train" / "wren", range(9))
    fill(folder / "test" / "wrenn", range(9))


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (_empty_file, "", r"wren/0\.png: it is empty; remove or replace it"),
        (_not_an_image, "", r"wren/0\.png: it is no image that Pillow knows; remove"),
        (_sixteen_bits, "", r"wren/0\.png: its pixels have over 8 bits \(mode I;16\); convert it"),
        (_empty_class, "", r"gull: there is no image in it; remove the folder"),
        (_no_classes, "", r"birds: it has no folder for each class; sort"),
        (_unknown_class, "", r"test/wrenn: the images for training know no class 'wrenn'"),
        (lambda folder: None, "?classes=1", r"wren: the label of example 0 is 1, outside 0 to 0"),
        (lambda folder: None, "?channels=2", r"channels is 2; write 1 for grey or 3 for colour"),
        (lambda folder: None, "?sise=4", r"dir has no option 'sise' \(it has: channels, classes, size\)"),
    ],
)
def test_bad_folders_are_named(birds: Path, spoil: Any, options: str, message: str) -> None:
    """Each thing that may be wrong with a folder is one error with the place and the mend."""
    spoil(birds)
    with pytest.raises(DataError, match=message):
        opened(birds, options)


def test_few_images_are_refused(tmp_path: Path) -> None:
    """A set that leaves a split empty is refused, not used without a validation."""
    fill(tmp_path / "x" / "a", range(2))
    with pytest.raises(DataError, match="2 examples are too few to divide"):
        opened(tmp_path / "x")


def test_a_cut_image_is_named_when_it_is_gathered(birds: Path) -> None:
    """An image whose head is whole and whose body is not is found out, with its file, when it is decoded."""
    whole = (birds / "wren" / "0.png").read_bytes()
    for path in birds.glob("*/*.png"):
        path.write_bytes(path.read_bytes()[: len(whole) - 25])
    source = opened(birds)
    with pytest.raises(DataError, match=r"birds/.*\.png: the image is damaged .*; copy or download it again"):
        source.gather("train", np.arange(1))


def test_an_absent_folder_is_missing_data(tmp_path: Path) -> None:
    """What is not on this machine is told apart from what is broken."""
    with pytest.raises(DataMissing, match="no such folder"):
        opened(tmp_path / "absent")

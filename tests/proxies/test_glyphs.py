"""The rendered characters."""

import numpy as np
import pytest

from evolion.proxies.data import glyphs
from evolion.proxies.data.glyphs import CHARACTERS, FACES, generate, masters_of
from evolion.proxies.data.source import SPLITS, DataError, DataMissing
from evolion.proxies.data.streams import raw_stream
from evolion.proxies.data.uri import open_source

URI = "glyphs:?size=16"
PINNED_TARGETS = [26, 57, 16, 3, 19, 44, 48, 33]
PINNED_SUM = 1942991


def test_faces_are_held_out() -> None:
    """Training never sees a face that validation or test is scored on."""
    faces = [face for split in SPLITS for face in FACES[split]]
    assert len(set(faces)) == len(faces) == 21


@pytest.mark.parametrize("split", SPLITS)
def test_every_character_is_drawn(split: glyphs.Split) -> None:
    """Each character of each face has ink, touches no border, and equals no other of its face."""
    masters = masters_of(split, 16)
    assert masters.shape == (len(FACES[split]), len(CHARACTERS), 33, 33)
    assert (masters.max(axis=(2, 3)) > 100).all()
    assert not masters[:, :, [0, -1]].any()
    assert not masters[:, :, :, [0, -1]].any()
    for face in masters:
        assert len({master.tobytes() for master in face}) == len(CHARACTERS)


def test_examples_look_like_their_characters() -> None:
    """The nearest mean image names the character far more often than chance: labels and pixels belong together."""
    source = open_source(URI)
    known, asked = (source.gather("train", np.arange(start, start + 8192)) for start in (0, 8192))
    means = np.stack([known["inputs"][known["targets"] == label].mean(axis=0).ravel() for label in range(62)])
    pixels = asked["inputs"].reshape(8192, -1).astype(np.float64)
    distance = np.square(means).sum(axis=1) - 2 * pixels @ means.T
    assert (distance.argmin(axis=1) == asked["targets"]).mean() > 0.15


def test_fields_are_as_said() -> None:
    """Images are bytes of the size asked for, and every character comes."""
    source = open_source(URI)
    batch = source.gather("validation", np.arange(4096))
    assert (batch["inputs"].dtype, batch["inputs"].shape) == (np.uint8, (4096, 16, 16, 1))
    assert len(np.unique(batch["targets"])) == len(CHARACTERS)
    assert source.info.fields["inputs"].shape == (16, 16, 1)
    assert "matplotlib" in source.info.note


def test_splits_differ() -> None:
    """The splits are different images, not the same under another name."""
    source = open_source(URI)
    images = {source.gather(split, np.arange(8))["inputs"].tobytes() for split in SPLITS}
    assert len(images) == 3


def test_equal_masters_give_equal_examples() -> None:
    """The examples of given masters are pinned: they come of whole numbers, so only the drawing may differ."""
    masters = (np.arange(2 * 62 * 33 * 33) * 7919 % 256).astype(np.uint8).reshape(2, 62, 33, 33)
    batch = generate(masters, 16, raw_stream(19, 0, 0), 64)
    assert [int(value) for value in batch["targets"][:8]] == PINNED_TARGETS
    assert batch["inputs"].astype(np.int64).sum() == PINNED_SUM


def test_an_unturned_master_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without turn, shift and noise an example is every second pixel of its master, midpoints interpolated."""
    for name in ("_TURN", "_SCALE", "_SHEAR", "_SHIFT", "_NOISE"):
        monkeypatch.setattr(glyphs, name, 0)
    masters = masters_of("validation", 16)
    batch = generate(masters, 16, raw_stream(19, 1), 32)
    expected = masters[:, :, 1::2, 1::2].reshape(len(masters), len(CHARACTERS), 16, 16)
    for image, target in zip(batch["inputs"][..., 0], batch["targets"], strict=True):
        assert any(np.array_equal(image, face[target]) for face in expected)


def test_wrong_size_is_one_error() -> None:
    """A size that the canvas is no multiple of is refused, with those that work."""
    with pytest.raises(DataError, match="size is 20: choose 8, 16, 32 or 64"):
        open_source("glyphs:?size=20")


def test_absent_fonts_are_missing_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the fonts the task is left out, by an error that says which file and what to do."""
    monkeypatch.setattr("matplotlib.get_data_path", lambda: "/nowhere")
    with pytest.raises(DataMissing, match=r"/nowhere/fonts/ttf/Absent\.ttf.*reinstall"):
        glyphs._face("Absent")

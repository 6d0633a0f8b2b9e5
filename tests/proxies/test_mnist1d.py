"""The generated one-dimensional digits."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from evolion.proxies.data.mnist1d import CLASSES, STROKES, generate
from evolion.proxies.data.source import DataError
from evolion.proxies.data.streams import integers, normal, raw_stream, uniform
from evolion.proxies.data.uri import open_source


def _signal(bits: np.random.PCG64) -> np.ndarray:
    """One signal by the recipe's own steps, before standardization; draws in the order of `generate`."""
    digit = int(integers(bits, CLASSES, (1,))[0])
    padding = 36 + int(integers(bits, 25, (1,))[0])
    shift = int(integers(bits, 48, (1,))[0])
    scale = 1 + 0.4 * (float(uniform(bits, (1,))[0]) - 0.5)
    shear = 0.75 * (float(uniform(bits, (1,))[0]) - 0.5)
    around, everywhere = normal(bits, (2, 72))
    stroke = np.array(STROKES[digit], float)
    stroke = stroke / stroke.std() / 6
    padded = np.concatenate([stroke - stroke[0], np.zeros(padding)])
    place = np.linspace(0, len(padded) - 1, 72)
    inside = np.roll(place < 12, shift)
    signal = np.roll(scale * np.interp(place, np.arange(len(padded)), padded), shift)
    signal = np.where(inside, signal, 0.25 * gaussian_filter1d(around, 2)) + 0.02 * everywhere
    signal = signal - shear * np.linspace(-0.5, 0.5, 72)
    return np.interp(np.linspace(0, 71, 40), np.arange(72), signal)


@pytest.mark.parametrize("place", range(12))
def test_signals_follow_the_recipe(place: int) -> None:
    """All signals at once are what the recipe gives one at a time: stretched, shifted, noisy, sheared, read anew."""
    signal = generate(raw_stream(12, 7, place), 1)["inputs"][0, :, 0] * 0.1465 + 0.0191
    assert np.allclose(signal, _signal(raw_stream(12, 7, place)), atol=1e-4)


def test_signals_are_standardized_and_digits_balanced() -> None:
    """Mean 0 and deviation 1 over everything; each digit is as frequent as the others."""
    batch = open_source("mnist1d:").gather("train", np.arange(20_000))
    assert batch["inputs"].shape == (20_000, 40, 1)
    assert abs(batch["inputs"].mean()) < 0.02
    assert batch["inputs"].std() == pytest.approx(1, abs=0.02)
    assert np.abs(np.bincount(batch["targets"], minlength=CLASSES) - 2000).max() < 5 * 2000**0.5


def test_values_are_rounded() -> None:
    """Values are multiples of 2**-12: the last bits of a machine's arithmetic do not reach the digest."""
    inputs = open_source("mnist1d:").gather("test", np.arange(100))["inputs"]
    assert np.array_equal(inputs * 4096, np.rint(inputs * 4096))


def test_strokes_differ() -> None:
    """No two digits are drawn nearly alike: each can be told from each."""
    strokes = np.array(STROKES)
    strokes = (strokes - strokes.mean(axis=1, keepdims=True)) / strokes.std(axis=1, keepdims=True)
    likeness = strokes @ strokes.T / strokes.shape[1]
    assert np.max(likeness - 2 * np.eye(CLASSES)) < 0.95


def test_takes_no_options() -> None:
    """An option that does nothing is refused."""
    with pytest.raises(DataError, match="no option 'size'"):
        open_source("mnist1d:?size=3")

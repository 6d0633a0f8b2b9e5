"""The data of regressions: laws that it follows, and that splits share nothing."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from evolion.proxies.data import collocation, quadratic, sample_images
from evolion.proxies.data.source import SPLITS, DataError, Split
from evolion.proxies.data.uri import open_source

MANY = np.arange(8192)


def test_teacher_inputs_follow_a_power_law() -> None:
    """Input i has variance i**-power, so that directions matter unequally in the way that is stated."""
    inputs = open_source("teacher:?inputs=16&width=8&power=1.5").gather("train", MANY)["inputs"]
    spectrum = inputs.var(axis=0) * np.arange(1, 17) ** 1.5
    assert np.abs(spectrum - 1).max() < 6 * np.sqrt(2 / len(MANY))


def test_teacher_targets_are_standardized() -> None:
    """The best constant has a loss of one, whatever the teacher, and noise adds to it what is said to be the floor."""
    plain, noisy = (open_source(f"teacher:?inputs=16&width=8&noise={noise}") for noise in (0, 0.5))
    targets = plain.gather("validation", MANY)["targets"]
    assert abs(targets.mean()) < 0.05
    assert targets.var() == pytest.approx(1, abs=0.06)
    assert (plain.info.floor, noisy.info.floor) == (0, 0.25)
    assert noisy.gather("validation", MANY)["targets"].var() == pytest.approx(1.25, abs=0.1)


def test_teacher_is_the_same_in_every_split() -> None:
    """Splits differ in their inputs alone: the function that is learnt is the one that is tested."""
    from evolion.proxies.data.teacher import teacher_of

    source, teacher = open_source("teacher:?inputs=16&width=8&power=1.5"), teacher_of(16, 8, 1.5)
    for split in SPLITS:
        batch = source.gather(split, np.arange(100))
        assert np.allclose(teacher(batch["inputs"]), batch["targets"], atol=2.0**-12)


def test_linear_regressions_can_be_answered() -> None:
    """Least squares on the pairs of a sequence gives its target: the floor is zero."""
    batch = open_source("linear-regression:?dimension=5&examples=20").gather("test", np.arange(50))
    for tokens, target in zip(batch["inputs"].astype(np.float64), batch["targets"], strict=True):
        weights = np.linalg.lstsq(tokens[:-1, :-1], tokens[:-1, -1], rcond=None)[0]
        assert tokens[-1, :-1] @ weights == pytest.approx(target[0], abs=1e-3)
        assert tokens[-1, -1] == 0


def test_linear_regressions_have_unit_variance() -> None:
    """Losses are shares of the variance."""
    targets = open_source("linear-regression:?dimension=5&examples=20").gather("train", MANY)["targets"]
    assert targets.var() == pytest.approx(1, abs=0.08)


def test_solution_solves_the_equation() -> None:
    """The residual of the known solution is zero, it keeps the boundary, and the right-hand side has mean square 1."""
    x, step, frequencies = np.linspace(0, 1, 2001), 1e-4, (1, 3, 6)
    before, here, after = (collocation.solution(x + move, frequencies) for move in (-step, 0, step))
    term = collocation.source_term(x, frequencies)
    assert np.abs((before - 2 * here + after) / step**2 + term).max() < 1e-4
    assert np.abs(here[[0, -1]]).max() < 1e-12
    assert np.trapezoid(term**2, x) == pytest.approx(1)


def test_collocation_points_fill_the_interval() -> None:
    """Points are uniform between the ends and bring the right-hand side at themselves."""
    batch = open_source("collocation:?frequencies=1-3-6").gather("train", MANY)
    counts = np.histogram(batch["inputs"], 8, (0, 1))[0]
    assert counts.sum() == len(MANY)
    assert np.abs(counts - 1024).max() < 5 * 32
    assert np.allclose(batch["targets"], collocation.source_term(batch["inputs"], (1, 3, 6)), atol=1e-4)


def test_collocation_points_of_splits_differ() -> None:
    """No point is both trained on and tested at, though there are many on a short line."""
    source = open_source("collocation:?frequencies=1-3-6")
    places = [set(source.gather(split, np.arange(50_000))["inputs"].ravel().tolist()) for split in SPLITS]
    assert len(set.union(*places)) == sum(map(len, places))


@pytest.mark.parametrize("split", SPLITS)
def test_noise_and_digit_add_up(split: Split) -> None:
    """What is left of an input without the noise that is asked for is a digit, of levels between 0.1 and 2."""
    batch = open_source("noisy-digits:?low=0.1&high=2").gather(split, np.arange(200))
    pixels, level = batch["inputs"][:, :-1].astype(np.float64), batch["inputs"][:, -1:].astype(np.float64)
    digits = pixels * np.sqrt(np.exp(2 * level) + 0.75**2) - np.exp(level) * batch["targets"]
    known = {row.tobytes() for row in load_digits().data.astype(np.uint8)}
    assert {row.tobytes() for row in np.rint(8 * digits + 8).astype(np.uint8)} <= known
    assert np.log(0.1) - 1e-3 < level.min() < level.max() < np.log(2) + 1e-3


def test_noise_of_quadratics_is_centred_with_the_stated_variance() -> None:
    """Bytes as numbers between -1 and 1 have mean zero and `VARIANCE` in each coordinate, independently."""
    noise = open_source("quadratic:?dimension=20").gather("train", MANY)["inputs"] / 127.5 - 1
    covariance = noise.T @ noise / len(MANY)
    assert np.abs(noise.mean(axis=0)).max() < 5 * np.sqrt(quadratic.VARIANCE / len(MANY))
    assert np.abs(covariance - quadratic.VARIANCE * np.eye(20)).max() < 5 / np.sqrt(len(MANY))


def test_evaluation_noise_cancels() -> None:
    """The examples of an evaluation split of a quadratic are opposite: noise does not move its loss."""
    source = open_source("quadratic:?dimension=20")
    for split in ("validation", "test"):
        first, second = source.gather(split, np.arange(2))["inputs"].astype(int)
        assert (first + second == 255).all()


@pytest.mark.parametrize(("size", "stride"), [(8, 2), (5, 3)])
def test_patches_of_different_splits_share_no_pixel(size: int, stride: int) -> None:
    """Overlapping patches would leak what is tested into what is trained on."""
    covered = np.zeros((3, 427, 640), np.bool_)
    for place, split in zip(covered, SPLITS, strict=True):
        for row, column in sample_images.corners(split, size, stride):
            assert row + size <= 427
            assert column + size <= 640
            place[row : row + size, column : column + size] = True
    assert covered.sum(axis=0).max() == 1
    shares = covered.mean(axis=(1, 2))
    assert shares[0] > 0.6
    assert shares[1:].min() > 0.05


def test_patches_are_of_the_photographs() -> None:
    """A patch is a square of an image, row by row with three colours each; none comes twice."""
    splits, image = sample_images.patches(8, 2), sample_images.photographs()["china"]
    row, column = sample_images.corners("train", 8, 2)[0]
    assert (splits["train"]["inputs"][0].reshape(8, 8, 3) == image[row : row + 8, column : column + 8]).all()
    rows = [row.tobytes() for split in SPLITS for row in splits[split]["inputs"]]
    assert len(set(rows)) == len(rows)


def test_fields_are_tested_between_pixels() -> None:
    """Every pixel is in one split, above one that is held out is one that is trained on, and colours are standard."""
    splits = sample_images.field("flower", 32)
    places = [{tuple(place) for place in np.rint((splits[split]["inputs"] + 1) * 15.5).astype(int)} for split in SPLITS]
    assert sum(map(len, places)) == len(set.union(*places)) == 32 * 32
    assert all((row - 1, column) in places[0] for held_out in places[1:] for row, column in held_out)
    colours = np.concatenate([splits[split]["targets"] for split in SPLITS])
    assert np.abs(colours.mean(axis=0)).max() < 1e-3
    assert np.abs(colours.std(axis=0) - 1).max() < 1e-3


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("collocation:?frequencies=1-x", "not whole numbers"),
        ("collocation:?frequencies=1-1", "names one twice"),
        ("noisy-digits:?low=2&high=1", "need 0 < low <= high"),
        ("image-field:?image=moon", "choose one of china, flower"),
        ("image-patches:?size=62", "not a whole number from 1 to 61"),
        ("teacher:?depth=3", "has no option 'depth'"),
    ],
)
def test_bad_options_are_refused(uri: str, message: str) -> None:
    """A wrong option is one error that quotes it and says what would do."""
    with pytest.raises(DataError, match=message):
        open_source(uri)

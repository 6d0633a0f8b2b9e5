import numpy as np
import pytest

import evolion
from evolion.config_algorithms import ParetoConfig, QualityDiversityConfig
from evolion.primitives.parser import parse
from evolion.primitives.properties import properties
from evolion.search.traits import DESCRIPTORS, EXPENSES, descriptors_of, expenses_of, gradient_degree


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("sgd", ("less than one number per parameter", "update multiplied as well", "entry by entry")),
        ("adamw", ("two", "update stays", "entry by entry")),
        ("lion", ("one", "update stays", "entry by entry")),
        ("muon", ("one", "update stays", "within a tensor")),
        ("lamb", ("two", "update stays", "within a tensor")),
    ],
)
def test_known_optimizers_lie_where_they_belong(name: str, labels: tuple[str, ...]) -> None:
    """The axes of the grid tell apart what people tell apart."""
    program = evolion.known()[name]
    names = ("memory", "scale", "reach")
    bins = descriptors_of(program, names)
    assert tuple(DESCRIPTORS[name].labels[bin] for name, bin in zip(names, bins, strict=True)) == labels


def test_every_known_program_has_a_place_and_expenses() -> None:
    """No program that a search may start from falls out of the grid or has no finite expense."""
    for program in evolion.known().values():
        bins = descriptors_of(program, tuple(DESCRIPTORS))
        assert all(0 <= bin < len(DESCRIPTORS[name].labels) for name, bin in zip(DESCRIPTORS, bins, strict=True))
        expenses = expenses_of(program, tuple(EXPENSES))
        assert np.isfinite(expenses).all()
        assert min(expenses) >= 0.0


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "rmsprop", "adagrad", "adafactor"])
def test_the_quick_look_agrees_with_the_report(name: str) -> None:
    """Where the property report says what a scaled loss does, the quick measurement says the same."""
    program = evolion.known()[name]
    report = properties(program)
    degree = gradient_degree(program)
    assert (degree == 0) == bool(report.gradient_scale_invariant)
    assert (degree == 1) == bool(report.gradient_scale_equivariant)


@pytest.mark.parametrize("update", ["g * 0", "square(g)", "exp(g)"])
def test_updates_of_neither_kind(update: str) -> None:
    """No update at all, a quadratic one and one that is not finite are neither, and raise nothing."""
    assert gradient_degree(parse(f"def train(g):\n    return {update}\n")) is None


def test_the_whole_network_is_the_widest_reach() -> None:
    """A global norm reaches further than the norm of a tensor."""
    for op, reach in (("norm", 1), ("global_norm", 2)):
        assert descriptors_of(parse(f"def train(g, lr):\n    return lr * g / {op}(g)\n"), ("reach",)) == (reach,)


def test_a_transcendental_function_takes_time() -> None:
    """An exponential is not counted as an addition."""
    plain, costly = (parse(f"def train(g):\n    return {update}\n") for update in ("g + g", "exp(g)"))
    assert expenses_of(costly, ("time",)) > expenses_of(plain, ("time",))


def test_the_configuration_names_every_row() -> None:
    """What can be chosen is what there is."""
    assert QualityDiversityConfig().descriptors == tuple(DESCRIPTORS)
    assert ParetoConfig().objectives == tuple(EXPENSES)

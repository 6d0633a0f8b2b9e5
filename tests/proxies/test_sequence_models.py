"""The catalogue of language, sequences, graphs and the ladder."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evolion.proxies.catalogue import graphs, ladder, language, sequences
from evolion.proxies.catalogue.ladder import TOKENS_PER_PARAMETER, non_embedding_parameters
from evolion.proxies.models.transformer import LanguageModel
from evolion.proxies.modifiers import RUNGS
from evolion.proxies.registry import get_spec
from evolion.proxies.spec import TaskSpec

SPECS = (*language.SPECS, *sequences.SPECS, *graphs.SPECS)
NAMED = {"30k": 3e4, "100k": 1e5, "300k": 3e5, "1m": 1e6, "3m": 3e6, "10m": 1e7, "30m": 3e7}
KNOBS = {"width": 2.0, "depth": 1.0, "horizon": 1.0, "batch": 1.0}


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_rungs_multiply_the_compute(spec: TaskSpec, rung: str) -> None:
    """A rung called 10x costs about ten times as much: width counts twice, the other knobs once."""
    factor = math.prod(value ** KNOBS[knob] for knob, value in spec.rungs[rung].items())
    assert factor == pytest.approx(float(rung.removesuffix("x")), rel=0.2)
    assert get_spec(f"{spec.name}:{rung}").sizes["width"] > spec.sizes["width"]  # type: ignore[operator]


@pytest.mark.parametrize("spec", ladder.SPECS, ids=lambda spec: spec.name)
def test_ladder_has_the_sizes_it_is_named_after(spec: TaskSpec) -> None:
    """The blocks of the model hold as many weights as the name says, within 15 %; the horizon follows."""
    model = LanguageModel(**spec.sizes)  # type: ignore[arg-type]
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    kernels = [
        leaf.size
        for path, leaf in jax.tree.leaves_with_path(shapes)
        if path[0].key.startswith("Block") and path[-1].key == "kernel"
    ]
    assert sum(kernels) == non_embedding_parameters(int(spec.sizes["depth"]), int(spec.sizes["width"]))  # type: ignore[arg-type]
    assert sum(kernels) == pytest.approx(NAMED[spec.name.removeprefix("ladder-")], rel=0.15)
    tokens = spec.steps * spec.batch_size * ladder.CONTEXT
    assert tokens == pytest.approx(TOKENS_PER_PARAMETER * sum(kernels), rel=0.01)


def test_ladder_changes_size_alone() -> None:
    """All rungs read the same language, with larger batches and lower rates the larger they are."""
    assert len({spec.data for spec in ladder.SPECS}) == 1
    for smaller, larger in zip(ladder.SPECS, ladder.SPECS[1:], strict=False):
        assert smaller.batch_size < larger.batch_size
        assert smaller.steps < larger.steps
        assert smaller.learning_rates[1] > larger.learning_rates[1]
    assert [spec.name for spec in ladder.SPECS] == [f"ladder-{size}" for size in NAMED]


@pytest.mark.parametrize("spec", [*SPECS, *ladder.SPECS], ids=lambda spec: spec.name)
def test_rates_are_spaced_by_about_three(spec: TaskSpec) -> None:
    """Three rates around AdamW's best, in rising order."""
    low, middle, high = spec.learning_rates
    assert np.allclose([middle / low, high / middle], 3, rtol=0.15)

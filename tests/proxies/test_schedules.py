"""Learning-rate schedules."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolion.proxies.schedules import multipliers, warmup_cosine


@given(st.integers(1, 3000), st.floats(0, 0.9))
def test_multipliers_rise_to_one_and_fall(steps: int, warmup: float) -> None:
    """Warm-up is a straight line to exactly 1, the decay falls towards 0 and no step is wasted on 0."""
    table = multipliers(steps, warmup)
    rise = max(1, round(warmup * steps))
    assert table.shape == (steps,)
    assert table.dtype == np.float32
    assert table[rise - 1] == 1
    assert np.allclose(table[:rise], np.arange(1, rise + 1) / rise)
    assert (np.diff(table[rise - 1 :]) < 0).all()
    assert table.min() > 0


def test_half_way_down() -> None:
    """The cosine passes one half in the middle of the decay."""
    assert multipliers(100, 0.05)[4 + 48] == pytest.approx(0.5)


def test_schedule_reads_the_table() -> None:
    """An optax schedule counts updates from 0, works traced and not, and stays at 0 after its horizon."""
    schedule = warmup_cosine(3e-2, 40)
    traced = jax.jit(jax.vmap(schedule))(np.arange(60, dtype=np.int32))
    assert np.allclose(traced[:40], 3e-2 * multipliers(40))
    assert not traced[40:].any()
    assert float(schedule(7)) == pytest.approx(float(traced[7]))


@pytest.mark.parametrize(("steps", "warmup", "complaint"), [(0, 0.05, "steps is 0"), (10, 1.0, "warmup is 1.0")])
def test_bad_arguments_are_named(steps: int, warmup: float, complaint: str) -> None:
    """Impossible schedules say which argument is wrong."""
    with pytest.raises(ValueError, match=complaint):
        multipliers(steps, warmup)

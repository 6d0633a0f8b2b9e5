"""The laws of tasks, on every task of the catalogue; those of the ladder beyond a few seconds by their sizes alone."""

import math

import jax
import numpy as np
import optax
import pytest

pytest.register_assert_rewrite("laws.task_laws")

from laws.task_laws import TaskLaws, fingerprint, fingerprints_elsewhere  # noqa: E402

from evolion.proxies.data.uri import open_source  # noqa: E402
from evolion.proxies.registry import SPECS, get_spec, get_task  # noqa: E402
from evolion.proxies.score import Status  # noqa: E402
from evolion.proxies.task import ModelTask  # noqa: E402
from evolion.proxies.training import train  # noqa: E402

LADDER = [name for name in SPECS if name.startswith("ladder-")]
TRAINED = [name for name in SPECS if name not in LADDER]
SMALLEST = "digits-mlp"


def made(name: str) -> ModelTask:
    task = get_task(name)
    assert isinstance(task, ModelTask)
    return task


@pytest.fixture(scope="module", params=TRAINED)
def task(request: pytest.FixtureRequest) -> ModelTask:
    """Each task in turn."""
    return made(request.param)


class TestTasks(TaskLaws):
    """A task that enters the catalogue obeys the laws."""


def test_digests_differ() -> None:
    """Two tasks never share stored scores."""
    assert len({get_task(name).digest for name in TRAINED}) == len(TRAINED)


@pytest.mark.slow
def test_equal_in_a_fresh_process() -> None:
    """Scores of workers and of later runs are comparable: data, parameters and order do not hang on the process."""
    assert fingerprints_elsewhere(TRAINED, "12345") == {name: fingerprint(get_task(name)) for name in TRAINED}


def test_the_suite_is_wide() -> None:
    """At least sixteen tasks of at least six families, each with a ladder of ten and a hundred times the compute."""
    assert len(TRAINED) >= 16
    assert len({SPECS[name].family for name in TRAINED}) >= 6
    for name in TRAINED:
        assert set(SPECS[name].rungs) == {"10x", "100x"}, name


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("rung", ["10x", "100x"])
def test_a_rung_costs_what_it_says(name: str, rung: str) -> None:
    """Ten times the compute is between 5 and 20 times, by parameters x examples x steps."""
    one, scaled = made(name), ModelTask(get_spec(f"{name}:{rung}"))
    model = (
        jax.eval_shape(lambda: scaled.model.init(jax.random.key(0), one.data("train")["inputs"][:1])["params"])
        if scaled.spec.data == one.spec.data
        else None
    )
    if model is None:
        pytest.skip("the data changes with the rung")
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(model))
    work = parameters / one.parameters * scaled.steps / one.steps * scaled.batch_size / one.batch_size
    wanted = float(rung.rstrip("x"))
    assert wanted / 2.5 < work < wanted * 2.5


@pytest.mark.parametrize("name", LADDER)
def test_the_ladder_has_the_sizes_of_its_names(name: str) -> None:
    """`ladder-1m` has a million parameters but for its embeddings."""
    ladder = ModelTask(get_spec(name))
    field = open_source(ladder.spec.data).info.fields["inputs"]
    params = jax.eval_shape(
        lambda: ladder.model.init(jax.random.key(0), np.zeros((1, *field.shape), field.dtype))["params"]
    )
    sizes = jax.tree.leaves_with_path(params)
    inner = sum(math.prod(leaf.shape) for path, leaf in sizes if "embedding" not in str(path[-1]))
    head = math.prod((int(ladder.spec.sizes["width"]), int(ladder.spec.sizes["vocabulary"])))  # type: ignore[arg-type]
    named = name.removeprefix("ladder-")
    wanted = float(named[:-1]) * {"k": 1e3, "m": 1e6}[named[-1]]
    assert any(0.8 < size / wanted < 1.25 for size in (inner, inner - head))


def test_zero_updates_leave_the_start() -> None:
    """A transform that does nothing is scored with the loss of the initial parameters, status ok."""
    task = get_task(SMALLEST)
    score = train(task, optax.scale(0.0), steps=3)
    start = float(jax.jit(task.loss)(task.init(0), task.data("validation")))
    assert (score.status, score.steps) == (Status.OK, 3)
    assert score.loss == pytest.approx(start, rel=1e-5)


def test_divergence_is_a_status() -> None:
    """An exploding optimizer stops early and is data, not an exception."""
    score = train(get_task(SMALLEST), optax.scale(1e30), steps=50)
    assert (score.status, score.loss, score.train_loss) == (Status.DIVERGED, None, None)
    assert score.steps < 50
    assert score.message

"""What every task promises: subclass `TaskLaws` beside the fixture `task`."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
import pytest
from numpy.typing import NDArray

from evolion.proxies.data.arrays import named_arrays
from evolion.proxies.data.source import SPLITS
from evolion.proxies.schedules import warmup_cosine
from evolion.proxies.score import Status
from evolion.proxies.task import ModelTask, Task
from evolion.proxies.training import train

SHORT = 60
REPEATS = {"docstrings": 1.0, "markov-chains": 0.02}
"""The share of examples of a split that may stand in another, by scheme: three characters of one document occur in
others, where it is documents that are divided (`test_docstrings`); a chain may stay in one state all along."""

KNOWS_NOTHING = 0.75
"""How far, in nats, an untrained classifier may be from uniform guessing."""


def fingerprint(task: Task) -> dict[str, str]:
    """What must be equal in every process: digest, initial parameters and batch order of one seed."""
    params = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(task.init(3)))).hexdigest()
    return {"digest": task.digest, "params": params, "order": hashlib.sha256(task.order(3, 40).tobytes()).hexdigest()}


def fingerprints_elsewhere(names: Sequence[str], hash_seed: str) -> dict[str, dict[str, str]]:
    """The fingerprints of the tasks of these names, from a fresh process with this PYTHONHASHSEED."""
    program = (
        "import json; from laws.task_laws import fingerprint; from evolion.proxies.registry import get_task; "
        f"print(json.dumps({{name: fingerprint(get_task(name)) for name in {list(names)!r}}}))"
    )
    tests = os.path.dirname(os.path.dirname(__file__))
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": tests}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    result: dict[str, dict[str, str]] = json.loads(done.stdout)
    return result


def leaves(batch: Any) -> list[Any]:
    return [array for _, array in named_arrays(batch)]


def flat(params: Any) -> NDArray[np.float32]:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def rows(batch: Any) -> set[bytes]:
    """Each example as bytes."""
    return {b"".join(leaf.tobytes() for leaf in example) for example in zip(*leaves(batch), strict=True)}


class TaskLaws:
    """The laws. A test module provides the fixture `task`."""

    def test_splits_are_read_only_and_cached(self, task: Task) -> None:
        """Data is shared by everyone who asks: nobody can change it, and asking twice costs nothing."""
        for split in SPLITS:
            batch = task.data(split)
            assert task.data(split) is batch
            assert all(isinstance(leaf, np.ndarray) and not leaf.flags.writeable for leaf in leaves(batch))
            assert len({len(leaf) for leaf in leaves(batch)}) == 1

    def test_splits_are_disjoint(self, task: ModelTask) -> None:
        """No example is both trained on and scored, but for what repeats itself by its nature (`REPEATS`)."""
        train_rows, validation_rows, test_rows = (rows(task.data(split)) for split in SPLITS)
        allowed = REPEATS.get(task.spec.data.partition(":")[0], 0.0)
        for one, other in ((train_rows, validation_rows), (train_rows, test_rows), (validation_rows, test_rows)):
            assert len(one & other) <= allowed * len(other)

    def test_unknown_split_is_named(self, task: Task) -> None:
        """A misspelt split is one clear error that lists the right ones."""
        with pytest.raises(ValueError, match=r"'dev'.*train, validation, test"):
            task.data("dev")  # type: ignore[arg-type]

    def test_order_indexes_the_training_split(self, task: Task) -> None:
        """Every batch index names a training example."""
        order = task.order(0, task.steps)
        assert order.shape == (task.steps, task.batch_size)
        assert order.dtype == np.int32
        assert order.min() >= 0
        assert order.max() < len(leaves(task.data("train"))[0])

    def test_seed_decides_parameters_and_order(self, task: Task) -> None:
        """One seed gives the same run again, another seed a different one."""
        first, again, other = (flat(task.init(seed)) for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert np.array_equal(task.order(1, 20), task.order(1, 20))
        assert not np.array_equal(task.order(1, 20), task.order(2, 20))

    @pytest.mark.parametrize("seed", [-1, 2**32])
    def test_unusable_seed_is_refused(self, task: Task, seed: int) -> None:
        """A seed that cannot be represented is an error, not silently another seed."""
        with pytest.raises(ValueError, match="seed is"):
            task.init(seed)
        with pytest.raises(ValueError, match="seed is"):
            task.order(seed, 1)

    def test_parameters_are_float32(self, task: Task) -> None:
        """Evaluators lay all parameters into one float32 vector."""
        assert all(isinstance(leaf, jax.Array) and leaf.dtype == np.float32 for leaf in jax.tree.leaves(task.init(0)))

    def test_start_is_near_its_analytic_value(self, task: ModelTask) -> None:
        """An untrained model knows nothing: log(classes) for a classifier, the variance of the targets elsewhere."""
        whole = dict(task.data("validation"))
        some = jax.tree.map(lambda leaf: leaf[:: -(-len(leaf) // 1024)], whole)
        loss = jax.jit(task.loss)(task.init(0), some)
        assert loss.shape == ()
        assert loss.dtype == np.float32
        if "entropy" in task.spec.metric:
            assert abs(float(loss) - task.spec.start) < KNOWS_NOTHING
        else:
            assert 0.5 < float(loss) / task.spec.start < 2

    def test_gradient_traces_under_strict_promotion(self, task: Task) -> None:
        """The model neither mixes types nor broadcasts by accident."""
        batch = jax.tree.map(lambda leaf: leaf[: task.batch_size], dict(task.data("train")))
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            value, grad = jax.eval_shape(jax.value_and_grad(task.loss), task.init(0), batch)
        assert (value.shape, value.dtype) == ((), np.float32)
        assert jax.tree.map(lambda leaf: leaf.dtype, grad) == jax.tree.map(lambda leaf: leaf.dtype, task.init(0))

    def test_adam_learns(self, task: ModelTask) -> None:
        """A known good optimizer gets below the start in a few steps, never below the floor, and twice to the same."""
        adam = optax.adam(warmup_cosine(task.learning_rates[1], SHORT))
        score = train(task, adam, steps=SHORT)
        assert score.status is Status.OK
        assert score.loss is not None
        # Single batches of some tasks are noisy: the loss at the start is the greater of the measured and the analytic.
        assert score.loss < 0.99 * max(score.curve[0], task.spec.start)
        assert task.floor is None or score.loss > task.floor
        assert len(score.curve) == 20
        assert train(task, adam, steps=SHORT) == score

    @pytest.mark.slow
    def test_a_default_run_ends_between_floor_and_start(self, task: ModelTask) -> None:
        """The horizon is long enough to learn, and no run is better than can be."""
        rate = task.learning_rates[1]
        score = train(task, optax.adamw(warmup_cosine(rate, task.steps), weight_decay=1e-3))
        assert score.loss is not None
        assert score.loss < 0.9 * task.spec.start
        assert task.floor is None or score.loss > task.floor

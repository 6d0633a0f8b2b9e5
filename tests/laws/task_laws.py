"""What every task promises: subclass `TaskLaws` beside the fixtures `task` and `classes`."""

import hashlib
import json
import math
import os
import subprocess
import sys
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
from evolion.proxies.task import Task
from evolion.proxies.training import train

SHORT = 50
ZERO = optax.scale(0.0)
EXPLODING = optax.scale(1e30)
ADAM = optax.adam(warmup_cosine(2e-2, SHORT))


def fingerprint(task: Task) -> dict[str, str]:
    """What must be equal in every process: digest, initial parameters and batch order of one seed."""
    params = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(task.init(3)))).hexdigest()
    return {"digest": task.digest, "params": params, "order": hashlib.sha256(task.order(3, 40).tobytes()).hexdigest()}


def fingerprint_elsewhere(expression: str, hash_seed: str) -> dict[str, str]:
    """The fingerprint of the task that `expression` names, from a fresh process with this PYTHONHASHSEED."""
    program = (
        "import json; from laws.task_laws import fingerprint; from evolion.proxies.registry import get_task; "
        f"print(json.dumps(fingerprint(get_task({expression!r}))))"
    )
    tests = os.path.dirname(os.path.dirname(__file__))
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": tests}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    result: dict[str, str] = json.loads(done.stdout)
    return result


def leaves(batch: Any) -> list[Any]:
    return [array for _, array in named_arrays(batch)]


def flat(params: Any) -> NDArray[np.float32]:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])


def rows(batch: Any) -> set[bytes]:
    """Each example as bytes."""
    return {b"".join(leaf.tobytes() for leaf in example) for example in zip(*leaves(batch), strict=True)}


class TaskLaws:
    """The laws. A test module provides two fixtures: `task`, and `classes`, how many answers it chooses from."""

    def test_splits_are_read_only_and_cached(self, task: Task) -> None:
        """Data is shared by everyone who asks: nobody can change it, and asking twice costs nothing."""
        for split in SPLITS:
            batch = task.data(split)
            assert task.data(split) is batch
            assert all(isinstance(leaf, np.ndarray) and not leaf.flags.writeable for leaf in leaves(batch))
            assert len({len(leaf) for leaf in leaves(batch)}) == 1

    def test_splits_are_disjoint(self, task: Task) -> None:
        """No example is both trained on and scored."""
        train_rows, validation_rows, test_rows = (rows(task.data(split)) for split in SPLITS)
        assert not train_rows & validation_rows
        assert not train_rows & test_rows
        assert not validation_rows & test_rows

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

    def test_start_is_near_uniform_guessing(self, task: Task, classes: int) -> None:
        """An untrained model knows nothing: its loss is about log(classes)."""
        loss = jax.jit(task.loss)(task.init(0), task.data("validation"))
        assert loss.shape == ()
        assert loss.dtype == np.float32
        assert abs(float(loss) - math.log(classes)) < 0.75

    def test_gradient_traces_under_strict_promotion(self, task: Task) -> None:
        """The model neither mixes types nor broadcasts by accident."""
        batch = jax.tree.map(lambda leaf: leaf[: task.batch_size], dict(task.data("train")))
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            value, grad = jax.eval_shape(jax.value_and_grad(task.loss), task.init(0), batch)
        assert (value.shape, value.dtype) == ((), np.float32)
        assert jax.tree.map(lambda leaf: leaf.dtype, grad) == jax.tree.map(lambda leaf: leaf.dtype, task.init(0))

    def test_equal_in_a_fresh_process(self, task: Task) -> None:
        """Scores of workers and of later runs are comparable: nothing depends on the process."""
        assert fingerprint_elsewhere(task.name, "12345") == fingerprint(task)

    def test_zero_updates_leave_the_start(self, task: Task) -> None:
        """A transform that does nothing is scored with the loss of the initial parameters, status ok."""
        score = train(task, ZERO, steps=3)
        start = float(jax.jit(task.loss)(task.init(0), task.data("validation")))
        assert (score.status, score.steps) == (Status.OK, 3)
        assert score.loss == pytest.approx(start, rel=1e-5)

    def test_adam_learns(self, task: Task) -> None:
        """A known good optimizer gets clearly below the start in a few steps, and twice to the same score."""
        score = train(task, ADAM, steps=SHORT)
        assert score.status is Status.OK
        assert score.loss is not None
        assert score.loss < score.curve[0] - 0.5
        assert score.train_loss is not None
        assert score.train_loss < score.curve[0] - 0.5
        assert len(score.curve) == 20
        assert train(task, ADAM, steps=SHORT) == score
        assert train(task, ADAM, steps=SHORT, seed=1) != score

    def test_divergence_is_a_status(self, task: Task) -> None:
        """An exploding optimizer stops early and is data, not an exception."""
        score = train(task, EXPLODING, steps=SHORT)
        assert (score.status, score.loss, score.train_loss) == (Status.DIVERGED, None, None)
        assert score.steps < SHORT
        assert score.message

"""A program as an Optax transform, without generated code."""

from __future__ import annotations

import math
from collections import namedtuple
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import optax

from evolion.primitives.jax_execution import Stepper, compute_dtype, shape_of, stepper
from evolion.primitives.kinds import Kind
from evolion.primitives.program import RESERVED, Program

__all__ = ["EXTRA_ARGUMENTS", "state_fields", "to_optax"]

EXTRA_ARGUMENTS: Mapping[str, str] = {"loss": "value", "hess": "hess"}
"""Reserved inputs that come with each call of `update`, and the keyword argument that brings them.

`value` is what Optax calls the loss, as in `optax.value_and_grad_from_state`; `hess` is a tree like the parameters.
"""


def to_optax(
    program: Program, learning_rate: optax.ScalarOrSchedule | None = None, **hyperparameters: Any
) -> optax.GradientTransformation:
    """Return the program as an Optax transform: its updates are to be added to the parameters.

    The state is a named tuple of `count`, the number of steps done, one field for each slot of the program, and `w0`
    where the program reads the initial weights. Slots are of float32 (float64 where a parameter is) and so is all
    arithmetic; updates have the dtype of the parameters, or of the gradients where no parameters are given. A leaf of
    the gradients that is None gets no update.

    Every slot that is not one number for the whole tree is a tree like the parameters, so `optax.tree.map_params` maps
    its leaves, as it does those of Optax's own factored states; in a leaf, row, column, left or right slot they have
    other shapes than their parameters. Tensor slots of an eager `init` lie on the devices as their parameters do.

    To change numbers between steps use `optax.inject_hyperparams` on a function that takes them, as in
    `optax.inject_hyperparams(lambda learning_rate, b1: to_optax(lion, learning_rate, b1=b1))(1e-3, 0.9)`.

    Args:
        program: The program.
        learning_rate: A number, or an Optax schedule from the number of steps done; for a program that takes `lr`.
        **hyperparameters: Values for hyperparameters of the program. Besides, `horizon`, the planned number of steps,
            for a program that takes it, and `seed` (default 0) for one that takes `noise`.

    Returns:
        An `optax.GradientTransformation`; for a program that takes `loss` or `hess` a
        `GradientTransformationExtraArgs`, whose `update` needs the keyword argument `value` or `hess`.

    Raises:
        ValueError: If a needed argument is missing, or one is given that the program does not have.

    """
    constants, seed = _constants(program, learning_rate, hyperparameters)
    run = _Run(program, stepper(program, negated=True), learning_rate, constants, seed)
    extra = tuple(EXTRA_ARGUMENTS[name] for name in program.inputs if name in EXTRA_ARGUMENTS)
    if not extra:
        return optax.GradientTransformation(run.init, run.update)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        missing = [name for name in extra if extra_args.get(name) is None]
        if missing:
            raise ValueError(f"the program needs {missing[0]!r}: call update(grads, state, params, {missing[0]}=...)")
        return run.update(updates, state, params, **{name: extra_args[name] for name in extra})

    return optax.GradientTransformationExtraArgs(run.init, update)


def _constants(
    program: Program, learning_rate: optax.ScalarOrSchedule | None, given: Mapping[str, Any]
) -> tuple[dict[str, Any], int]:
    """Return the inputs that are the same at every step, and the seed."""
    inputs = program.inputs
    if "lr" in inputs and learning_rate is None:
        raise ValueError("the program takes lr: give learning_rate, a number or an optax schedule")
    if "lr" not in inputs and learning_rate is not None:
        raise ValueError("the program does not take lr, so it has no use for a learning_rate; leave it out")
    if isinstance(learning_rate, (bool, str)):
        raise ValueError(f"learning_rate must be a number or an optax schedule, got {learning_rate!r}")
    if isinstance(learning_rate, (int, float)) and not math.isfinite(learning_rate):
        raise ValueError(f"learning_rate must be finite, got {learning_rate!r}")
    values: dict[str, Any] = {h.name: h.value for h in program.hyperparameters}
    own = set(values)
    others = dict.fromkeys(["horizon"] if "horizon" in inputs else [])
    others |= {"seed": 0} if "noise" in inputs and "seed" not in own else {}
    for name, value in given.items():
        if name not in own and name not in others:
            known = ", ".join([*values, *others]) or "none"
            raise ValueError(f"the program has no hyperparameter {name!r}; it has: {known}")
        if isinstance(value, (bool, str)) or (isinstance(value, (int, float)) and not math.isfinite(value)):
            raise ValueError(f"hyperparameter {name!r} must be a finite number, got {value!r}")
    if "horizon" in others and given.get("horizon") is None:
        raise ValueError("the program takes horizon: give horizon, the planned number of steps")
    seed = given.get("seed", 0) if "seed" in others else 0
    values |= {name: value for name, value in given.items() if name in own or name == "horizon"}
    return {name: float(value) if isinstance(value, int) else value for name, value in values.items()}, seed


@dataclass(frozen=True, slots=True)
class _Run:
    """What a transform knows: the program, and the values of its constant inputs."""

    program: Program
    step: Stepper
    learning_rate: optax.ScalarOrSchedule | None
    constants: Mapping[str, Any]
    seed: int

    def init(self, params: Any) -> Any:
        """Return the state before the first step."""
        structure: Any
        leaves, structure = jax.tree.flatten(params)
        dtype = compute_dtype(leaves)
        shapes = [jnp.shape(leaf) for leaf in leaves]
        fields = []
        for slot in self.program.slots:
            if slot.kind is Kind.SCALAR:
                fields.append(jnp.zeros((), dtype))
            elif slot.kind is Kind.TENSOR:
                # Like the parameters also in how they lie on several devices.
                fields.append(structure.unflatten([jnp.zeros_like(leaf, dtype) for leaf in leaves]))
            else:
                fields.append(structure.unflatten([jnp.zeros(shape_of(slot.kind, shape), dtype) for shape in shapes]))
        if "w0" in self.program.inputs:
            # A copy: a training loop that donates both parameters and state may not pass one buffer twice.
            fields.append(jax.tree.map(lambda leaf: jnp.array(leaf, dtype), params))
        return _state_type(state_fields(self.program))(jnp.zeros((), jnp.int32), *fields)

    def update(self, updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        """Return the updates to add to the parameters, and the next state."""
        program = self.program
        if params is None and "w" in program.inputs:
            raise ValueError("the program reads the weights: call update(grads, state, params)")
        structure: Any
        leaves, structure = jax.tree.flatten(updates, is_leaf=lambda leaf: leaf is None)
        present = [index for index, leaf in enumerate(leaves) if leaf is not None]

        def pick(tree: Any) -> list[Any]:
            entries = structure.flatten_up_to(tree)
            return [entries[index] for index in present]

        def put(values: Sequence[Any], tree: Any) -> Any:
            entries = structure.flatten_up_to(tree)
            for index, value in zip(present, values, strict=True):
                entries[index] = value
            return structure.unflatten(entries)

        like = pick(updates if params is None else params)
        stored = dict(zip((slot.name for slot in program.slots), state[1:], strict=False))
        slots = {s.name: stored[s.name] if s.kind is Kind.SCALAR else pick(stored[s.name]) for s in program.slots}
        held = [leaf for value in slots.values() for leaf in (value if isinstance(value, list) else [value])]
        dtype = compute_dtype([*like, *(held if params is None else [])])
        count = optax.safe_increment(state.count)
        trees = {"g": updates, "w": params, "w0": state[-1], "hess": extra_args.get("hess")}
        inputs = {name: [jnp.asarray(x, dtype) for x in pick(trees[name])] for name in program.inputs if name in trees}
        inputs |= self._numbers(state.count, count, extra_args.get("value"), dtype)
        if "noise" in program.inputs:
            key = jax.random.fold_in(jax.random.key(self.seed), state.count)
            noise: Any = optax.tree.random_like(key, [jnp.asarray(x, dtype) for x in like])
            inputs["noise"] = noise
        change, slots = self.step(inputs | slots, [jnp.shape(leaf) for leaf in like], dtype)
        added = [jnp.asarray(c, jnp.result_type(leaf)) for c, leaf in zip(change, like, strict=True)]
        following = [put(v, stored[k]) if isinstance(v, list) else v for k, v in slots.items()]
        return put(added, updates), type(state)(count, *following, *state[1 + len(following) :])

    def _numbers(self, done: Any, count: Any, loss: Any, dtype: Any) -> dict[str, Any]:
        """Return the scalar inputs of this step; arrays get the dtype of the step, Python floats stay exact."""
        rate = self.learning_rate(done) if callable(self.learning_rate) else self.learning_rate
        numbers = {"lr": rate, "t": count, "loss": loss}
        numbers = {name: jnp.asarray(numbers[name], dtype) for name in self.program.inputs if name in numbers}
        fixed = {n: v if isinstance(v, float) else jnp.asarray(v, dtype) for n, v in self.constants.items()}
        return numbers | fixed


def state_fields(program: Program) -> tuple[str, ...]:
    """Return the names of the fields of a transform's state: `count`, those of the slots, and `w0` where it is read.

    A slot that is itself called `count`, or whose name starts with an underscore, which no named tuple allows, gets a
    trailing underscore and no leading one.
    """
    fields = ["count"]
    names = {slot.name for slot in program.slots}
    for slot in program.slots:
        field = slot.name.lstrip("_") or "slot"
        while field in fields or field in RESERVED or (field != slot.name and field in names):
            field += "_"
        fields.append(field)
    return tuple(fields + (["w0"] if "w0" in program.inputs else []))


@cache
def _state_type(fields: tuple[str, ...]) -> Any:
    """Return one type for all programs of these slots, so that their states have one tree structure."""
    made = namedtuple("ProgramState", fields)  # type: ignore[misc]
    # The type has no name in any module: a copy or a pickle makes it anew from its fields.
    made.__reduce__ = _reduce_state  # type: ignore[method-assign,assignment]
    return made


def _reduce_state(state: Any) -> tuple[Any, ...]:
    return _rebuild_state, (state._fields, *state)


def _rebuild_state(fields: tuple[str, ...], *values: Any) -> Any:
    return _state_type(fields)(*values)

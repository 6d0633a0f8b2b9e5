"""Runs transforms on a mesh of four devices: `python sharded_updates.py NAME ...`, in a process that has four.

Prints a JSON object, "same" for each name whose sharded and replicated trainings agree with that on one device.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from optax_subjects import STEPS, SUBJECTS, assert_close, gradients, start, trajectory, tree

from evolion.primitives.kinds import Kind


def sharded(name: str, mesh: Any) -> None:
    """Train with parameters cut along their first axis; each slot of the kind tensor must lie likewise."""
    tx = start(name)
    rows = NamedSharding(mesh, PartitionSpec("devices"))
    replicated = NamedSharding(mesh, PartitionSpec())

    def place(values: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.device_put(leaf, rows if leaf.ndim else replicated), values)

    params = place(tree(0))
    eager = state = tx.init(params)
    update = jax.jit(lambda g, s, p, e: tx.update(g, s, p, **e))
    for step in range(STEPS):
        extra = place(SUBJECTS[name].extra(step))
        updates, state = update(place(gradients(step)), state if step else eager, params, extra)
        params = optax.apply_updates(params, updates)
        for slot, before, value in zip(SUBJECTS[name].program.slots, eager[1:], state[1:], strict=False):
            for first, leaf in zip(jax.tree.leaves(before), jax.tree.leaves(value), strict=True):
                if slot.kind is Kind.TENSOR:
                    assert first.sharding.is_equivalent_to(rows, leaf.ndim), (slot.name, first.sharding)
                    assert leaf.sharding.is_equivalent_to(rows, leaf.ndim), (slot.name, leaf.sharding)
    _, expected, states = trajectory(name)
    assert_close((params, state), (expected[-1], states[-1]), SUBJECTS[name].tolerance)


def replicated(name: str) -> None:
    """Train by pmap, each device with a quarter of the gradient."""
    tx, devices = start(name), jax.device_count()

    def step(grads: Any, state: Any, params: Any, extra: Any) -> Any:
        return tx.update(jax.lax.pmean(grads, "devices"), state, params, **extra)

    run = jax.pmap(step, axis_name="devices", in_axes=(0, None, None, None))
    shares = jax.tree.map(lambda g: jnp.stack([g * share for share in (0.0, 0.5, 1.0, 2.5)]), gradients(0))
    updates, state = run(shares, tx.init(tree(0)), tree(0), SUBJECTS[name].extra(0))
    expected, _, states = trajectory(name)
    for device in range(devices):
        mine = jax.tree.map(lambda leaf, device=device: leaf[device], (updates, state))
        assert_close(mine, (expected[0], states[1]), SUBJECTS[name].tolerance)


def main(names: list[str]) -> None:
    assert jax.device_count() == 4
    mesh = jax.make_mesh((4,), ("devices",), axis_types=(AxisType.Auto,))
    for name in names:
        sharded(name, mesh)
        replicated(name)
    json.dump(dict.fromkeys(names, "same"), sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])

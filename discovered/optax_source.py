"""A program as source text that needs no Evolion."""

from __future__ import annotations

import importlib.metadata
import inspect
import keyword
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from evolion.discovered.latex_source import latex_source
from evolion.discovered.optax_transform import EXTRA_ARGUMENTS, state_fields
from evolion.discovered.source_expressions import Outline, outline
from evolion.discovered.source_helpers import helper_names, helpers
from evolion.discovered.torch_source import torch_module
from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.keys import behavioural_key, structural_key
from evolion.primitives.kinds import Kind
from evolion.primitives.program import Program

__all__ = ["TARGETS", "to_source"]

_WIDTH = 100
_TREES = ("g", "w", "w0", "hess", "noise")
_USED = frozenset(
    ["jax", "jnp", "optax", "Any", "NamedTuple", "any", "callable", "range", "learning_rate", "seed", "params", "state",
     "updates", "count", "dtype", "like", "key", "step", "results", "change", "value", "extra_args", "compute_dtype",
     "leaf"]
)  # fmt: skip


def to_source(
    program: Program, target: str, *, name: str = "optimizer", evidence: str = "", **hyperparameters: float
) -> str:
    """Return source text that does what the program does.

    Target `optax` is one Python module that imports only jax and optax, with one function that returns the transform;
    it computes what `to_optax` computes. Target `torch` is one module with a `torch.optim.Optimizer`, whose class has
    the name in capitals, such as `LionK` for `lion_k`. Target `latex` is a document with the algorithm in a box, and
    `text` the program's own text.

    Args:
        program: The program; dead code is left out of every target but `text`.
        target: One of `TARGETS`.
        name: What the optimizer is called, a Python identifier.
        evidence: Plain text, such as a table of scores, for the documentation of the result.
        **hyperparameters: Other defaults for hyperparameters of the program.

    Raises:
        ValueError: For an unknown target, a name that cannot be one, or a hyperparameter that the program lacks.

    """
    if target not in TARGETS:
        raise ValueError(f"there is no export target {target!r}; there are: {', '.join(TARGETS)}")
    if not name.isidentifier() or keyword.iskeyword(name) or name in _USED | helper_names():
        raise ValueError(f"{name!r} cannot name an exported optimizer; use another Python identifier, such as 'mine'")
    return TARGETS[target](program.with_hyperparameters(**hyperparameters), name, evidence)


def _to_text(program: Program, name: str, evidence: str) -> str:
    if not evidence:
        return str(program)
    documentation = f"{program.docstring or name}\n\nEvidence:\n\n{inspect.cleandoc(evidence)}"
    return str(replace(program, docstring="\n".join(line.rstrip() for line in documentation.splitlines())))


def _to_optax_module(program: Program, name: str, evidence: str) -> str:
    live = remove_dead_code(program)
    layout = _Layout(live, name, outline(live, _USED | helper_names() | {name}))
    body = [*_init(layout), "", *_update(layout), "", f"return {layout.transform}(init, update)"]
    function = _signature(layout) + "\n" + "\n".join(f"    {line}".rstrip() for line in body)
    functions = helpers(function)
    imports = ("import math\n" if any("math." in text for text in functions) else "") + _IMPORTS
    head = _module_docstring(program, name, evidence) + "\n\n" + imports
    return "\n\n\n".join([head, *functions, _state_class(layout), function, _HELPER]) + "\n"


TARGETS: Mapping[str, Callable[[Program, str, str], str]] = MappingProxyType(
    {"optax": _to_optax_module, "torch": torch_module, "latex": latex_source, "text": _to_text}
)
"""Writers by the name of their target; each takes a program, its name and the evidence for it."""

_IMPORTS = """\
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax"""

_HELPER = '''\
def compute_dtype(tree: Any) -> Any:
    """Compute in float32, or in float64 where a parameter is of it: fewer bits are stored, not computed with."""
    return jnp.float64 if any(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(tree)) else jnp.float32'''


@dataclass(frozen=True, slots=True)
class _Layout:
    """What is to be written."""

    program: Program
    name: str
    outline: Outline

    @property
    def state(self) -> str:
        return "".join(word[:1].upper() + word[1:] for word in self.name.split("_")) + "State"

    @property
    def fields(self) -> dict[str, str]:
        """The field of the state that holds each slot."""
        return dict(zip((slot.name for slot in self.program.slots), state_fields(self.program)[1:], strict=False))

    @property
    def transform(self) -> str:
        return "optax.GradientTransformation" + ("ExtraArgs" if self.extra else "")

    @property
    def like(self) -> str:
        """The tree that has the structure, the shapes and the dtypes of the updates."""
        return "params" if "w" in self.program.inputs else "like"

    @property
    def extra(self) -> list[str]:
        """The keyword arguments that `update` needs."""
        return [EXTRA_ARGUMENTS[name] for name in self.program.inputs if name in EXTRA_ARGUMENTS]

    @property
    def wide(self) -> list[str]:
        """The parameters of the program that are trees, in the order in which a reader expects them."""
        slots = [slot.name for slot in self.program.slots if slot.kind is not Kind.SCALAR]
        return [name for name in _TREES if name in self.program.inputs] + slots

    def tree(self, parameter: str) -> str:
        """Return the expression that gives the tree of an input or slot at the start of a step."""
        if parameter in self.fields:
            return f"state.{self.fields[parameter]}"
        if parameter == "w0":
            return "state.w0"
        if parameter == "noise":
            return f"optax.tree.random_like(key, {self.like}, dtype=dtype)"
        given = {"g": "updates", "w": "params"}.get(parameter, parameter)
        return f"optax.tree.cast({given}, dtype)"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""{escaped}\n"""'


def _wrapped(text: str) -> str:
    """Break the lines that are too long."""
    lines = [
        line if len(line) <= 115 else textwrap.fill(line, 110, break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    ]
    return "\n".join(lines)


def _module_docstring(program: Program, name: str, evidence: str) -> str:
    numbers = ", ".join(f"{h.name}={h.value!r}" for h in program.hyperparameters)
    about = program.docstring or "an optimizer in the form of an Optax transform."
    parts = [_wrapped(about if about.casefold().startswith(name.casefold()) else f"{name}: {about}")]
    parts += [
        _wrapped(f"Hyperparameters: {numbers}.") if numbers else "",
        "Low-precision parameters are updated in float32, and so is the state kept; float64 stays float64.",
        f"Evidence:\n\n{inspect.cleandoc(evidence)}" if evidence else "",
        f"Written by Evolion {importlib.metadata.version('evolion')} from the program with\n"
        f"structural key {structural_key(program)} and\nbehavioural key {behavioural_key(program)}.",
    ]
    return _quoted("\n\n".join(part.rstrip() for part in parts if part))


def _state_class(layout: _Layout) -> str:
    lines = [f"class {layout.state}(NamedTuple):", f'    """State of `{layout.name}`."""', "", "    count: Any"]
    lines += [f"    {field}: Any" for field in state_fields(layout.program)[1:]]
    return "\n".join(lines)


def _signature(layout: _Layout) -> str:
    program = layout.program
    names = layout.outline.names
    arguments = ["learning_rate: optax.ScalarOrSchedule"] if "lr" in program.inputs else []
    arguments += [f"{names['horizon']}: float"] if "horizon" in program.inputs else []
    arguments += [f"{names[h.name]}: float = {h.value!r}" for h in program.hyperparameters]
    arguments += ["seed: int = 0"] if "noise" in program.inputs else []
    line = f"def {layout.name}({', '.join(arguments)}) -> {layout.transform}:"
    if len(line) > _WIDTH:
        line = "\n".join([f"def {layout.name}(", *[f"    {a}," for a in arguments], f") -> {layout.transform}:"])
    needs = "".join(f"; its update needs the keyword argument `{name}`" for name in layout.extra)
    return f'{line}\n    """Return the optimizer as an Optax transform{needs}."""\n'


def _init(layout: _Layout) -> list[str]:
    zeros = {kind: f"jax.tree.map(lambda p: jnp.zeros({_shape(kind, 'p')}, dtype), params)" for kind in Kind}
    zeros[Kind.SCALAR] = "jnp.zeros([], dtype)"
    values = [f"{layout.fields[slot.name]}={zeros[slot.kind]}" for slot in layout.program.slots]
    if "w0" in layout.program.inputs:
        values.append("w0=jax.tree.map(lambda p: jnp.array(p, dtype), params)")
    lines = ["def init(params):", "    dtype = compute_dtype(params)" if values else "    del params"]
    values = ["count=jnp.zeros([], jnp.int32)", *values]
    if len(values) == 1:
        return [*lines, f"    return {layout.state}({values[0]})"]
    return [*lines, f"    return {layout.state}(", *[f"        {value}," for value in values], "    )"]


def _update(layout: _Layout) -> list[str]:
    program, inputs = layout.program, layout.program.inputs
    keywords = "".join([", *", *[f", {name}=None" for name in layout.extra], ", **extra_args"]) if layout.extra else ""
    lines = [f"def update(updates, state, params=None{keywords}):"]
    body = ["del extra_args"] if layout.extra else []
    for name in layout.extra:
        body += [f"if {name} is None:", f'    raise ValueError("{layout.name} needs {name}: '
                 f'call update(grads, state, params, {name}=...)")']  # fmt: skip
    if "w" in inputs:
        body += ["if params is None:", f'    raise ValueError("{layout.name} reads the parameters: '
                 'call update(grads, state, params)")']  # fmt: skip
    else:
        body.append("like = updates if params is None else params")
    body += [f"dtype = compute_dtype({layout.like})", "count = optax.safe_increment(state.count)"]
    names = layout.outline.names
    scalars = {
        "lr": "learning_rate(state.count) if callable(learning_rate) else learning_rate",
        "t": "count",
        "loss": "value",
    }
    body += [f"{names[n]} = jnp.asarray({source}, dtype)" for n, source in scalars.items() if n in inputs]
    if "noise" in inputs:
        body.append("key = jax.random.fold_in(jax.random.key(seed), state.count)")
    body += [f"{names[s.name]} = state.{layout.fields[s.name]}" for s in program.slots if s.kind is Kind.SCALAR]
    write = _tree_level if layout.outline.whole_trees else _leaf_level
    statements, change, following = write(layout)
    body += statements
    if "(" in change:
        body.append(f"change = {change}")
        change = "change"
    body.append(f"change = jax.tree.map(lambda c, p: (-c).astype(p.dtype), {change}, {layout.like})")
    following |= {
        slot.name: f"jnp.asarray({layout.outline.next_slots[slot.name][0]}, dtype)"
        for slot in program.slots
        if slot.kind is Kind.SCALAR
    }
    results = ["count=count", *[f"{field}={following[slot]}" for slot, field in layout.fields.items()]]
    results += ["w0=state.w0"] if "w0" in inputs else []
    body.append(f"return change, {_call(layout.state, results)}")
    return lines + [f"    {line}" for line in "\n".join(body).split("\n")]


def _leaf_level(layout: _Layout) -> tuple[list[str], str, dict[str, str]]:
    """Write one function of the tensors of one parameter, mapped over the tree; name the update and the new slots."""
    plan = layout.outline
    arguments = [plan.names[name] for name in layout.wide]
    trees = [layout.tree(name) for name in layout.wide]
    if plan.shaped is None:
        arguments, trees = [plan.shape_name, *arguments], [layout.like, *trees]
    slots = [slot for slot in layout.program.slots if slot.kind is not Kind.SCALAR]
    values = [_widened(*plan.update, Kind.TENSOR, plan.shape_name)]
    values += [_widened(*plan.next_slots[slot.name], slot.kind, plan.shape_name) for slot in slots]
    lines = [f"{a.name} = {a.expression}" for a in plan.assignments if a.kind is Kind.SCALAR]
    lines += ["", f"def step({', '.join(arguments)}):"]
    lines += [f"    {a.name} = {a.expression}" for a in plan.assignments if a.kind is not Kind.SCALAR]
    lines += [f"    return {', '.join(values)}", ""]
    call = _call("jax.tree.map", ["step", *trees])
    if not slots:
        return [*lines, f"change = {call}"], "change", {}
    names = {slot.name: plan.names[slot.name] for slot in slots}
    unpacked = f"(jax.tree.map(lambda _, r, i=i: r[i], {layout.like}, results) for i in range({len(values)}))"
    return [*lines, f"results = {call}", f"change, {', '.join(names.values())} = {unpacked}"], "change", names


def _shape(kind: Kind, tensor: str) -> str:
    """Write the shape of a value of a kind for a tensor."""
    shapes = {Kind.SCALAR: "[]", Kind.LEAF: "[]", Kind.TENSOR: f"{tensor}.shape"}
    return shapes.get(kind, f"{kind}_shape({tensor})")


def _widened(source: str, kind: Kind, to: Kind, shaped: str) -> str:
    """Write the widening of a value to the kind of what it is returned as; `shaped` is a tensor of the step's dtype."""
    if kind is not to and to is Kind.TENSOR and kind in (Kind.SCALAR, Kind.LEAF):
        return f"jnp.full_like({shaped}, {source})"
    return _filled(source, kind, to, shaped)


def _filled(source: str, kind: Kind, to: Kind, shaped: str) -> str:
    """Write the same for a tensor of any dtype."""
    if kind is to:
        return source
    if kind not in (Kind.SCALAR, Kind.LEAF):
        return f"jnp.broadcast_to({source}, {_shape(to, shaped)})"
    return f"jnp.asarray({source}, dtype)" if to is Kind.LEAF else f"jnp.full({_shape(to, shaped)}, {source}, dtype)"


def _tree_level(layout: _Layout) -> tuple[list[str], str, dict[str, str]]:
    """Write one statement over whole trees after the other; name the update and the new slots."""
    plan = layout.outline
    lines = [f"{plan.names[name]} = {layout.tree(name)}" for name in layout.wide]
    for line in plan.assignments:
        if line.kind is Kind.SCALAR:
            lines.append(f"{line.name} = {line.expression}")
        else:
            mapped = [f"lambda {', '.join(line.reads)}: {line.expression}", *line.reads]
            lines.append(f"{line.name} = {_call('jax.tree.map', mapped)}")
    slots = [slot for slot in layout.program.slots if slot.kind is not Kind.SCALAR]
    following = {slot.name: _widened_tree(*plan.next_slots[slot.name], slot.kind, layout.like) for slot in slots}
    return lines, _widened_tree(*plan.update, Kind.TENSOR, layout.like), following


def _widened_tree(source: str, kind: Kind, to: Kind, like: str) -> str:
    if kind is to:
        return source
    more = "" if kind is Kind.SCALAR else f", {source}"
    return f"jax.tree.map(lambda leaf{more}: {_filled(source, kind, to, 'leaf')}, {like}{more})"


def _call(function: str, arguments: list[str]) -> str:
    """Write a call, one argument a line where it is long; the lines are relative to that of the statement."""
    line = f"{function}({', '.join(arguments)})"
    if len(line) <= _WIDTH - 20:
        return line
    return "\n".join([f"{function}(", *[f"    {argument}," for argument in arguments], ")"])

"""A program as an algorithm in LaTeX: a document that compiles, whose algorithm can be taken into another one."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from types import MappingProxyType

from evolion.primitives.dataflow import Reference, data_flow, remove_dead_code
from evolion.primitives.elementwise_ops import EPSILON
from evolion.primitives.kinds import Kind
from evolion.primitives.ops import OPS
from evolion.primitives.program import Program

__all__ = ["latex_source"]

_GREEK = frozenset(
    ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi")
) | {"pi", "rho", "sigma", "tau", "phi", "chi", "psi", "omega"}
_INPUTS = MappingProxyType(
    {
        "w": r"\theta",
        "g": "g",
        "lr": r"\eta",
        "t": "t",
        "horizon": "T",
        "w0": r"\theta_0",
        "loss": r"\ell",
        "hess": "h",
        "noise": r"\xi",
        "eps": r"\epsilon",
        "weight_decay": r"\lambda",
        "momentum": r"\mu",
    }
)
_LONGEST_INLINED = 60
_TEMPORARY = re.compile(r"x\d+")
_MARK = re.compile(
    r"\{(?P<argument>\d)\}|(?P<open><|\\left(?![a-z])\\?.|\\begin)|(?P<close>>|\\right(?![a-z])\\?.|\\end)"
)

_SUM, _NEGATIVE, _PRODUCT, _POWER, _ATOM = range(5)
"""How tightly the parts of a formula hold together."""

_DOCUMENT = r"""% Packages: amsmath, amssymb, algorithm, algpseudocode.
\documentclass{article}
\usepackage{amsmath, amssymb, algorithm, algpseudocode}
\begin{document}

BODY

\end{document}
"""


def latex_source(program: Program, name: str, evidence: str) -> str:
    """Return a LaTeX document with the program as an algorithm.

    Values that are read once are written where they are read, unless that makes a line long. Formulas are those of the
    op records.

    Args:
        program: The program; dead code is left out.
        name: What the optimizer is called.
        evidence: Plain text, kept as a comment.

    """
    live = remove_dead_code(program)
    lines = [r"\begin{algorithm}", rf"\caption{{{_prose(name)}}}", r"\begin{algorithmic}"]
    names = _names(live)
    lines += [rf"\Require {line}" for line in _requirements(live, names)]
    lines.append(r"\For{$t = 1, 2, \dots$}")
    lines.append(r"  \State $g \gets \nabla \ell_t(\theta)$" if "g" in live.inputs else r"  \State evaluate the loss")
    lines += [rf"  \State ${target} \gets {formula}$" for target, formula in _assignments(live, names)]
    lines += [r"\EndFor", r"\end{algorithmic}", r"\end{algorithm}"]
    notes = [f"% {line}".rstrip() for text in (program.docstring, evidence) if text for line in text.split("\n")]
    return _DOCUMENT.replace("BODY", "\n".join([*notes, *lines]))


def _prose(text: str) -> str:
    """Escape text that is no formula."""
    return re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", " ").replace("~", " ").replace("^", " "))


def _requirements(program: Program, names: dict[str, str]) -> list[str]:
    lines = [r"weights $\theta$"]
    if "lr" in program.inputs:
        lines.append(r"learning rate $\eta$")
    more = {"horizon": "planned number of steps", "hess": "estimate of the diagonal of the Hessian"}
    more |= {"noise": "standard normal noise", "w0": "initial weights"}
    lines += [f"{what} ${_INPUTS[name]}$" for name, what in more.items() if name in program.inputs]
    if program.hyperparameters:
        lines.append(", ".join(f"${names[h.name]} = {_number(h.value)}$" for h in program.hyperparameters))
    kinds = {Kind.TENSOR: "", Kind.SCALAR: " (one number)"}
    words = [f"${names[slot.name]} = 0${kinds.get(slot.kind, f' ({slot.kind})')}" for slot in program.slots]
    lines += [f"state {', '.join(words)}"] if words else []
    if program.protected:
        lines.append(rf"$x / y$ stands for $x / (y + {_number(EPSILON)})$; roots and logarithms take $|x|$")
    return lines


def _assignments(program: Program, names: dict[str, str]) -> list[tuple[str, str]]:
    """Return what is assigned in one step: (target, formula) pairs, the weights last."""
    flow = data_flow(program)
    inlined = _inlined(program)
    formulas: dict[Reference, tuple[str, int]] = {}
    lines: list[tuple[str, str]] = []

    def argument(reference: Reference) -> tuple[str, int]:
        if isinstance(reference, float):
            text = _number(reference)
            return text, _NEGATIVE if text.startswith("-") else _PRODUCT if r"\cdot" in text else _ATOM
        if isinstance(reference, int) and reference in formulas:
            return formulas[reference]
        return names[reference if isinstance(reference, str) else program.statements[reference].target], _ATOM

    for index, statement in enumerate(program.statements):
        formula, strength = _formula(statement.op, [argument(r) for r in flow.arguments[index]])
        if index in inlined and len(formula) <= _LONGEST_INLINED:
            formulas[index] = formula, strength
        else:
            lines.append((names[statement.target], formula))
    update, strength = argument(flow.update)
    change = f"\\left({update}\\right)" if strength <= _NEGATIVE else update
    return [*lines, (r"\theta", rf"\theta - {change}")]


def _inlined(program: Program) -> set[int]:
    """Return the statements that may stand where they are read: temporaries of one reader that sees the same names."""
    flow = data_flow(program)
    reads = Counter(r for references in flow.arguments for r in references if isinstance(r, int))
    reads.update(r for r in (flow.update, *flow.next_slots.values()) if isinstance(r, int))
    last = len(program.statements)
    readers = {r: i for i, references in enumerate(flow.arguments) for r in references if isinstance(r, int)}
    slots = set(flow.next_slots.values())
    found: set[int] = set()
    seen: dict[int, set[str]] = {}
    for index, statement in enumerate(program.statements):
        seen[index] = {name for name in statement.args if isinstance(name, str)}
        for reference in flow.arguments[index]:
            if isinstance(reference, int) and reference in found:
                seen[index] |= seen[reference]
        is_update = flow.update == index
        temporary = bool(_TEMPORARY.fullmatch(statement.target)) or (is_update and statement.target == "update")
        between = program.statements[index + 1 : readers.get(index, last)]
        hidden = seen[index] & {other.target for other in between}
        if temporary and reads[index] == 1 and index not in slots and not hidden:
            found.add(index)
    return found


def _formula(op: str, arguments: list[tuple[str, int]]) -> tuple[str, int]:
    """Fill the formula of an op, with parentheses where an argument would fall apart; say how tightly it holds."""
    if op == "identity":
        return arguments[0]
    needed, strength = _grammar(OPS[op].latex, OPS[op].arity)
    texts = [
        text if own >= wanted else rf"\left({text}\right)"
        for (text, own), wanted in zip(arguments, needed, strict=True)
    ]
    return OPS[op].latex.format(*texts), strength


@cache
def _grammar(template: str, arity: int) -> tuple[tuple[int, ...], int]:
    """Return how tightly each argument of a formula must hold together, and how tightly the formula does.

    What stands inside of braces, bars or parentheses is enclosed; for the rest the signs beside it decide.
    """
    outside = _outside(template)
    needed = [_SUM] * arity
    difference = re.fullmatch(r"@0 ([+-]) @1", outside)
    for number in range(arity):
        if re.search(f"@{number}[\\^_]", outside):
            needed[number] = _ATOM
        elif f"@{number}" in outside and not difference:
            needed[number] = _PRODUCT
    if difference:
        needed[1] = _PRODUCT if difference.group(1) == "-" else _SUM
    if re.search(" [+-] ", outside):
        return tuple(needed), _SUM
    if outside.startswith("-"):
        return tuple(needed), _NEGATIVE
    if re.search(r"@\d.*@\d", outside):
        return tuple(needed), _PRODUCT
    return tuple(needed), _POWER if "^" in outside else _ATOM


def _outside(template: str) -> str:
    """Return what no braces, bars or parentheses of a formula enclose, with @0 for its first argument."""
    text = template.replace("{{", "<").replace("}}", ">")
    found, depth, position = "", 0, 0
    while position < len(text):
        mark = _MARK.match(text, position)
        if mark is None:
            found += text[position] if depth == 0 else ""
            position += 1
            continue
        if mark["argument"] is not None:
            found += f"@{mark['argument']}" if depth == 0 else ""
        depth += 1 if mark["open"] else -1 if mark["close"] else 0
        position = mark.end()
    return found


def _names(program: Program) -> dict[str, str]:
    """Return each variable in LaTeX, no two of them alike."""
    variables = [*program.inputs, "w", *(h.name for h in program.hyperparameters), *(s.name for s in program.slots)]
    variables += [statement.target for statement in program.statements]
    found: dict[str, str] = {}
    for variable in dict.fromkeys(variables):
        text = _name(variable)
        found[variable] = text if text not in found.values() else rf"\mathrm{{{_prose(variable)}}}"
    return found


def _name(name: str) -> str:
    """Return a variable in LaTeX: Greek letters by name, hats, numbers as indices, other words upright."""
    if name in _INPUTS:
        return _INPUTS[name]
    stem, _, number = re.fullmatch(r"(.*?)(_?)(\d*)", name).groups()  # type: ignore[union-attr]
    if stem.endswith("hat") and len(stem) > 3:
        return rf"\hat{{{_name(stem[:-3] + number)}}}"
    if stem == "b" and number:
        stem = "beta"
    word = rf"\{stem}" if stem in _GREEK else stem if len(stem) == 1 else rf"\mathrm{{{_prose(stem)}}}"
    return f"{word}_{{{number}}}" if number else word


def _number(value: float) -> str:
    text = f"{value:.17g}" if float(f"{value:.6g}") != value else f"{value:.6g}"
    if float(repr(value)) == value and len(repr(value)) < len(text):
        text = repr(value)
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    power = f"10^{{{int(exponent)}}}"
    return {"1": power, "-1": f"-{power}"}.get(mantissa, rf"{mantissa} \cdot {power}")

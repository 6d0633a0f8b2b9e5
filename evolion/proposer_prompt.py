"""What a language model is asked, and the programs in what it answers. Both are plain text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from evolion.op_table import described
from evolion.primitives.kinds import Kind
from evolion.primitives.ops import LION, OPS
from evolion.progress import fitness_text
from evolion.search.proposals import Parent, Rules

__all__ = ["INPUTS", "language_text", "programs_in", "request_text"]

INPUTS: Mapping[str, str] = MappingProxyType(
    {
        "w": "the weights",
        "g": "the gradient",
        "lr": "the learning rate of this step, already scheduled",
        "t": "the step, from 1",
        "horizon": "the planned number of steps",
        "w0": "the initial weights",
        "loss": "the loss of this step",
        "hess": "an estimate of the diagonal of the Hessian",
        "noise": "standard normal noise of the shape of the weights",
    }
)
"""What each reserved input is, in words."""

_PROTECTION = re.compile(r" \((?:[^()]|\([^()]*\))* under @protected\)")

_EXAMPLE = """{decorator}def train(w, g, m, lr, *, b1=0.9):
    m = interp(g, m, b1)
    update = lr * m
    return update, m
"""


def language_text(rules: Rules) -> str:
    """Return the language in short, as far as the programs of a search may use it; docs/language.md in a page."""
    arithmetic = (
        "Every program begins with the line @protected: log and sqrt take |x|, and x / y is x / (y + 1e-8)."
        if rules.protected
        else "Arithmetic is plain IEEE: add a small constant to what may be zero before dividing by it."
    )
    kinds = [
        f"A slot may have another kind than tensor, by annotation, as in `s: scalar`: {', '.join(map(str, Kind))}. "
        "Row and column hold one number per row or column of each weight matrix, left and right square matrices."
    ]
    wide = not set(rules.vocabulary) <= {*LION, "identity"}
    return "\n".join(
        [
            "You improve update rules for training neural networks. A rule is a program in a small language that looks",
            "like Python. It is called once a step; the new weights are w - update. All values vary by parameter.",
            "",
            "```python",
            _EXAMPLE.format(decorator="@protected\n" if rules.protected else "").rstrip(),
            "```",
            "",
            "One function `train`. Its positional parameters are inputs with a fixed meaning and state slots; slots",
            "start at zero. After `*` stand hyperparameters with a number as default. The body is assignments of",
            "expressions, and a last `return update, slot, ...` with every slot of the signature, in its order.",
            "No imports, loops, conditions, attributes, keyword arguments or other functions than those below.",
            f"At most {rules.maximum_statements} operations. {arithmetic}",
            *(kinds if wide else []),
            "",
            "Inputs:",
            *(f"- {name}: {INPUTS[name]}" for name in rules.inputs),
            "",
            "Operators + - * / ** and the functions:",
            *(_op_line(name, rules.protected) for name in rules.vocabulary if name != "identity"),
        ]
    )


def _op_line(name: str, protected: bool) -> str:
    op = described(OPS[name])
    summary = op["summary"] if protected else _PROTECTION.sub("", op["summary"])
    kinds = f" [{'; '.join(op['kinds'])}]" if "matri" in op["summary"] or len(op["kinds"]) > 1 else ""
    return f"- {op['usage']}: {summary}{kinds}"


def request_text(parents: Sequence[Parent], count: int) -> str:
    """Return what is asked: the parents with their fitness, best first, and how many programs are wanted."""
    shown = []
    for parent in parents:
        shown += [f"Loss {fitness_text(parent.fitness, parent.number)}:", "```python", parent.text.rstrip(), "```", ""]
    return "\n".join(
        [
            "These are the best programs so far, best first; a later stage is better, and then a smaller loss.",
            "",
            *shown,
            f"Propose {count} different programs that could train better, each a whole program in a fenced block of",
            "its own that begins with ```python. Keep what works and try new ideas.",
        ]
    )


def programs_in(answer: str) -> tuple[str, ...]:
    """Return what looks like programs in an answer, in fenced blocks or without; prose around them is left out.

    A text begins with `def train`, or the decorator before it, and ends where its indentation ends, so that several in
    one block are told apart and one that was cut off is still seen. Whether it is a program the parser decides.
    """
    return tuple("\n".join(piece).rstrip() + "\n" for block in _blocks(answer) for piece in _pieces(block))


def _blocks(answer: str) -> Iterator[list[str]]:
    """Yield the lines between fences and those outside of them, each part without common indentation."""
    block: list[str] = []
    for line in answer.expandtabs(4).splitlines():
        if line.lstrip().startswith("```"):
            yield textwrap.dedent("\n".join(block)).split("\n")
            block = []
        else:
            block.append(line)
    yield textwrap.dedent("\n".join(block)).split("\n")


def _pieces(lines: Sequence[str]) -> Iterator[list[str]]:
    piece: list[str] = []
    decorators: list[str] = []
    for line in lines:
        if line.startswith("@"):
            decorators.append(line)
            continue
        if line.startswith("def train"):
            if piece:
                yield piece
            piece = [*decorators, line]
        elif piece and (not line.strip() or line[0] in " )#"):
            piece.append(line)
        elif piece:
            yield piece
            piece = []
        decorators = []
    if piece:
        yield piece

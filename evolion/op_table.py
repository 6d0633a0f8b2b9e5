"""The ops as rows of text, for `evolion ops` and for docs/ops.md: `python -m evolion.op_table > docs/ops.md`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from evolion.primitives.op import Elementwise, Matrixwise, Op, Reduction, Signatures
from evolion.primitives.ops import LION, OPS, VOCABULARIES

__all__ = ["described", "markdown", "usage"]

_HEADINGS = {Elementwise: "Entry by entry", Reduction: "Reductions", Matrixwise: "Matrices"}
_HEAD = """# The ops

Every function of the language: `python -m evolion.op_table > docs/ops.md` writes this page from the records in
`primitives/`, and `evolion ops` prints the same. All of them are the vocabulary `full`; those with a dagger (†) are the
vocabulary `lion`, the functions of the Lion paper's space. What a kind is says [language.md](language.md).
"""


def _letters(op: Op) -> tuple[str, ...]:
    """Return the names of the arguments, as the record's own functions call them."""
    meaning = op.meaning
    if isinstance(meaning, Elementwise):
        function = meaning.jax
    else:
        function = meaning.terms if isinstance(meaning, Reduction) else meaning.compute
    return tuple(inspect.signature(function).parameters)[1:]


def usage(op: Op) -> str:
    """Return how an op is written, such as `x + y` or `interp(x, y, a)`."""
    letters = _letters(op)
    if op.symbol:
        return f" {op.symbol} ".join(letters)
    return letters[0] if op.name == "identity" else f"{op.name}({', '.join(letters)})"


def _kinds(op: Op) -> list[str]:
    """Say in words which kinds an op takes and gives."""
    if isinstance(op.meaning, Elementwise):
        return ["any that go together"] if op.arity else ["scalar"]
    return list(_merged(op.signatures))


def _merged(signatures: Signatures) -> Iterable[str]:
    """Yield one line for all signatures that differ in one argument alone and have one result."""
    results: dict[tuple[str, str], list[str]] = {}
    for kinds, result in signatures.items():
        first, *others = map(str, kinds)
        results.setdefault((", ".join(others), str(result)), []).append(first)
    for (rest, kind), firsts in results.items():
        yield f"{', '.join(filter(None, ['|'.join(firsts), rest]))} → {kind}"


def described(op: Op) -> dict[str, Any]:
    """Return everything that a record says, as plain data."""
    return {
        "usage": usage(op),
        "summary": op.summary,
        "kinds": _kinds(op),
        "latex": op.latex.format(*_letters(op)),
        "domain": op.domain,
        "protected": op.protected is not None,
        "commutative": op.commutative,
        "vocabularies": [name for name, names in VOCABULARIES.items() if op.name in names],
    }


def markdown() -> str:
    """Return the page docs/ops.md."""
    lines = [_HEAD]
    for kind, heading in _HEADINGS.items():
        lines += [f"## {heading}", "", "| op | what it is | kinds | where it is not finite, and the like |"]
        lines.append("| --- | --- | --- | --- |")
        for op in OPS.values():
            if isinstance(op.meaning, kind):
                data = described(op)
                cells = [f"`{data['usage']}`{' †' * (op.name in LION)}", data["summary"], "; ".join(data["kinds"])]
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in (*cells, data["domain"])) + " |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(markdown(), end="")

"""What `evolion show` says about a program: cost, measured properties, the nearest known optimizer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from evolion.discovered.nearest import Nearest, nearest
from evolion.primitives.cost import REFERENCE_SHAPES, Cost, cost
from evolion.primitives.program import Program
from evolion.primitives.properties import Properties, properties

__all__ = ["ProgramReport", "program_report"]

_REACHES = {
    "entry": "each entry on its own",
    "row": "each row as a whole",
    "column": "each column as a whole",
    "row and column": "each row and column as a whole",
    "tensor": "each parameter tensor as a whole",
    "tree": "the whole tree at once",
    None: "not known",
}


@dataclass(frozen=True, slots=True)
class ProgramReport:
    """The parts of a report; `nearest` is None where no known optimizer is near."""

    cost: Cost
    properties: Properties
    nearest: Nearest | None

    def rows(self) -> list[tuple[str, str]]:
        """Return the report for people, a subject and a sentence each."""
        found = self.properties
        return [
            ("nearest", str(self.nearest) if self.nearest else "no known optimizer is near"),
            ("cost", _cost(self.cost)),
            ("state", f"{_count(self.cost.slots, 'slot')}, {_count(self.cost.state, 'number')} per parameter"),
            ("workspace", f"{_count(self.cost.workspace, 'number')} per parameter at once"),
            ("reads", " ".join(found.inputs) or "nothing"),
            ("works on", _REACHES[found.reach]),
            ("gradient", f"{_scale(found)}; {_said(found.odd, 'odd', 'not odd', 'whether odd is not known')}"),
            ("bound", _bound(found)),
            ("lr", _said(found.linear_in_lr, "linear", "not linear", "not known")),
            ("weights", _weights(found)),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        near = self.nearest
        return {
            "cost": asdict(self.cost),
            "properties": asdict(self.properties),
            "nearest": near
            and {
                "name": near.name,
                "exact": near.exact,
                "distance": near.distance,
                "changes": {name: {"known": values[0], "here": values[1]} for name, values in near.changes.items()},
                "learning_rate_scale": near.learning_rate_scale,
                "text": str(near),
            },
        }


def program_report(program: Program) -> ProgramReport:
    """Measure a program, as a rule in less than a few tenths of a second."""
    return ProgramReport(cost(program), properties(program), nearest(program))


def _said(finding: bool | None, yes: str, no: str, unknown: str) -> str:
    return unknown if finding is None else yes if finding else no


def _cost(paid: Cost) -> str:
    parts = [f"{_figure(paid.operations)} operations per parameter"]
    if paid.transcendental:
        parts[0] += f" ({_figure(paid.transcendental)} transcendental)"
    if paid.matrix_operations:
        of = " of " + " and ".join(" x ".join(map(str, shape)) for shape in REFERENCE_SHAPES)
        parts.append(f"{_figure(paid.matrix_operations)} in matrix operations{of}")
    parts += [f"{paid.tensor_operations} per tensor"] if paid.tensor_operations else []
    parts += [f"{paid.scalar_operations} per step"] if paid.scalar_operations else []
    parts += [_count(paid.decompositions, "matrix decomposition")] if paid.decompositions else []
    parts += [f"{_count(paid.tensor_reductions, 'reduction')} of tensors"] if paid.tensor_reductions else []
    parts += [f"{_count(paid.tree_reductions, 'reduction')} of the whole tree"] if paid.tree_reductions else []
    return ", ".join(parts)


def _figure(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.4g}" if number < 1e4 else f"{number:.0f}"


def _scale(found: Properties) -> str:
    if found.gradient_scale_invariant is None:
        return "scale not known"
    start = found.gradient_scale_from
    where = f" (for gradients from {start:g})" if start else ""
    if found.gradient_scale_invariant:
        return f"invariant to its scale{where}"
    return f"proportional to its scale{where}" if found.gradient_scale_equivariant else "depends on its scale"


def _bound(found: Properties) -> str:
    if found.bound is None:
        return _said(found.bounded, "", "grows with the gradient", "not known")
    unit = " lr" if found.linear_in_lr else ""
    decay = ", apart from weight decay" if found.weight_decay else ""
    return f"{found.bound:.3g}{unit} for gradients up to 1e6{decay}"


def _weights(found: Properties) -> str:
    if found.weight_decay is None:
        return "used, not recognised as decoupled weight decay"
    return f"decoupled weight decay {found.weight_decay:.6g}" if found.weight_decay else "no effect"


def _count(number: float, noun: str) -> str:
    return f"{_figure(number)} {noun}" if number == 1 else f"{_figure(number)} {noun}s"

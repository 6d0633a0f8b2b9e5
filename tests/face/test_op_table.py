import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from evolion.cli import cli
from evolion.op_table import described, markdown, usage
from evolion.primitives.op import Op
from evolion.primitives.ops import OPS, VOCABULARIES
from evolion.primitives.parser import parse

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_the_ops_is_up_to_date() -> None:
    """What people read about an op is what its record says."""
    assert (DOCS / "ops.md").read_text(encoding="utf-8") == markdown(), "run python -m evolion.op_table > docs/ops.md"


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_the_usage_of_an_op_is_program_text(op: Op) -> None:
    """The table shows an op as it is written: the text parses, and gives one statement of that op."""
    kinds = next(iter(op.signatures))
    letters = [f"v{place}" for place in range(op.arity)]
    slots = ", ".join(f"{letter}: {kind}" for letter, kind in zip(letters, kinds, strict=True))
    text = usage(op)
    names = described(op)["usage"].replace(f"{op.name}(", "").rstrip(")").split(f" {op.symbol} " if op.symbol else ", ")
    if op.arity:
        for name, letter in zip(names, letters, strict=True):
            slots = slots.replace(f"{letter}:", f"{name}:")
    returned = f", {', '.join(names)}" if op.arity else ""
    program = parse(f"def train({slots}):\n    out = {text}\n    return 0{returned}\n")
    assert [statement.op for statement in program.statements] == [op.name]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_the_command_lists_a_vocabulary(vocabulary: str) -> None:
    """People see what a search may draw, and programs read it as JSON."""
    listed = CliRunner().invoke(cli, ["ops", "--vocabulary", vocabulary])
    assert listed.exit_code == 0
    assert len(listed.output.splitlines()) == len(VOCABULARIES[vocabulary])
    data = json.loads(CliRunner().invoke(cli, ["ops", "--vocabulary", vocabulary, "--json"]).output)
    assert tuple(data) == VOCABULARIES[vocabulary]
    assert all(entry["usage"] and entry["summary"] and entry["kinds"] and entry["latex"] for entry in data.values())

from pathlib import Path

import pytest

import evolion
from evolion.primitives.program import Program
from evolion.search.ablation import removals

RAW = evolion.load(Path(__file__).resolve().parents[2] / "benchmarks" / "lion_raw.txt")
LION = evolion.parse("""
@protected
def train(w, g, v, lr, *, b1=0.8999999761581421, b2=0.9982196781841992, decay=0.4601978361606598):
    m = interp(g, v, b1)
    v = interp(g, v, b2)
    lr = lr * 0.0002171761734643951
    return lr * (sign(m) + decay * w), v
""")


def without(program: Program, op: str) -> Program:
    """The program without its only statement of this op, its argument in its place."""
    index = next(index for index, statement in enumerate(program.statements) if statement.op == op)
    return evolion.simplify(dict(removals(program))[index][0], exact=False)


@pytest.mark.slow
def test_the_raw_program_becomes_lion() -> None:
    """Rules, then two removals that cost a task next to nothing, lead to Lion's seven statements."""
    short = evolion.simplify(RAW, exact=False)
    form = without(without(short, "arcsin"), "clip")
    assert len(form.statements) == 7
    steps = [evolion.key(p) for p in (form, LION)]
    assert steps[0] == steps[1]
    scores = evolion.evaluate([RAW, short, form], "zipf-lm", seeds=(0, 1), learning_rates=(4.0,))
    losses = [score.loss for score in scores]
    assert all(loss is not None for loss in losses)
    assert max(losses) - min(losses) < 0.01, losses

"""What a score of another run must share to be this run's."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from evolion.evaluators import score_keys
from evolion.evaluators.evaluate import evaluate_compiled, evaluate_job
from evolion.evaluators.score_keys import execution_key, origin
from evolion.evaluators.types import Job, Score
from evolion.primitives.keys import structural_key
from evolion.primitives.parser import parse

WRITTEN = """
def train(w, g, m, v, lr, *, b1=0.9, b2=0.99):
    p = m * b1
    q = g * 0.1
    m = p + q
    r = v * b2
    s = square(g)
    s = s * 0.01
    v = r + s
    d = sqrt(v)
    d = d + 1e-8
    u = m / d
    x = w * 0.01
    u = u + x
    u = u * lr
    return u, m, v
"""
RENAMED = '''
def train(w, g, m, v, lr, *, b1=0.9, b2=0.99):
    """The same."""
    old = m * b1
    new = g * 0.1
    # Unused.
    dead = old - new
    m = old + new
    a = v * b2
    b = square(g)
    c = b * 0.01
    v = a + c
    root = sqrt(v)
    bottom = root + 1e-8
    m2 = m / bottom
    decay = w * 0.01
    sum = m2 + decay
    out = sum * lr
    return out, m, v
'''.replace("sum", "total")
CHANGED = {
    "arguments swapped": ("p + q", "q + p"),
    "another constant": ("s * 0.01", "s * 0.02"),
    "another default": ("b2=0.99", "b2=0.98"),
    "another op": ("sqrt(v)", "cbrt(v)"),
    "another slot order": ("g, m, v, lr", "g, v, m, lr"),
    "statements in another order": ("p = m * b1\n    q = g * 0.1", "q = g * 0.1\n    p = m * b1"),
    "protected": ("\ndef train", "\n@protected\ndef train"),
    "another name of a hyperparameter": ("b2", "beta2"),
}


def test_names_dead_code_and_comments_do_not_count() -> None:
    """Two runs that draw the same child under other names share its score."""
    assert execution_key(parse(WRITTEN)) == execution_key(parse(RENAMED))


@pytest.mark.parametrize("change", CHANGED)
def test_what_an_evaluator_may_see_counts(change: str) -> None:
    """Whatever may change a last bit changes the key, even where the structural key is the same."""
    before, after = CHANGED[change]
    changed = WRITTEN.replace(before, after)
    if change == "another slot order":
        changed = changed.replace("return u, m, v", "return u, v, m")
    assert changed != WRITTEN
    assert execution_key(parse(changed)) != execution_key(parse(WRITTEN))


def test_structural_key_would_not_be_enough() -> None:
    """Programs of one structural key are not one to the evaluators; see `execution_key`."""
    swapped = WRITTEN.replace("p + q", "q + p").replace("r + s", "s + r")
    assert structural_key(parse(swapped)) == structural_key(parse(WRITTEN))
    assert execution_key(parse(swapped)) != execution_key(parse(WRITTEN))


@pytest.mark.parametrize("evaluate", [evaluate_job, evaluate_compiled])
def test_equal_keys_have_equal_scores(evaluate: Callable[[Job], Score]) -> None:
    """What a run takes from a store is what it would have computed, bit for bit, on either path."""
    job = Job(0, parse(WRITTEN), "digits-mlp", 30, (0, 3), (0.1, 0.003))
    assert evaluate(job) == evaluate(replace(job, program=parse(RENAMED)))


def test_keys_are_the_same_in_every_process() -> None:
    """A store outlives processes: neither key nor origin hangs on one."""
    script = (
        "import sys\nfrom evolion.evaluators.score_keys import execution_key, origin\n"
        "from evolion.primitives.parser import parse\nprint(execution_key(parse(sys.argv[1])), origin('tag'))"
    )
    score_keys._code.cache_clear()  # somebody may be at work on the sources
    done = subprocess.run([sys.executable, "-c", script, WRITTEN], capture_output=True, text=True, check=True)
    assert done.stdout == f"{execution_key(parse(WRITTEN))} {origin('tag')}\n"


def test_origin_names_the_code() -> None:
    """Scores of another version of the code that computes them are told apart, whatever the evaluator's tag says."""
    assert origin("tag").startswith("tag; numpy ")
    assert "; flax " in origin("tag")
    assert "; code " in origin("tag")
    assert origin("tag") != origin("other tag")

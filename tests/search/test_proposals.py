import pytest
from hypothesis import given
from hypothesis import strategies as st

import evolion
from evolion.primitives.ops import VOCABULARIES
from evolion.search.mutation import mutation_config
from evolion.search.proposals import Proposed, Refusal, Rules, checked

SEED = evolion.known()["adamw_seed"]
RULES = Rules.of(SEED, mutation_config("lion", (("insert", 1.0),), 6))
HEAD = "@protected\ndef train(w, g, m, lr, *, b1=0.9):\n"


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_the_warm_start_of_a_search_keeps_its_rules(vocabulary: str) -> None:
    """What the search itself begins with, and everything like it, may be proposed."""
    rules = Rules.of(SEED, mutation_config(vocabulary, (("insert", 1.0),), 6))
    proposed = checked(str(SEED), rules)
    assert isinstance(proposed, Proposed)
    assert proposed.program.docstring == ""


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("import os\n", Refusal.SYNTAX),
        ("def train(w, g):\n    return nothing\n", Refusal.SYNTAX),
        (HEAD + "    return __import__('os').system('true'), m\n", Refusal.SYNTAX),
        ("(" * 10_000, Refusal.SYNTAX),
        ("#" * 30_000, Refusal.LENGTH),
        (HEAD + "    u = sin(g)\n" + "    u = sin(u)\n" * 9 + "    return u, m\n", Refusal.LENGTH),
        (HEAD.removeprefix("@protected\n") + "    return lr * g, m\n", Refusal.ARITHMETIC),
        ("@protected\ndef train(w, g, hess, lr):\n    return lr * g / hess\n", Refusal.INPUTS),
        ("@protected\ndef train(w, g, lr):\n    return lr * sigmoid(g)\n", Refusal.VOCABULARY),
    ],
)
def test_what_a_search_does_not_consider_is_refused_with_its_reason(text: str, refusal: Refusal) -> None:
    """A model is told why nothing came of its texts, and a text is never more than data."""
    assert checked(text, RULES) is refusal


def test_dead_code_and_comments_do_not_count() -> None:
    """Models explain and leave things over; what becomes a candidate is what the mutations would have made."""
    text = (
        HEAD
        + '    """Why."""\n'
        + "    # so\n    x = sin(g)\n" * 9
        + "    m = interp(g, m, b1)\n    return lr * m, m\n"
    )
    proposed = checked(text, RULES)
    assert isinstance(proposed, Proposed)
    assert (proposed.program.docstring, proposed.program.comments) == ("", ())
    assert len(proposed.program.statements) == 2


@given(st.text(max_size=300) | st.text(alphabet="defg(tran)w,:=\n \t@#*+-0189'\"", max_size=300))
def test_no_text_raises(text: str) -> None:
    """Whatever a model writes, the search goes on."""
    for given_text in (text, HEAD + "    u = " + text):
        assert isinstance(checked(given_text, RULES), Proposed | Refusal)


def test_without_a_vocabulary_of_its_own_the_warm_start_brings_its_inputs() -> None:
    """A warm start that reads `hess` may have children that do."""
    seed = evolion.known()["sgd"]
    assert "hess" not in Rules.of(seed, mutation_config("full", (("insert", 1.0),), 6)).inputs
    sophia = next(program for program in evolion.known().values() if "hess" in program.inputs)
    assert "hess" in Rules.of(sophia, mutation_config("lion", (("insert", 1.0),), 6)).inputs

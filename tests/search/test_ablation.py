from hypothesis import given
from strategies import programs

from evolion.primitives.dataflow import remove_dead_code
from evolion.primitives.keys import structural_key
from evolion.primitives.parser import parse
from evolion.primitives.program import Program
from evolion.search.ablation import removals
from evolion.search.drafts import draft_of, without_statement


def variants(text: str) -> dict[int, list[str]]:
    return {index: [str(program) for program in found] for index, found in removals(parse(text))}


def test_every_fallback_of_each_statement_is_listed() -> None:
    """The earlier binding of the name comes first, then each argument that fits, in their order."""
    found = variants("def train(w, g, lr):\n    u = g * lr\n    u = u + w\n    return sqrt(u)\n")
    texts = {
        0: [
            "def train(w, g):\n    u = g + w\n    update = sqrt(u)\n    return update\n",
            "def train(w, lr):\n    u = lr + w\n    update = sqrt(u)\n    return update\n",
        ],
        1: [
            "def train(g, lr):\n    u = g * lr\n    update = sqrt(u)\n    return update\n",
            "def train(w):\n    update = sqrt(w)\n    return update\n",
        ],
        2: ["def train(w, g, lr):\n    u = g * lr\n    u = u + w\n    return u\n"],
    }
    assert found == texts


def test_a_running_average_can_go() -> None:
    """Ablation of momentum tries the gradient in its place, without the slot."""
    found = variants("def train(g, m, lr):\n    m = interp(g, m, 0.9)\n    return lr * m, m\n")
    assert "def train(g, lr):\n    update = lr * g\n    return update\n" in found[0]


def test_a_name_that_is_bound_anew_is_not_captured() -> None:
    """A use reads the value meant or the variant does not exist; it never reads a later value of the same name."""
    program = parse("def train(g, m):\n    a = m * 2\n    m = g + m\n    return a + m, m\n")
    assert without_statement(draft_of(program), 0, "m") is None
    assert without_statement(draft_of(program), 0, 2.0) is not None


def test_dead_statements_have_no_variants() -> None:
    """Nothing is evaluated to learn that a dead statement makes no difference."""
    program = parse("def train(g):\n    a = sqrt(g)\n    return square(g)\n")
    assert removals(program)[0] == (0, ())


@given(program=programs())
def test_variants_are_new_valid_programs_with_fewer_statements(program: Program) -> None:
    """Each variant is worth its evaluation: valid, alive, shorter, different, and listed once per statement."""
    rows = removals(program)
    assert [index for index, _ in rows] == list(range(len(program.statements)))
    for _, found in rows:
        keys = [structural_key(variant) for variant in found]
        assert len(set(keys)) == len(keys)
        assert structural_key(program) not in keys
        for variant in found:
            assert remove_dead_code(variant) is variant
            assert len(variant.statements) < len(program.statements)
            assert parse(str(variant)) == variant
    assert removals(program) == rows

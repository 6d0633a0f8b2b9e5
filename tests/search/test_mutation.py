import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import programs

from evolion.primitives.dataflow import data_flow, remove_dead_code
from evolion.primitives.keys import structural_key
from evolion.primitives.kinds import Kind
from evolion.primitives.ops import FULL, LION, VOCABULARIES
from evolion.primitives.parser import parse
from evolion.primitives.program import RESERVED, Parameter, Program, infer_kinds
from evolion.search.mutation import MUTATIONS, MutationConfig, breed, mutate, mutation_config
from evolion.search.random_search import random_program
from evolion.search.types import NoProgramError

SLOTS = tuple(Parameter(f"{kind}_slot", kind, slot=True) for kind in Kind)
WIDE = MutationConfig(inputs=tuple(RESERVED), slots=SLOTS)
FULL_WIDE = dataclasses.replace(WIDE, vocabulary=FULL)
ALL = tuple((name, 1.0) for name in MUTATIONS)

ADAMW = parse(strategies.ADAMW)
PARENT = parse("""
def train(w, g, m, v, lr, *, b1=0.9):
    \"\"\"A documented seed.\"\"\"
    m = interp(g, m, b1)
    # With a comment.
    v = v + norm(g) * 0.5
    update = m / sqrt(v)
    update = update + 0.01 * w
    return lr * update, m, v
""")


def only(name: str, **settings: object) -> MutationConfig:
    return dataclasses.replace(MutationConfig(weights=((name, 1.0),)), **settings)  # type: ignore[arg-type]


def children(parent: Program, config: MutationConfig, count: int) -> Iterator[Program]:
    for number in range(count):
        yield mutate(parent, np.random.default_rng([7, number]), config)[0]


def alive(config: MutationConfig) -> st.SearchStrategy[Program]:
    return st.builds(
        lambda seed, protected: random_program(np.random.default_rng(seed), config, (1, 14), protected=protected),
        st.integers(0, 2**32),
        st.booleans(),
    )


any_program = alive(WIDE) | alive(FULL_WIDE) | programs()


@pytest.mark.parametrize("config", [WIDE, FULL_WIDE], ids=["lion", "full"])
@pytest.mark.parametrize("name", MUTATIONS)
@settings(max_examples=60)
@given(parent=any_program, mate=any_program, seed=st.integers(0, 2**32))
def test_every_child_is_a_valid_new_program_without_dead_code(
    name: str, config: MutationConfig, parent: Program, mate: Program, seed: int
) -> None:
    """Nothing that cannot matter is ever evaluated: children construct, differ from the parent and are all alive."""
    config = dataclasses.replace(config, weights=((name, 1.0),), maximum_statements=60)
    if not MUTATIONS[name].applies(remove_dead_code(parent), config, remove_dead_code(mate)):
        return
    try:
        child, mutation, key = breed(parent, np.random.default_rng(seed), config, mate)
    except NoProgramError:
        # Only deletion can leave a program of a few operations without a child; plain assignments are none.
        assert name == "delete"
        assert sum(statement.op != "identity" for statement in remove_dead_code(parent).statements) <= 3
        return
    assert mutation == name
    assert key == structural_key(child) != structural_key(parent)
    assert remove_dead_code(child) is child
    assert parse(str(child)) == child
    assert len(infer_kinds(child)) == len(child.statements)
    assert child.protected == parent.protected


@pytest.mark.parametrize("name", [name for name, row in MUTATIONS.items() if row.thorough])
@settings(max_examples=60)
@given(parent=any_program, mate=any_program | st.none(), seed=st.integers(0, 2**32))
def test_a_thorough_mutation_applies_where_it_finds_a_child(
    name: str, parent: Program, mate: Program | None, seed: int
) -> None:
    """To try is to know: whether such a mutation applies is never worked out apart from the edit."""
    parent, mate = remove_dead_code(parent), None if mate is None else remove_dead_code(mate)
    child = MUTATIONS[name].apply(parent, np.random.default_rng(seed), FULL_WIDE, mate)
    assert (child is not None) == MUTATIONS[name].applies(parent, FULL_WIDE, mate)


def test_a_mutation_that_does_not_apply_draws_nothing() -> None:
    """What a child is does not hang on how it was found out that another mutation does not apply."""
    parent = parse("def train(g, lr):\n    return lr * g\n")
    thorough = [(name, 1.0) for name, row in MUTATIONS.items() if row.thorough]
    config = MutationConfig(weights=(*thorough, ("insert", 1.0)))
    for number in range(30):
        rng, other = np.random.default_rng(number), np.random.default_rng(number)
        child, mutation, _ = breed(parent, rng, config)
        assert mutation == "insert"
        weights = [1.0] * len(config.weights)
        while other.random() * len(weights) < len(weights) - 1:
            weights.pop()
        assert MUTATIONS["insert"].apply(parent, other, config) == child


@pytest.mark.parametrize("config", [WIDE, FULL_WIDE], ids=["lion", "full"])
@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 60))
def test_chains_of_mutations_stay_valid_and_short(config: MutationConfig, seed: int, steps: int) -> None:
    """Many generations from one seed, by all mutations, neither break a program nor let it outgrow its limit."""
    rng = np.random.default_rng(seed)
    config = dataclasses.replace(config, maximum_statements=15, weights=ALL)
    program = mate = ADAMW
    for step in range(steps):
        child, _ = mutate(program, rng, config, mate)
        program, mate = child, program if step % 5 == 0 else mate
        assert len(program.statements) <= 15
        assert parse(str(program)) == program


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_sixty_mutations_of_adamw(vocabulary: str) -> None:
    """What a configuration gives for a vocabulary, from its own seed: sixty generations are valid and alive."""
    config = mutation_config(vocabulary, ALL, 30).for_seed(ADAMW)
    for number in range(10):
        rng = np.random.default_rng(number)
        program = ADAMW
        for _ in range(60):
            program, _ = mutate(program, rng, config, ADAMW)
            assert parse(str(program)) == program
            assert remove_dead_code(program) is program


def test_a_parent_above_the_limit_has_children_that_are_no_longer() -> None:
    """A long seed can be searched from; the limit does not leave it without children."""
    config = MutationConfig(maximum_statements=2)
    assert max(len(child.statements) for child in children(PARENT, config, 200)) <= len(PARENT.statements)


def test_children_carry_no_prose() -> None:
    """What was said about the parent need not be true of its child."""
    assert all(not child.docstring and not child.comments for child in children(PARENT, MutationConfig(), 50))


def test_a_mutation_that_cannot_apply_is_never_drawn() -> None:
    """Weights count among the mutations that apply; where none does, the error says so."""
    bare = parse("def train(g):\n    return g\n")
    config = MutationConfig(weights=(("delete", 1000.0), ("scale", 1000.0), ("modify", 1.0)))
    names = {mutate(bare, np.random.default_rng(i), config)[1] for i in range(20)}
    assert names == {"modify"}
    with pytest.raises(ValueError, match="none of the mutations"):
        mutate(bare, np.random.default_rng(0), only("delete"))
    with pytest.raises(ValueError, match="no child in 5 attempts"):
        mutate(parse("def train(g):\n    a = g\n    return a\n"), np.random.default_rng(0), only("delete", attempts=5))


def test_weights_are_shares() -> None:
    """A mutation is drawn in proportion to its weight."""
    config = MutationConfig(weights=(("insert", 6.0), ("delete", 1.0), ("modify", 3.0)))
    counts = Counter(mutate(PARENT, np.random.default_rng(i), config)[1] for i in range(1000))
    assert abs(counts["insert"] - 600) < 60
    assert abs(counts["modify"] - 300) < 60


def test_insertion_reaches_every_way_of_use() -> None:
    """A new value may take the place of an argument, the update, or a slot's next value."""
    parent = parse("def train(g, m):\n    m = g + m\n    update = square(m)\n    return update, m\n")
    seen: Counter[str] = Counter()
    for child in children(parent, only("insert"), 2000):
        flow = data_flow(child)
        fresh = {i for i, s in enumerate(child.statements) if s.op not in ("add", "square")}
        seen["update"] += flow.update in fresh
        seen["slot"] += any(reference in fresh for reference in flow.next_slots.values())
        seen["argument"] += any(
            reference in fresh
            for statement, references in zip(child.statements, flow.arguments, strict=True)
            if statement.op == "square"
            for reference in references
            if isinstance(reference, int)
        )
    assert min(seen["update"], seen["slot"], seen["argument"]) > 50


@pytest.mark.parametrize("name", ["insert", "modify"])
def test_every_input_and_slot_can_come_into_use(name: str) -> None:
    """Reserved inputs and slots on offer enter the signature when drawn; a slot that wakes is also bound."""
    parent = parse("def train(g, lr):\n    size = norm(g)\n    u = g / size\n    return lr * u\n")
    config = only(name, inputs=tuple(RESERVED), slots=SLOTS, vocabulary=FULL)
    woken: Counter[str] = Counter()
    for child in children(parent, config, 3000):
        flow = data_flow(child)
        woken.update(p.name for p in child.parameters)
        for slot in child.slots:
            assert flow.next_slots[slot.name] != slot.name, f"{slot.name} stays zero for ever:\n{child}"
    assert set(woken) == set(RESERVED) | {slot.name for slot in SLOTS}


def test_a_slot_that_died_can_come_back() -> None:
    """The warm start's slots stay available to all its descendants, as in the paper."""
    seed = parse("def train(g, m, lr):\n    m = interp(g, m, 0.9)\n    return lr * m, m\n")
    heir = parse("def train(g, lr):\n    return lr * g\n")
    assert any(child.slots for child in children(heir, MutationConfig().for_seed(seed), 300))
    assert not any(child.slots for child in children(heir, MutationConfig(slots=()).for_seed(seed), 300))


def test_new_names_read_well_and_are_free() -> None:
    """Fresh names are v1, v2, …; none hides a parameter, a slot on offer or an op."""
    parent = parse("def train(g, v1, lr):\n    v1 = g + v1\n    v2 = v1 * lr\n    return v2, v1\n")
    config = only("insert", slots=(Parameter("v3", Kind.TENSOR, True),))
    targets = {statement.target for child in children(parent, config, 1000) for statement in child.statements}
    assert targets == {"v1", "v2", "v3", "v4", "g", "lr"}


DELETIONS = {
    "an earlier binding comes first": (
        "update = g * lr\n    update = sqrt(update)\n    return update",
        ["return sqrt(lr)", "return sqrt(g)", "return g * lr"],
    ),
    "without one, an argument takes the place": (
        "a = sqrt(g)\n    b = a * lr\n    return exp(b)",
        ["return exp(g * lr)", "return exp(sqrt(g))", "return exp(lr)", "return sqrt(g) * lr"],
    ),
    "an argument must fit": (
        "a = norm(g)\n    b = dot(w, g)\n    return clip(a * w, b)",
        [
            "return clip(g * w, dot(w, g))",
            "a = norm(g)\n    return clip(a * w, lr)",
            "return clip(w, dot(w, g))",
            "a = norm(g)\n    return a * w",
            "a = norm(g)\n    return dot(w, g)",
            "a = norm(g)\n    return a * g",
        ],
    ),
}


@pytest.mark.parametrize("case", DELETIONS)
def test_deletion_falls_back_as_documented(case: str) -> None:
    """Deletion leads exactly to the children listed: all of the required, and nothing else."""
    body, wanted = DELETIONS[case]
    allowed = {structural_key(parse_body(text)) for text in wanted}
    found = {structural_key(child): child for child in children(parse_body(body), only("delete"), 300)}
    unexpected = [str(child) for key, child in found.items() if key not in allowed]
    assert not unexpected, "\n".join(unexpected)


def parse_body(body: str) -> Program:
    return remove_dead_code(parse(f"def train(w, g, lr):\n    {body}\n"))


def test_deleting_a_slots_update_leaves_the_slot_by_its_use() -> None:
    """A slot whose next value is deleted stays zero while it is read, and goes when it is not."""
    parent = parse("def train(g, m):\n    m = g + m\n    return m, m\n")
    texts = {str(child) for child in children(parent, only("delete"), 50)}
    assert texts == {"def train(m):\n    return m, m\n"}


def arguments(program: Program) -> list[str | float]:
    return [argument for statement in program.statements for argument in statement.args]


MODIFICATIONS: dict[str, tuple[str, Callable[[Program], bool]]] = {
    "another variable": ("return square(g)", lambda child: arguments(child) == ["w"]),
    "a new constant": ("return square(g)", lambda child: any(isinstance(a, float) for a in arguments(child))),
    "the update": ("a = square(g)\n    return a", lambda child: not child.statements and child.update == "g"),
    "a scaled literal": (
        "return g * 1024",
        lambda child: any(isinstance(a, float) and a > 64 for a in arguments(child)),
    ),
}


@pytest.mark.parametrize("case", MODIFICATIONS)
def test_modification_reaches(case: str) -> None:
    """Modification eventually gives each kind of change of an argument."""
    body, wanted = MODIFICATIONS[case]
    assert any(wanted(child) for child in children(parse_body(body), only("modify"), 300))


def test_modification_changes_one_argument() -> None:
    """Ops and the number of arguments stay; at most one argument or one hyperparameter differs."""
    parent = parse("def train(w, g, *, b1=0.9):\n    a = g * b1\n    b = a + w\n    return b * g\n")
    for child in children(parent, only("modify"), 300):
        if len(child.statements) < len(parent.statements):
            continue  # What the changed argument read alone has gone as dead code.
        differing = sum(
            old != new
            for before, after in zip(parent.statements, child.statements, strict=True)
            for old, new in zip(before.args, after.args, strict=True)
        )
        assert [s.op for s in child.statements] == [s.op for s in parent.statements]
        assert differing + (child.update != parent.update) <= 1
        if not differing:
            assert child.hyperparameters != parent.hyperparameters or child.update != parent.update


def test_new_constants_are_standard_normal() -> None:
    """New constants come from N(0, 1), as in the paper."""
    parent = parse("def train(g):\n    return square(g)\n")
    drawn = [
        arg
        for child in children(parent, only("insert", new_constant_share=1.0), 3000)
        for statement in child.statements
        for arg in statement.args
        if isinstance(arg, float)
    ]
    assert len(drawn) > 1000
    assert abs(np.mean(drawn)) < 0.1
    assert abs(np.std(drawn) - 1.0) < 0.1


@pytest.mark.parametrize("text", ["def train(g):\n    return g * 0.3\n", "def train(g, *, a=0.3):\n    return g * a\n"])
def test_constants_scale_log_normally(text: str) -> None:
    """Existing constants, literal or default of a hyperparameter, are multiplied by 2^N(0, 1)."""
    logs = []
    for child in children(parse(text), only("scale"), 2000):
        value = child.hyperparameters[0].value if child.hyperparameters else child.statements[0].args[1]
        assert isinstance(value, float)
        logs.append(math.log2(value / 0.3))
    assert abs(np.mean(logs)) < 0.1
    assert abs(np.std(logs) - 1.0) < 0.1


def test_a_rebound_hyperparameter_is_no_constant() -> None:
    """A name that a statement binds anew is a variable: scaling the default would be reported and change nothing."""
    parent = parse("def train(g, *, a=0.3):\n    a = a * g\n    return a + g\n")
    assert not MUTATIONS["scale"].applies(parent, MutationConfig())


@pytest.mark.parametrize("lengths", [(1, 1), (5, 5), (10, 30)])
def test_random_programs_have_the_length_asked_for(lengths: tuple[int, int]) -> None:
    """The random control draws programs of the seed's size, all of them alive and valid."""
    config = dataclasses.replace(WIDE, vocabulary=LION)
    ops: Counter[str] = Counter()
    for number in range(150):
        program = random_program(np.random.default_rng(number), config, lengths)
        assert lengths[0] <= len(program.statements) <= lengths[1]
        assert remove_dead_code(program) is program
        assert parse(str(program)) == program
        ops.update(statement.op for statement in program.statements)
    assert lengths == (1, 1) or set(ops) == set(LION)

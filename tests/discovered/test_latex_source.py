import re

import pytest
from hypothesis import given, settings
from pylatexenc.latexwalker import LatexWalker
from strategies import programs

from evolion.discovered.latex_source import latex_source
from evolion.discovered.library import known
from evolion.primitives.parser import parse
from evolion.primitives.program import Program


def formula(expression: str) -> str:
    """The formula of an update."""
    program = parse(f"def train(g, m, v, lr):\n    y = {expression}\n    z = y\n    return z, m, v\n")
    text = latex_source(program, "name", "")
    return re.search(r"\$y \\gets (.*)\$", text).group(1)  # type: ignore[union-attr]


def check(program: Program) -> None:
    """Environments, braces and formulas are closed, and every line of the algorithm is one command."""
    text = latex_source(program, "some_name", "a table\n 100 % of it")
    LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
    body = text.split(r"\begin{algorithmic}")[1].split(r"\end{algorithmic}")[0].strip().split("\n")
    assert all(re.match(r"\s*\\(Require|For|State|EndFor)\b", line) for line in body)
    assert all(line.count("$") % 2 == 0 for line in body)
    assert all(line.count(r"\left") == line.count(r"\right") for line in body)


@pytest.mark.parametrize("name", known())
def test_known_programs_are_valid_latex(name: str) -> None:
    """Every reference optimizer can go into a paper."""
    check(known()[name])


@settings(max_examples=60)
@given(programs())
def test_any_program_is_valid_latex(program: Program) -> None:
    """Whatever was found can go into a paper: odd names and numbers too."""
    check(program)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("g - m - v", "g - m - v"),
        ("g - (m - v)", r"g - \left(m - v\right)"),
        ("g - (m + v)", r"g - \left(m + v\right)"),
        ("g + (m - v)", "g + m - v"),
        ("(g + m) * v", r"\left(g + m\right) \cdot v"),
        ("g * m * v", r"g \cdot m \cdot v"),
        ("-(g + m)", r"-\left(g + m\right)"),
        ("-g * m", r"\left(-g\right) \cdot m"),
        ("(g * m) ** v", r"\left(g \cdot m\right)^{v}"),
        ("(-g) ** 2", r"\left(-g\right)^{2}"),
        ("square(g + m)", r"\left(g + m\right)^2"),
        ("square(square(g))", r"\left(g^2\right)^2"),
        ("square(sqrt(g))", r"\sqrt{g}^2"),
        ("(g + m) / (v - 1)", r"\frac{g + m}{v - 1}"),
        ("abs(g - m)", r"\left|g - m\right|"),
        ("interp(g - m, v, 0.9)", r"\left(1 - 0.9\right) \left(g - m\right) + 0.9\, v"),
        ("2e-8 * g", r"2 \cdot 10^{-8} \cdot g"),
        ("mod(g, m + v)", r"g \bmod \left(m + v\right)"),
        ("greater(g + m, v)", r"\left[g + m > v\right]"),
    ],
)
def test_parentheses_are_those_that_the_meaning_needs(expression: str, expected: str) -> None:
    """A formula reads as the program computes."""
    assert formula(expression) == expected


def test_no_two_variables_look_alike() -> None:
    """A variable that is called eta is not the learning rate."""
    program = parse("def train(g, eta, lr, theta):\n    eta = eta + lr * theta\n    return eta * g, eta, theta\n")
    text = latex_source(program, "name", "")
    assert r"\mathrm{eta} \gets \mathrm{eta} + \eta \cdot \mathrm{theta}" in text


def test_documentation_and_evidence_are_comments() -> None:
    """The provenance travels with the formula."""
    text = latex_source(known()["lion"], "lion", "better by 3 %")
    assert "% better by 3 %" in text
    assert "% Lion" in text
    assert r"\caption{lion}" in text

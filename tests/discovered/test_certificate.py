import ast
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from evolion.cli import run
from evolion.discovered import certificate as module
from evolion.discovered.certificate import (
    PRECISIONS,
    RUNNERS,
    Certificate,
    CertificateError,
    Comparison,
    certified,
    certify,
)
from evolion.discovered.library import known
from evolion.discovered.optax_runner import updates_of
from evolion.discovered.optax_source import TARGETS, to_source
from evolion.primitives.layout import Layout

FAULTS = {
    "another function": ("jnp.sqrt(vhat)", "jnp.cbrt(vhat)", "float64"),
    "a constant a little off": ("- b1 ** t", "- (b1 + 1e-8) ** t", "float64"),
    "a slot that is not kept": ("m=m,", "m=state.m,", "float64"),
    "state in the dtype of the parameters": ("else jnp.float32", "else jnp.bfloat16", "bfloat16"),
    "updates of the wrong dtype": (".astype(p.dtype)", "", "bfloat16"),
    "arguments of another name": ("def adamw(", "def tiger(", "float64"),
}


def only(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """Certify in one precision and in this process, which is quicker."""
    monkeypatch.setattr(module, "PRECISIONS", {dtype: PRECISIONS[dtype]})
    monkeypatch.setattr(module, "_in_process", in_this_process)


def in_this_process(_: str, source: str, name: str, request: Any, count: int) -> Any:
    exported = ModuleType("exported")
    exec(compile(source, "exported", "exec"), exported.__dict__)
    trials, given = json.loads(request["trials"]), ("w", "g", "hess", "noise", "value")
    arrays = [{what: request[f"{i}/{what}"] for what in given} for i in range(count)]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(optax.tree, "random_like", None)  # the runner replaces it; it is itself again afterwards
            pairs = zip(trials, arrays, strict=True)
            return [updates_of(getattr(exported, name), trial, array) for trial, array in pairs], {"optax": "0"}
    except (AttributeError, TypeError) as error:
        raise CertificateError(str(error)) from None


def test_an_export_carries_its_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`evolion export … --verify` writes into the docstring, and prints, what was run and how far off it was."""
    path = tmp_path / "mine.py"
    assert run(["export", "lion", "--to", "optax", "--verify", "-o", str(path)]) == 0
    out, text = capsys.readouterr().out, path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    docstring = str(ast.get_docstring(tree))
    paragraph = docstring[docstring.index("Verified:") :]
    assert out == f"{paragraph}\nwrote {path}\n"
    assert all(word in paragraph for word in (*PRECISIONS, "optax", "jax", "12 steps"))
    assert all(len(line) <= 100 for line in paragraph.splitlines())
    plain = ast.parse(to_source(known()["lion"], "optax", name="lion"))
    assert [ast.dump(node) for node in tree.body[1:]] == [ast.dump(node) for node in plain.body[1:]]


@pytest.mark.parametrize(("old", "new", "dtype"), FAULTS.values(), ids=FAULTS)
def test_a_fault_in_a_module_is_found(monkeypatch: pytest.MonkeyPatch, old: str, new: str, dtype: str) -> None:
    """What is not the program gets no certificate."""
    only(monkeypatch, dtype)
    source = to_source(known()["adamw"], "optax", name="adamw")
    assert old in source
    with pytest.raises(CertificateError):
        certify(known()["adamw"], "optax", source.replace(old, new), "adamw")


@pytest.mark.parametrize("line", ["import evolion.api", "optax = 1 / 0"])
def test_a_module_that_does_not_run_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """A module that needs Evolion, which the process of the check cannot import, or that fails, is told as such."""
    monkeypatch.setattr(module, "PRECISIONS", {})
    source = to_source(known()["lion"], "optax", name="lion").replace("import optax\n", f"import optax\n{line}\n")
    with pytest.raises(CertificateError, match=r"does not run: .*(evolion|ZeroDivision)") as error:
        certify(known()["lion"], "optax", source, "lion")
    assert "\n" not in str(error.value)


def test_what_fails_is_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 1, one line, no file; and an existing file is refused before anything is run."""

    def refuse(*_: Any) -> Certificate:
        raise CertificateError("the export to optax is not its program")

    monkeypatch.setattr(module, "certify", refuse)
    path = tmp_path / "mine.py"
    command = ["export", "lion", "--to", "optax", "--verify", "-o", str(path)]
    assert run(command) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "evolion: error: the export to optax is not its program\n"
    assert not path.exists()
    path.write_text("mine")
    assert run(command) == 2
    assert "--force" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_the_certificate_as_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json it stands beside the source, which holds it as text."""
    done = Certificate("optax", (Comparison("float64", 1e-16, 1e-10, 2e-16),), {"jax": "1"}, False, False)
    monkeypatch.setattr(module, "certify", lambda *_: done)
    assert run(["export", "lion", "--to", "optax", "--verify", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["certificate"] == done.as_json()
    assert data["certificate"]["comparisons"][0]["tolerance"] == 1e-10
    assert "\n".join(done.lines()) in data["source"]


@pytest.mark.parametrize("target", [target for target in TARGETS if target not in RUNNERS])
def test_what_does_not_run_cannot_be_verified(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad usage is one line that names the targets that can be verified."""
    assert run(["export", "lion", "--to", target, "--verify"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(runner in error for runner in RUNNERS)


def test_random_numbers_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with noise is compared on the same numbers, and the certificate says that drawing them is not."""
    only(monkeypatch, "float32")
    program = known()["gradient_noise"]
    done = certify(program, "optax", to_source(program, "optax", name="mine"), "mine")
    assert done.noise
    assert "Random numbers were replaced" in "\n".join(done.lines())


@pytest.mark.torch
@pytest.mark.parametrize("name", ["adamw", "muon", "sophia_g", "gradient_noise", "prodigy"])
def test_a_torch_module_is_certified(name: str) -> None:
    """What changes weights in place is compared up to the rounding of the weights."""
    pytest.importorskip("torch")
    program = known()[name]
    done = certify(program, "torch", to_source(program, "torch", name="mine"), "mine")
    assert "torch" in done.versions


@pytest.mark.parametrize("name", ["sophia_g", "induced_metric_sgd_log", "addsign_linear_decay", "prodigy"])
def test_every_input_is_passed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Hessian estimate, loss, horizon and initial weights reach the module as they reach the interpreter."""
    only(monkeypatch, "float64")
    certify(known()[name], "optax", to_source(known()[name], "optax", name="mine"), "mine")


def test_nothing_is_said_where_rounding_decides() -> None:
    """Where a rounding of the inputs alone moves updates, a gap is no fault, and the certificate says why."""
    one = Comparison("float32", 0.7, None, 0.3)
    assert one.passed
    lines = Certificate("optax", (one,), {"jax": "1"}, False, False).lines()
    assert any("nothing is decided: rounding alone moves 30%" in line for line in lines)


def test_gap_is_relative_to_each_tensor() -> None:
    """A tensor of small updates is checked as one of large ones; only one side not finite is no small gap."""
    layout = Layout(((2,), (1,), (0,)))
    theirs = np.array([[1000.0, 1.0, 1e-6], [1.0, 1.0, np.nan]])
    assert module._gap(layout, theirs, theirs) == 0
    assert module._gap(layout, theirs + np.array([0, 0, 1e-9]), theirs) == pytest.approx(1e-3)
    assert module._gap(layout, theirs + np.array([1, 0, 0]), theirs) == pytest.approx(1e-3)
    assert module._gap(layout, np.nan_to_num(theirs), theirs) == np.inf


def test_given_numbers_exist_in_the_precision() -> None:
    """Weights and gradients are those that the dtype can hold, so that both sides start from the same."""
    values = np.random.default_rng(0).normal(size=1000)
    np.testing.assert_array_equal(module._rounded(values, "float32"), values.astype(np.float32))
    low = np.asarray(module._rounded(values, "bfloat16"))
    np.testing.assert_array_equal(low, np.asarray(jnp.asarray(low, jnp.bfloat16), np.float64))
    np.testing.assert_allclose(low, values, rtol=2**-8)


@pytest.mark.parametrize("docstring", ['"""One line."""', '"""Two\n\nparagraphs.\n"""'])
def test_the_certificate_ends_the_docstring(docstring: str) -> None:
    """Whatever the docstring, the module says the same before and after."""
    certificate = Certificate("optax", (Comparison("float64", 1e-16, 1e-10, 1e-16),), {"jax": "1"}, False, True)
    source = certified(f"{docstring}\n\nx = 1\n", certificate)
    tree = ast.parse(source)
    assert str(ast.get_docstring(tree)).endswith("With jax 1.")
    assert ast.unparse(tree.body[1]) == "x = 1"
    assert len(tree.body) == 2


@pytest.mark.long
@pytest.mark.parametrize("name", known())
def test_every_known_program_is_certified(name: str) -> None:
    """Each export of the library passes its own check, and float64 always decides."""
    done = certify(known()[name], "optax", to_source(known()[name], "optax", name="mine"), "mine")
    assert all(one.tolerance is not None for one in done.comparisons if one.dtype == "float64")

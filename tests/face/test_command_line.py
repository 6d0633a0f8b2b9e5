import ast
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import evolion
from evolion.cli import cli, run
from evolion.config import RunConfig, SearchConfig
from evolion.errors import JobError
from evolion.evaluators.stages import Reason
from evolion.evaluators.types import EvaluatorUnavailable
from evolion.records import CandidateRecord, Outcome
from evolion.store import RunStore

HEAD = "def train(w, g, m, lr, *, b1=0.9):\n"
BAD_TEXTS = {
    "unknown op": (HEAD + "    u = frobnicate(g)\n    return u, m\n", "frobnicate"),
    "unbound name": (HEAD + "    u = g * zzz\n    return u, m\n", "zzz"),
    "wrong arity": (HEAD + "    u = sign(g, m)\n    return u, m\n", "sign"),
    "wrong kind": ("def train(w, g, n: scalar):\n    n = g\n    return g, n\n", "scalar"),
    "missing return": (HEAD + "    u = g * lr\n", "return"),
    "missing slot": (HEAD + "    return g\n", "m"),
    "import": ("import os\n" + HEAD + "    return g, m\n", "def train"),
    "attribute": (HEAD + "    u = m.__class__\n    return u, m\n", "attribute"),
    "builtin": (HEAD + "    u = eval(m)\n    return u, m\n", "eval"),
    "no Python": ("def train(:\n", "line 1"),
    "empty": ("", "train"),
    "not text": ("\x00", "bad.txt"),
}

TASK = ["--task", "digits-mlp"]
BAD_COMMANDS = {
    "no command": ([], "command"),
    "unknown command": (["discover"], "discover"),
    "unknown option": (["known", "--jsn"], "--jsn"),
    "no output folder": (["search"], "--out"),
    "unknown program": (["show", "adamww"], "adamw"),
    "missing file": (["show", "./missing.txt"], "missing.txt"),
    "folder without run": (["show", "."], "no run"),
    "candidate of no run": (["show", ".:1"], "no run"),
    "candidate that is no number": (["show", "run:x"], "number"),
    "missing candidate": (["show", "run:7"], "candidate 7"),
    "very long name": (["show", "x" * 5000], "long"),
    "unknown task": (["evaluate", "adamw", "--task", "no-such-task"], "digits-mlp"),
    "no task": (["evaluate", "adamw"], "--task"),
    "no program": (["evaluate", *TASK], "PROGRAM"),
    "no seeds": (["evaluate", "adamw", *TASK, "--seeds", "0"], "--seeds"),
    "no steps": (["evaluate", "adamw", *TASK, "--steps", "0"], "--steps"),
    "no trials": (["evaluate", "adamw", *TASK, "--tune", "x"], "--tune"),
    "unknown target": (["export", "lion", "--to", "fortran"], "optax"),
    "no target": (["export", "lion"], "--to"),
    "export over a file": (["export", "lion", "--to", "text", "-o", "mine.txt"], "--force"),
    "export over a folder": (["export", "lion", "--to", "text", "-o", ".", "--force"], "folder"),
    "export to nowhere": (["export", "lion", "--to", "text", "-o", "no/where.txt"], "no/where.txt"),
    "export where nobody may write": (["export", "lion", "--to", "text", "-o", "/proc/lion.txt"], "/proc/lion.txt"),
    "resume nothing": (["resume", "nowhere"], "no run"),
    "resume a file": (["resume", "mine.txt"], "no run"),
    "status of nothing": (["status", "nowhere"], "no run"),
    "missing config": (["search", "missing.toml", "--out", "new"], "missing.toml"),
    "config that is no TOML": (["search", "mine.txt", "--out", "new"], "mine.txt"),
    "unknown config key": (["search", "wrong.toml", "--out", "new"], "lagg"),
    "unknown key on the line": (["search", "--out", "new", "--set", "no.such.key=1"], "'no'"),
    "bad override": (["search", "--out", "new", "--set", "search.lag"], "KEY=VALUE"),
    "bad value": (["search", "--out", "new", "--set", "search.lag=0"], "search.lag"),
    "unknown task in config": (["search", "--out", "new", "--set", "stages.0.task=digits"], "digits-mlp"),
    "unknown warm start": (["search", "--out", "new", "--set", "search.warm_start=adamww"], "adamww"),
    "negative seed": (["search", "--out", "new", "--seed", "-1"], "--seed"),
    "no workers": (["search", "--out", "new", "--workers", "0"], "--workers"),
    "a batch and workers": (["search", "--out", "new", "--batch", "8", "--workers", "2"], "one process on one device"),
    "output folder with a run": (["search", "--out", "run"], "resume"),
    "output folder with files": (["search", "--out", "."], "not empty"),
    "output folder is a file": (["search", "--out", "mine.txt"], "file"),
    "output folder below a file": (["search", "--out", "mine.txt/new"], "mine.txt"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a stopped run, a configuration with a fault and a file of the user's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("not to be touched")
    (tmp_path / "wrong.toml").write_text("[search]\nlagg = 3\n")
    with RunStore.create("run", RunConfig(search=SearchConfig(budget=10)), {"device": "cpu"}) as store:
        for number, text in enumerate(("def train(g, lr):\n    return g\n", "def train(g, lr):\n    return lr\n")):
            store.add_candidate(CandidateRecord(number, None, "seed", text, "00" * 16, "00" * 16, "ok"))
            store.add_outcome(Outcome(number, Reason.FINISHED, (2.0 - number,), 0, False))
    return tmp_path


REPORTED = ["nearest", "cost", "state", "workspace", "reads", "works", "gradient", "bound", "lr", "weights"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("arguments", "word"), BAD_COMMANDS.values(), ids=BAD_COMMANDS)
def test_bad_usage_is_one_clear_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    """Exit status 2, one line that names what to mend, nothing on standard output, no file changed or made."""
    before = contents(folder)
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("evolion: error: ")
    assert captured.err.count("\n") == 1
    assert word in captured.err
    assert contents(folder) == before


@pytest.mark.parametrize("command", ["show", "simplify", "export"])
@pytest.mark.parametrize(("text", "word"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_bad_programs_are_one_clear_line(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str, text: str, word: str
) -> None:
    """A fault in a program text is named with its file, wherever the program goes."""
    (folder / "bad.txt").write_text(text)
    assert run([command, "bad.txt", *(["--to", "text"] if command == "export" else [])]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("evolion: error: ")
    assert word in captured.err
    assert "bad.txt" in captured.err


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--help works everywhere, and every command prints JSON on request."""
    assert run([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "--json" in out


JSON_COMMANDS: dict[str, tuple[list[str], Callable[[Any], bool]]] = {
    "known": (["known"], lambda data: set(data) == set(evolion.known())),
    "tasks": (["tasks"], lambda data: set(data) == set(evolion.tasks())),
    "tasks of a set": (["tasks", "--set", "smoke", "--digests"], lambda data: len(data["digits-mlp"]["digest"]) == 64),
    "show": (["show", "lion"], lambda data: evolion.parse(data["text"]) == evolion.known()["lion"]),
    "show what is measured": (["show", "lion"], lambda data: data["report"]["properties"]["gradient_scale_invariant"]),
    "show what is near": (["show", "lion"], lambda data: data["report"]["nearest"]["name"] == "lion"),
    "show what is far": (["show", "run:1"], lambda data: data["report"]["nearest"] is None),
    "show lifted": (["show", "run:0", "--lift"], lambda data: data["hyperparameters"] == {}),
    "show the best of a run": (["show", "run"], lambda data: data["text"].endswith("return lr\n")),
    "show a candidate": (["show", "run:0"], lambda data: data["text"].endswith("return g\n")),
    "simplify": (["simplify", "adam"], lambda data: data["statements"] == data["statements_before"]),
    "simplify approximately": (["simplify", "run:0", "--approximate"], lambda data: sum(data["fired"].values()) == 1),
    "export": (["export", "lion", "--to", "optax"], lambda data: "import optax" in data["source"]),
    "status": (["status", "run"], lambda data: data["state"] == "stopped" and data["counts"]["told"] == 2),
    "evaluate": (
        ["evaluate", "sgd", "lion", *TASK, "--steps", "3"],
        lambda data: [(row["program"], row["status"]) for row in data] == [("sgd", "ok"), ("lion", "ok")],
    ),
}


@pytest.mark.parametrize(("arguments", "check"), JSON_COMMANDS.values(), ids=JSON_COMMANDS)
def test_json_is_json(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], check: Callable[[Any], bool]
) -> None:
    """--json prints one value that a program can read, and nothing else."""
    assert run([*arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert check(json.loads(captured.out))
    assert captured.err == ""
    assert run(arguments) == 0
    assert capsys.readouterr().out


def test_tuned_evaluation_is_on_other_seeds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --tune every program gets as many trials, and the reported runs are not those that selected."""
    options = ["--steps", "3", "--tune", "2", "--seeds", "2", "--workers", "1", "--json"]
    assert run(["evaluate", "adamw", "sgd", *TASK, *options]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["trials"] for row in rows] == [2, 2]
    assert [[one["seed"] for one in row["runs"]] for row in rows] == [[1, 2], [1, 2]]


def test_what_is_shown_can_be_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text of `show` is a program text with a report below, and an export with --force replaces the file, whole."""
    for name in ("adamw", "lion", "lamb", "adafactor", "soap"):
        assert run(["show", name]) == 0
        shown = evolion.parse(capsys.readouterr().out)
        assert replace(shown, comments=()) == evolion.known()[name]
        assert [comment.text.split()[0] for comment in shown.comments] == REPORTED
    assert run(["export", "lion", "--to", "optax", "-o", "mine.txt", "--force"]) == 0
    tree = ast.parse((folder / "mine.txt").read_text())
    assert "lion" in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert sorted(path.name for path in folder.iterdir()) == ["mine.txt", "run", "wrong.toml"]


@pytest.mark.parametrize("command", [["show"], ["export", "--to", "text"], ["export", "--to", "optax"]])
def test_lifted_constants_have_names(folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    """With --lift the numbers of a found program become arguments that a user can set; without it they stay numbers."""
    text = "def train(w, g, m, lr):\n    m = interp(g, m, 0.9)\n    return lr * (sign(m) + 0.01 * w), m\n"
    (folder / "found.txt").write_text(text)
    for options, named in (([], False), (["--lift"], True)):
        assert run([*command, "found.txt", *options]) == 0
        assert ("weight_decay" in capsys.readouterr().out) is named


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (KeyboardInterrupt(), 1, "evolion resume run"),
        (JobError("every candidate failed"), 1, "every candidate failed"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (JobError("no child of this program:\ndef train(g):\n    return g\n"), 1, "def train(g): return g"),
        (EvaluatorUnavailable("no Ray at 'x:1'"), 2, "no Ray at 'x:1'"),
    ],
    ids=["Ctrl-C", "failed work", "full disk", "long message", "no cluster"],
)
def test_failures_have_their_exit_status(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    code: int,
    words: str,
) -> None:
    """A run that is stopped says how it goes on; what fails later than its input says so in one line."""

    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setitem(sys.modules, "evolion.driver", SimpleNamespace(resume=fail))
    assert run(["resume", "run"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert words in captured.err


@pytest.mark.parametrize("arguments", [["search", "--out", "new"], ["show", "adamw"]], ids=["search", "show"])
def test_interrupt_before_there_is_a_run(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Ctrl-C while the command still loads or reads its input is one line too."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("evolion.api.known", interrupt)
    assert run(arguments) == 1
    assert capsys.readouterr().err.strip() == "evolion: interrupted"
    assert not (folder / "new").exists()


def test_status_speaks_of_stages_as_the_view_does(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stages count from 1 wherever a person reads of them, and the best candidate has its number."""
    assert run(["status", "run"]) == 0
    out = capsys.readouterr().out
    assert "stage 1 " in out
    assert "stage 0" not in out
    assert re.search(r"^best +1 \(candidate 1\)$", out, re.MULTILINE)


def test_faults_of_our_own_keep_their_traceback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but what is known to be the user's input is blamed on the user."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("a defect")

    monkeypatch.setitem(sys.modules, "evolion.driver", SimpleNamespace(resume=fail))
    with pytest.raises(ValueError, match="a defect"):
        run(["resume", "run"])


def test_the_installed_command_works(folder: Path) -> None:
    """The script answers bad input without a traceback, and a reader that leaves early does not upset it."""
    script = Path(sys.executable).with_name("evolion")
    done = subprocess.run([script, "show", "adamww"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("evolion: error: ")
    piped = subprocess.run(f"{script} show adamw | true", shell=True, capture_output=True, text=True)
    assert piped.stderr == ""


def test_help_loads_nothing_heavy(folder: Path) -> None:
    """The command line answers at once: no numerical library, no data checks, no drawing until they are needed."""
    code = "import sys\nfrom evolion.cli import run\nrun(['--help'])\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stderr.split()) & {"jax", "ray", "numpy", "pydantic", "rich", "scipy", "optax"}


@pytest.mark.parametrize("name", ["run_status", "cli_watch", "driver", "run_report"])
def test_a_run_loads_nothing_that_draws(name: str) -> None:
    """A search and a look at one start without what draws, telemetry and the libraries of other algorithms."""
    code = f"import sys, evolion.{name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"matplotlib", "ribs", "numba", "pandas", "httpx", "tensorboardX", "ray"}

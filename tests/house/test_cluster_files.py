import copy
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from evolion.cli import cli
from evolion.config_text import read_config

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "cluster"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CLUSTERS = sorted(path.name for path in FOLDER.glob("*.yaml") if "provider:" in path.read_text(encoding="utf-8"))
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.sh"))
COMMANDS = [name for name in yaml.safe_load((FOLDER / CLUSTERS[0]).read_text()) if name.endswith("_commands")]


def cluster(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return loaded


def evolion_commands(text: str) -> list[list[str]]:
    """The arguments of each command of ours in a text, as far as they are options and names of commands."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"(?:exec |-m |^|[`'\s])evolion ([a-z]+\b[^\n;|`']*)", joined, flags=re.MULTILINE)
    lines = [line.split("#")[0].split() for line in found]
    return [words for words in lines if words[0] in cli.commands]


def test_there_is_a_cluster_of_each_kind() -> None:
    """Processors, GPUs and TPU pods each have a file, and every file is named in the page."""
    assert {name.removesuffix(".yaml").rpartition("-")[2] for name in CLUSTERS} == {"cpu", "gpu", "tpu"}
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert not [path.name for path in FOLDER.iterdir() if path.name != "README.md" and f"({path.name})" not in page]


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_is_what_ray_reads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ray up` does not refuse the file: Ray's own schema and checks accept it, before and after its defaults."""
    monkeypatch.chdir(ROOT)
    import jsonschema
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    read = cluster(name)
    jsonschema.validate(read, schema)
    prepared = prepare_config(copy.deepcopy(read))
    validate_config(prepared)
    kinds = prepared["available_node_types"]
    assert kinds[prepared["head_node_type"]]["max_workers"] == 0
    assert sum(kind["max_workers"] for kind in kinds.values()) >= read["max_workers"]
    image = {str(value) for key, value in read["docker"].items() if "image" in key}
    assert all(part.startswith("rayproject/ray:") for part in image)


@pytest.mark.parametrize("name", CLUSTERS)
def test_a_cluster_asks_for_a_token_and_keeps_its_workers_awake(name: str) -> None:
    """Where one process of Ray lacks the token or has niceness 15, a cluster fails or starves in silence."""
    read = cluster(name)
    assert "/home/ray/.ray/auth_token" in read["file_mounts"]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        started = next(command for command in read[key] if "ray start" in command)
        assert "export RAY_AUTH_MODE=token RAY_worker_niceness=0; ray start" in started
    assert "--autoscaling-config" in " ".join(read["head_start_ray_commands"])
    assert any("RAY_AUTH_MODE=token" in command and ".bashrc" in command for command in read["setup_commands"])


@pytest.mark.parametrize("name", CLUSTERS)
def test_what_a_cluster_runs_is_a_script(name: str) -> None:
    """A quote that is not closed would show when the machines are paid for."""
    read = cluster(name)
    for key in COMMANDS:
        for command in read[key]:
            subprocess.run(["bash", "-n", "-c", command], check=True)
            shlex.split(command)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_sound(name: str) -> None:
    """They are bash, may be executed, and stop at the first error."""
    path = FOLDER / name
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert path.stat().st_mode & stat.S_IXUSR
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")
    checker = Path(sys.executable).with_name("shellcheck")
    if checker.exists():
        subprocess.run([str(checker), str(path)], check=True)


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_commands_exist(path: Path) -> None:
    """Every command and option of ours that a page or a script gives is one that there is."""
    for command, *words in evolion_commands(path.read_text(encoding="utf-8")):
        options = {name for parameter in cli.commands[command].params for name in parameter.opts}
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= options, f"evolion {command}: {given - options}"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.name)
def test_configurations_are_read(path: Path) -> None:
    """What stands beside a cluster's file fits this version."""
    assert read_config(path).workers != read_config().workers


def test_extras_exist() -> None:
    """What is installed with the wheel is an extra that there is."""
    known = set(PROJECT["optional-dependencies"])
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8")
        for extras in re.findall(r"(?:evolion|\.whl\)|wheel})\[([a-z,-]+)\]", text):
            assert set(extras.split(",")) <= known, path.name
        for version in re.findall(r"evolion-(\d[\d.]*)-py3", text):
            assert version == PROJECT["version"], path.name


def instructions() -> list[tuple[str, str]]:
    lines = (FOLDER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2]) for line in lines if line.strip() and line[0] != "#"]


def test_the_container_is_one() -> None:
    """Known instructions in an order that Docker takes, a command of ours, and no root."""
    found = instructions()
    names = [name for name, _ in found]
    assert names[0] == "FROM"
    assert set(names) <= {"FROM", "ARG", "RUN", "COPY", "USER", "WORKDIR", "ENV", "ENTRYPOINT", "CMD"}
    last = dict(found)
    assert json.loads(last["ENTRYPOINT"]) == ["evolion"]
    assert json.loads(last["CMD"]) == ["--help"]
    assert last["USER"] == "1000"
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in ("RUN", "COPY"))
    for name, text in found:
        if name == "RUN":
            subprocess.run(["bash", "-n", "-c", text], check=True)


def test_the_kubernetes_job_is_read() -> None:
    """It is a RayJob with a head, workers and a token; its entry point is a script."""
    job = yaml.safe_load((FOLDER / "kuberay.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    volumes = spec["headGroupSpec"]["template"]["spec"]["volumes"]
    mounts = spec["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {volume["name"] for volume in volumes} == {mount["name"] for mount in mounts}
    program, option, script = shlex.split(job["spec"]["entrypoint"])
    assert (program, option) == ("bash", "-c")
    subprocess.run(["bash", "-n", "-c", script], check=True)


STUBS = {
    "scontrol": 'echo "scontrol $*" >>"$SAID"; [[ $1 != show ]] || printf "one\\ntwo\\n"',
    "getent": "echo 10.0.0.1 STREAM one",
    "srun": 'echo "srun $*" >>"$SAID"; for word; do shift; [[ $word != --export=ALL ]] || break; done; exec "$@"',
    "ray": 'echo "ray $*" >>"$SAID"; [[ $1 != start ]] || sleep 0.2',
    "sleep": "exec /bin/sleep 0.1",
    "evolion": 'echo "evolion $*" >>"$SAID"; [[ $1 == resume ]] || { mkdir -p "$RUN"; touch "$RUN/run.sqlite"; '
    "trap 'exit 130' INT; while :; do /bin/sleep 0.05; done; }",
}


def on_slurm(folder: Path, run: Path) -> tuple["subprocess.Popen[bytes]", Path]:
    """The script as SLURM starts it, with programs in the place of SLURM's, Ray's and ours that say what they are
    asked."""
    programs, said = folder / "bin", folder / "said"
    programs.mkdir(exist_ok=True)
    for name, body in STUBS.items():
        path = programs / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}", "SAID": str(said), "RUN": str(run), "CONFIG": "my.toml",
        "SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "two nodes", "SLURM_CPUS_PER_TASK": "3",
        "SLURM_SUBMIT_DIR": str(ROOT), "WORKERS": "7",
    }  # fmt: skip
    environment.pop("RAY_AUTH_TOKEN_PATH", None)
    script = FOLDER / "slurm.sh"
    return subprocess.Popen(["bash", str(script)], env=environment, cwd=folder, start_new_session=True), said


def test_a_slurm_job_goes_on_after_its_time(tmp_path: Path) -> None:
    """Every node has a Ray that is started again; at the signal the driver stops and the job is queued again, and then
    the same script resumes the run."""
    run = tmp_path / "runs" / "big"
    job, said = on_slurm(tmp_path, run)
    try:
        until = time.monotonic() + 60
        while not (run / "run.sqlite").exists() or said.read_text().count("ray start --block --address") < 2:
            assert time.monotonic() < until
            assert job.poll() is None
            time.sleep(0.05)
        job.send_signal(signal.SIGINT)
        assert job.wait(30) == 130
        text = said.read_text()
        assert "ray start --block --head --node-ip-address=10.0.0.1 --port=20012 --num-cpus=3" in text
        assert "ray start --block --address=10.0.0.1:20012 --num-cpus=3" in text
        assert f"evolion search my.toml --out {run} --ray auto --workers 7 --progress" in text
        assert "scontrol requeue 12" in text
        token = run.with_name("big.token")
        assert len(token.read_text().strip()) == 64
        assert token.stat().st_mode & 0o077 == 0
        job, said = on_slurm(tmp_path, run)
        assert job.wait(30) == 0
        assert f"evolion resume {run} --ray auto --workers 7 --progress" in said.read_text()
        assert said.read_text().count("scontrol requeue") == 1
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)

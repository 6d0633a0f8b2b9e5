import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from evolion.evaluators.working_environment import package_folder
from evolion.store import RunStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("aiohttp_cors") is None, reason="needs the extra cluster: Ray's job server"),
]

RAY = [sys.executable, "-c", "from ray.scripts.scripts import main; main()"]
STAGE = '{task = "digits-mlp", steps = 5}'
SMALL = (
    *("search.budget=6", "search.lag=2", f"stages=[{STAGE}]", "ablation.enabled=false"),
    f'retest={{finalists = 1, trials = 1, seeds = 2, baselines = ["sgd"], tasks = [{STAGE}]}}',
)


def wheel_of(folder: Path) -> Path:
    """A wheel of the package as it is here: what `python -m build` makes, without its build environment."""
    package = package_folder(folder / "copy")
    path = folder / "evolion-0.1.0-py3-none-any.whl"
    about = {
        "METADATA": "Metadata-Version: 2.1\nName: evolion\nVersion: 0.1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for file in sorted(package.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                wheel.write(file, f"evolion/{file.relative_to(package)}")
        for name, text in about.items():
            wheel.writestr(f"evolion-0.1.0.dist-info/{name}", text)
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def head(tmp_path: Path) -> Iterator[tuple[str, dict[str, str], Path]]:
    """A Ray of its own with its job server: its URL, the environment of who talks to it, its folder."""
    with TemporaryDirectory(prefix="ev") as folder:  # a socket's path must be short
        environment = os.environ | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ab" * 32, "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
        }  # fmt: skip
        environment.pop("RAY_ADDRESS", None)
        port = free_port()
        options = ["--node-ip-address=127.0.0.1", f"--port={free_port()}", "--num-cpus=2", f"--temp-dir={folder}"]
        options += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--object-store-memory=200000000"]
        # Ray has one port for this agent, 52365: where another Ray of the machine holds it, this one takes no jobs.
        options += ["--dashboard-agent-listen-port=0"]
        with (tmp_path / "head.log").open("w") as log:
            command = [*RAY, "start", "--head", "--block", *options]
            # Jobs begin in this folder: in the repository's, its folder evolion/ would hide the package.
            ray = subprocess.Popen(
                command, env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
            )
            try:
                wait_for(f"http://127.0.0.1:{port}/api/version", ray, tmp_path / "head.log")
                yield f"http://127.0.0.1:{port}", environment, Path(folder)
            finally:
                ray.terminate()
                try:
                    ray.wait(40)
                finally:
                    if ray.poll() is None:
                        os.killpg(ray.pid, signal.SIGKILL)


def wait_for(url: str, ray: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 120
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {'ab' * 32}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        assert ray.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        try:
            with opener.open(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)


def submitted(command: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Ray's server waits ten seconds for the agent of its node, which takes the jobs: too few on a busy machine."""
    until = time.monotonic() + 120
    while True:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
        if done.returncode == 0 or "No available agent" not in done.stderr or time.monotonic() > until:
            return done
        time.sleep(1)


def test_a_job_brings_its_wheel(head: tuple[str, dict[str, str], Path], tmp_path: Path) -> None:
    """`ray job submit` with the wheel in its runtime environment runs a whole search: the command of docs/cluster, and
    what it imports is what was sent."""
    url, environment, folder = head
    wheel, out = wheel_of(tmp_path), tmp_path / "run"
    command = [*RAY, "job", "submit", "--address", url, "--runtime-env-json", f'{{"py_modules": ["{wheel}"]}}', "--"]
    search = [sys.executable, "-m", "evolion", "search", "--out", str(out), "--ray", "auto", "--workers", "1"]
    search += [word for override in SMALL for word in ("--set", override)]
    done = submitted(command + search, environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    with RunStore.open(out, readonly=True) as run:
        assert run.winner() is not None
        assert run.counts().told == 6
    # `working_environment` leaves the sending to Ray: there is the package of the job and no second one.
    sent = list((folder / "session_latest" / "runtime_resources" / "py_modules_files").glob("*/evolion/__init__.py"))
    assert len(sent) == 1

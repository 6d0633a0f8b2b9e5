"""The benchmark of chaos in a short form."""

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parents[2] / "benchmarks" / "scale" / "chaos.py"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_run_under_chaos_is_the_undisturbed_run(tmp_path: Path) -> None:
    """Workers, nodes and the driver of a real search are killed all the time: the run comes out the same."""
    pace = ["--minutes", "0.8", "--worker-every", "8", "--node-every", "22", "--node-back", "6", "--driver-kills", "1"]
    words = [sys.executable, str(CHAOS), *pace, "--budget", "40", "--out", str(tmp_path / "kills.md")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=550)

    assert done.returncode == 0, done.stdout + done.stderr
    table = (tmp_path / "kills.md").read_text(encoding="utf-8")
    assert "the same run but for times: no candidate lost, none counted twice" in table
    assert all(f"| {what} | 0 |" not in table for what in ("worker", "node", "driver"))

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TESTS = Path(__file__).parents[1]
STORE = 80 * 2**20

DRIVER = """
import json, logging, sys
from contextlib import closing
logging.basicConfig(level=logging.WARNING, format="%(message)s")
sys.path.append(sys.argv[2])
from evolion.evaluators.environment import prepare
prepare()
from evolion.evaluators.factory import make_evaluator
from evolion.evaluators.types import Job
from evolion.discovered.library import known
from evolion.proxies.registry import get_task
from worker_reports import report_data
tasks = ["digits-mlp", "text-lm"]
with closing(make_evaluator(2, sys.argv[1], function=report_data, tasks=tasks)) as evaluator:
    for number, task in enumerate(tasks):
        evaluator.submit(Job(number, known()["sgd"], task, 1, (0,), (0.1,)))
    scores = {}
    while finished := evaluator.collect():
        scores |= {job.task: json.loads(score.message) for job, score in finished}
print(json.dumps({task: [scores[task]["opened"], scores[task]["digest"] == get_task(task).digest] for task in tasks}))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster whose nodes have another Evolion, one that cannot be imported, and hardly any object store."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "evolion").mkdir()
    (folder / "evolion" / "__init__.py").write_text("raise ImportError('not the code of the driver')\n")
    own = {"PYTHONPATH": os.pathsep.join([str(folder), str(TESTS)]), "RAY_worker_niceness": "0"}
    command = [sys.executable, str(TESTS / "ray_nodes.py"), "2", str(STORE)]
    with subprocess.Popen(
        command, env=os.environ | own, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()
        process.wait(60)


def test_a_cluster_without_the_code_and_with_a_full_object_store_computes(cluster: str, tmp_path: Path) -> None:
    """Workers run the code of the driver; what the store has no room for each makes for itself, and the log says so."""
    command = [sys.executable, "-c", DRIVER, cluster, str(TESTS)]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == {"digits-mlp": [False, True], "text-lm": [True, True]}
    (line,) = [line for line in found.stderr.splitlines() if "object store" in line]
    assert line.startswith(
        "not in Ray's object store, so that each worker reads or makes it for itself: text-lm: 97 MiB"
    )

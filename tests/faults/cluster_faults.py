"""A run on a cluster whose first node freezes and whose head dies: python cluster_faults.py CONFIG RUN.

Prints, as JSON, the seconds that each took to be noticed, the exit status of the driver and what it said.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from run_contents import told

HERE = Path(__file__).resolve().parent
NOTICED_SOON = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
}
ROOM = {"object_store_memory": 80 * 2**20}


def wait_until_told(folder: Path, number: int, driver: "subprocess.Popen[bytes]") -> float:
    begun = time.monotonic()
    while told(folder) < number and driver.poll() is None and time.monotonic() - begun < 120:
        time.sleep(0.05)
    return time.monotonic() - begun


def freeze(node: Any) -> list[int]:
    """Stop a node and all that runs there: it answers nobody, as a machine that hangs or whose cable is out."""
    raylet = node.all_processes["raylet"][0].process.pid
    children = [int(word) for word in Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()]
    for process in [*children, raylet]:
        os.kill(process, signal.SIGSTOP)
    return [*children, raylet]


def main(config: Path, folder: Path) -> None:
    os.environ |= NOTICED_SOON | {"RAY_worker_niceness": "0", "EVOLION_TEST_SECONDS": "0.3"}
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **ROOM})
    frozen: list[int] = []
    with tempfile.TemporaryFile() as log:
        try:
            first, _ = [cluster.add_node(num_cpus=1, **ROOM) for _ in range(2)]
            words = [sys.executable, str(HERE / "command_line.py"), cluster.address, "search", config, "--out", folder]
            driver = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log)
            wait_until_told(folder, 10, driver)
            frozen = freeze(first)
            node = wait_until_told(folder, 30, driver)
            cluster.add_node(num_cpus=1, **ROOM)
            wait_until_told(folder, 45, driver)
            cluster.head_node.all_processes["gcs_server"][0].process.kill()
            begun = time.monotonic()
            status = driver.wait(120)
            head = time.monotonic() - begun
        finally:
            for process in frozen:
                os.kill(process, signal.SIGKILL)
            for each in cluster.list_all_nodes():
                each.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        log.seek(0)
        said = log.read().decode(errors="replace")
    print(json.dumps({"node": node, "head": head, "status": status, "said": said}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

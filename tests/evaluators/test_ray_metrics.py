import time
import urllib.request
from collections.abc import Iterator

import pytest

from evolion.evaluators.ray_metrics import RayMetrics, connected

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture
def endpoint(local_ray: None) -> Iterator[str]:
    """The address at which a node of a cluster answers Prometheus."""
    ray = pytest.importorskip("ray")
    from evolion.evaluators.ray_connection import connect

    connect("local", 1)
    try:
        (node,) = ray.nodes()
        if node["MetricsExportPort"] <= 0:
            pytest.skip("without the extra cluster (ray[default]) no node exports metrics")
        yield f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    finally:
        ray.shutdown()


def test_the_exporter_of_a_node_has_the_numbers(endpoint: str) -> None:
    """What a run says of itself is where Prometheus reads what a cluster says of itself, under names of its own."""
    assert connected()
    metrics = RayMetrics()
    metrics.set("evolion_best_value", 3.25, {"run": "first"}, text="Value of the best candidate")
    metrics.count("evolion_candidates_told", 40.0, {"run": "first"}, text="Candidates told")
    metrics.count("evolion_candidates_told", 42.0, {"run": "first"}, text="Candidates told")
    metrics.count("evolion_stage_entered", 7.0, {"run": "first", "stage": "1"}, text="Candidates that entered a stage")
    expected = {
        ("ray_evolion_best_value", (), 3.25),
        ("ray_evolion_candidates_told_total", (), 42.0),
        ("ray_evolion_stage_entered_total", ('stage="1"',), 7.0),
    }
    end = time.monotonic() + 60.0
    while missing := {line for line in expected if not said(endpoint, *line)}:
        assert time.monotonic() < end, f"not exported: {missing}"
        time.sleep(1.0)


def said(endpoint: str, name: str, tags: tuple[str, ...], value: float) -> bool:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(endpoint, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return any(
        line.startswith(f"{name}{{")
        and all(tag in line for tag in ('run="first"', *tags))
        and float(line.rsplit(maxsplit=1)[-1]) == value
        for line in lines
    )

"""What a run on Ray tells the monitoring of its cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from evolion.evaluators.ray_metrics import RayMetrics, connected
from evolion.telemetry import Measure, Measurements

__all__ = ["RaySink", "ray_measurements"]


@dataclass(frozen=True, slots=True)
class RaySink:
    """Sets `evolion_candidates_told{run="NAME"}` and the like, and does nothing in a process without Ray.

    Attributes:
        run: The name of the run, by which the numbers of several are told apart.
        metrics: Those of this process.

    """

    run: str
    metrics: RayMetrics = field(default_factory=RayMetrics)

    def write(self, step: int, measures: Sequence[Measure]) -> None:
        """Set a gauge or a counter for each measure."""
        del step
        if not connected():
            return
        for measure in measures:
            name = f"evolion_{measure.name.replace('/', '_')}"
            tags = {"run": self.run, **dict([measure.label] if measure.label else [])}
            give = self.metrics.count if measure.counts else self.metrics.set
            give(name, measure.value, tags, text=measure.help)


def ray_measurements(run: str) -> Measurements:
    """Return an observer that tells Ray's exporter how far the run of this name is."""
    return Measurements(RaySink(run))

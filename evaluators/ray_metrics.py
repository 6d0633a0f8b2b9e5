"""Numbers for the monitoring of a Ray cluster, through Ray's own exporter for Prometheus.

Each node of a cluster answers at its metrics port in the format of Prometheus; Ray puts `ray_` before the names. The
exporter is part of `ray[default]`; with plain `ray` nobody listens, and nothing goes wrong.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["RayMetrics", "connected"]


def connected() -> bool:
    """Whether this process is connected to Ray; loads nothing."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


@dataclass(slots=True)
class RayMetrics:
    """The metrics of this process by name, made as they are needed."""

    _made: dict[str, Any] = field(default_factory=dict)
    _counted: dict[tuple[str, ...], float] = field(default_factory=dict)

    def set(self, name: str, value: float, tags: Mapping[str, str], *, text: str) -> None:
        """Set a gauge to a value. `text` says what it is; a name has the same tags each time."""
        self._metric("Gauge", name, tags, text).set(value, tags=dict(tags))

    def count(self, name: str, value: float, tags: Mapping[str, str], *, text: str) -> None:
        """Bring a counter up to a value; one that is lower than the last is the start of a new count."""
        key = (name, *tags.values())
        before = self._counted.get(key, 0.0)
        added = value - before if value >= before else value
        self._counted[key] = value
        counter = self._metric("Counter", name, tags, text)
        if added > 0:  # Ray's counters refuse nothing at all
            counter.inc(added, tags=dict(tags))

    def _metric(self, kind: str, name: str, tags: Mapping[str, str], text: str) -> Any:
        if name not in self._made:
            from ray.util import metrics

            self._made[name] = {"Gauge": metrics.Gauge, "Counter": metrics.Counter}[kind](
                name, description=text, tag_keys=tuple(tags)
            )
        return self._made[name]

"""Noisy quadratics."""

from evolion.proxies.spec import TaskSpec

SPECS: tuple[TaskSpec, ...] = ()

"""Graph networks."""

from evolion.proxies.spec import TaskSpec

SPECS: tuple[TaskSpec, ...] = ()

"""One language model over three decades of parameters."""

from evolion.proxies.spec import TaskSpec

SPECS: tuple[TaskSpec, ...] = ()

"""Functions of coordinates: implicit images and differential equations."""

from evolion.proxies.spec import TaskSpec

SPECS: tuple[TaskSpec, ...] = ()

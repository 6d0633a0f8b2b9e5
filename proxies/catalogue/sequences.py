"""Sequence models other than plain language: recall, in-context chains, recurrent nets."""

from evolion.proxies.spec import TaskSpec

SPECS: tuple[TaskSpec, ...] = ()

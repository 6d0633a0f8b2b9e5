"""Regression: teacher and student, autoencoder, denoiser, in-context linear regression."""

from evolion.proxies.spec import TaskSpec

SPECS: tuple[TaskSpec, ...] = ()

import os
import subprocess
import sys

import pytest

from evolion.evaluators import environment
from evolion.evaluators.environment import adopt, prepare, settings

COMPUTE = """
import hashlib, sys
from evolion.evaluators.environment import numerics_tag, prepare
prepare()
assert "jax" not in sys.modules
import jax, numpy as np
a, b = (np.random.default_rng(i).standard_normal((700, 700)).astype(np.float32) for i in range(2))
product = np.asarray(jax.jit(lambda x, y: x @ y)(a, b))
print(hashlib.sha256(product.tobytes()).hexdigest(), numerics_tag(), sep="|")
"""
LATE = """
from evolion.evaluators.environment import numerics_tag, prepare
import jax.numpy as jnp
jnp.zeros(3)
prepare()
prepare()
print(numerics_tag())
"""
OWN = ("XLA_FLAGS", "NPROC", "JAX_PLATFORMS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which nobody has set anything; restored afterwards, as is the note of a late setting."""
    monkeypatch.setattr(environment, "_state", {"late": False})
    monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k not in OWN})


def python(script: str, *prefix: str, **variables: str) -> str:
    given = {k: v for k, v in os.environ.items() if k not in OWN} | {"JAX_PLATFORMS": "cpu"} | variables
    command = [*prefix, sys.executable, "-c", script]
    return subprocess.run(command, env=given, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.usefixtures("bare")
def test_preparing_twice_changes_nothing_more() -> None:
    """Every evaluator prepares, in one process perhaps many times."""
    prepare()
    once = dict(os.environ)
    prepare()
    assert dict(os.environ) == once
    assert once["NPROC"] == "1"
    assert once["XLA_FLAGS"] == "--xla_cpu_multi_thread_eigen=false"


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("--xla_dump_to=/x", "--xla_dump_to=/x --xla_cpu_multi_thread_eigen=false"),
        ("--xla_cpu_multi_thread_eigen=true", "--xla_cpu_multi_thread_eigen=true"),
    ],
)
def test_the_users_settings_stand(before: str, after: str) -> None:
    """What a user has set is kept and handed to the workers; the rest is added."""
    os.environ |= {"XLA_FLAGS": before, "NPROC": "4", "JAX_PLATFORMS": "cuda"}
    prepare()
    assert {name: os.environ[name] for name in ("XLA_FLAGS", "NPROC", "JAX_PLATFORMS")} == {
        "XLA_FLAGS": after,
        "NPROC": "4",
        "JAX_PLATFORMS": "cuda",
    }
    shared = settings()
    os.environ.clear()
    adopt(shared)
    assert settings() == shared


@pytest.mark.skipif(sys.platform != "linux", reason="binds a process to one core by taskset")
def test_the_number_of_cores_does_not_change_results() -> None:
    """A score is the same on a laptop and on a large machine: products agree to the last bit, and so do the tags."""
    one = python(COMPUTE, "taskset", "-c", str(min(os.sched_getaffinity(0))))
    assert one == python(COMPUTE)
    assert "1 threads" in one


def test_settings_that_change_results_change_the_tag() -> None:
    """Scores made under other settings are never taken for these."""
    tags = {
        python(COMPUTE).partition("|")[2],
        python(COMPUTE, NPROC="2").partition("|")[2],
        python(COMPUTE, JAX_ENABLE_X64="1").partition("|")[2],
        python(LATE),
    }
    assert len(tags) == 4
    assert python(LATE).endswith("settings made after jax had started")

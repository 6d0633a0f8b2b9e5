"""Settings that make arithmetic equal in every process, made before jax starts. Importing this does not load jax.

XLA splits a matrix product over as many threads as it finds cores, and the split changes the last bits of the sums:
measured with jaxlib 0.10.2, one thread and two give different results. `NPROC=1` is what decides; the often quoted
`intra_op_parallelism_threads=1` in XLA_FLAGS is ignored, and `--xla_cpu_multi_thread_eigen=false` alone leaves the
thread pool as it is.
"""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evolion.evaluators.compilation_cache import LEAST_SECONDS, prune_once
from evolion.proxies.curvature import Curvature

_VARIABLES: Mapping[str, str] = {
    "NPROC": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
}
_COMPILATION_CACHE = "JAX_COMPILATION_CACHE_DIR"
_LEAST_COMPILE_TIME = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
_XLA_FLAGS: Mapping[str, str] = {"--xla_cpu_multi_thread_eigen": "false"}
_HANDED_OVER = ("JAX_", "XLA_")
_LATE = "settings made after jax had started"

_state = {"late": False}


def prepare() -> None:
    """Set one thread per process and jax on the CPU, where the user's environment does not say otherwise.

    For processes that are Evolion's own: workers and the command line, not a notebook that has plans for its GPU. What
    is compiled is kept in the user's cache folder, by class of CPU, so that a worker compiles its loops once and not at
    every start; there it is also tidied up (see `compilation_cache`), which a folder of the user's choice is not.

    Call it before anything computes with jax; repeated calls change nothing. Flags are appended to a user's XLA_FLAGS
    unless the user has set the same flag. Called too late, it says so in `numerics_tag`, so that scores made under
    other settings are never taken for these.
    """
    changes = {name: value for name, value in _VARIABLES.items() if name not in os.environ}
    flags = os.environ.get("XLA_FLAGS", "").split()
    given = {flag.split("=")[0] for flag in flags}
    missing = [f"{name}={value}" for name, value in _XLA_FLAGS.items() if name not in given]
    if missing:
        changes["XLA_FLAGS"] = " ".join(flags + missing)
    if changes and _jax_has_started():
        _state["late"] = True
    os.environ.update(changes)
    folder = _compilation_cache()
    if _COMPILATION_CACHE not in os.environ and folder is not None:
        os.environ[_COMPILATION_CACHE] = str(folder)
    os.environ.setdefault(_LEAST_COMPILE_TIME, str(LEAST_SECONDS))
    if folder is not None and os.environ[_COMPILATION_CACHE] == str(folder):
        prune_once(folder)


def _compilation_cache() -> Path | None:
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        folder = Path(base, "evolion", f"jax-{cpu_class().replace(' ', '-')}")
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def settings() -> dict[str, str]:
    """The variables that a worker process must share with this one, by name: those of `prepare`, all of jax and XLA.

    But for the folder of compiled loops, where it is not the user's choice: another machine has its own.
    """
    shared = {name: value for name, value in os.environ.items() if name in _VARIABLES or name.startswith(_HANDED_OVER)}
    if shared.get(_COMPILATION_CACHE) == str(_compilation_cache()):
        del shared[_COMPILATION_CACHE]
    return shared


def adopt(shared: Mapping[str, str]) -> None:
    """Take over the `settings` of another process, in a worker that has not started jax."""
    os.environ.update(shared)
    prepare()


def numerics_tag(path: str | None = None) -> str:
    """What decides the last bits of a score computed in this process. Starts jax.

    `path` names the execution that computes; without it, it is the interpreter, from which programs are promoted by the
    rule that is named beside it. The rest: versions of jax and jaxlib, device class, number of threads,
    precision settings, the estimate of the Hessian diagonal that programs are given unless told otherwise, XLA flags.
    """
    import jax
    from jaxlib.version import __version__ as jaxlib_version

    from evolion.evaluators.promotion import RULE

    config: Any = jax.config  # Its fields are made at run time.
    device = jax.devices()[0]
    kind = cpu_class() if device.platform == "cpu" else device.device_kind
    parts = [
        path or f"interpreter, {RULE}",
        f"jax {jax.__version__}",
        f"jaxlib {jaxlib_version}",
        f"{device.platform} {kind}",
        f"{os.environ.get('NPROC', 'all')} threads",
        f"{'x64' if config.jax_enable_x64 else 'x32'}",
        f"matmul {config.jax_default_matmul_precision or 'default'}",
        f"random {config.jax_default_prng_impl}",
        f"hess {Curvature()}",
        *sorted(os.environ.get("XLA_FLAGS", "").split()),
    ]
    if _state["late"]:
        parts.append(_LATE)
    return "; ".join(parts)


def cpu_class() -> str:
    """The architecture and the widest vector instructions of this CPU, which XLA compiles for: "x86_64 avx2"."""
    machine = platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return machine
    features = set(next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "").split())
    widest = next((name for name in ("avx512f", "avx2", "avx", "sve", "asimd") if name in features), "")
    return f"{machine} {widest}".strip()


def processors() -> int:
    """The number of processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not every system lets a process see where it may run
        return os.cpu_count() or 1


def _jax_has_started() -> bool:
    # jax has no public way to ask without starting its backends.
    bridge: Any = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bool(bridge.backends_are_initialized())

"""The connection to Ray: on this machine, or to a cluster, whose workers are given the code of this process."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from evolion.evaluators.types import EvaluatorUnavailable
from evolion.evaluators.worker import describe
from evolion.evaluators.working_environment import working_environment

__all__ = ["check_address", "connect", "disconnect"]

_CONNECT_SECONDS = 5.0
_OBJECT_STORE_BYTES = 200 * 2**20
_LOCAL_ENVIRONMENT = {
    # Ray runs its workers at niceness 15; on a machine that does anything else they would starve.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The behaviour to come, and no warning about it: an actor without a GPU sees the environment as it is.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def connect(address: str, processors: int) -> bool:
    """Connect this process to Ray; whether it was not connected before.

    `address`: "local" starts Ray on this machine, with so many processors; "auto" joins the cluster that this machine
    belongs to, "host:port" the cluster at this address. A cluster's workers import the package as it is here; the
    libraries that it needs must be there.

    Raises EvaluatorUnavailable if Ray is missing or nobody answers.
    """
    for name, value in _LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise EvaluatorUnavailable(
            f"Ray cannot be imported ({describe(error)}): install it with pip install ray, or run without Ray"
        ) from error
    if address != "local":
        check_address(address)
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        with TemporaryDirectory(prefix="evolion-") as folder:
            if address == "local":
                options |= {"num_cpus": processors, "include_dashboard": False}
                options["object_store_memory"] = _OBJECT_STORE_BYTES
            else:
                options["runtime_env"] = working_environment(Path(folder))
            ray.init(address=address, **options)
    except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        if address == "auto" and isinstance(error, ConnectionError):
            raise EvaluatorUnavailable(
                "no Ray runs on this machine and RAY_ADDRESS is not set: start it with ray start --head, or use 'local'"
            ) from error
        hint = "" if address == "local" else "; a cluster with token authentication needs RAY_AUTH_MODE=token here too"
        raise EvaluatorUnavailable(f"no Ray at {address!r} ({describe(error)}){hint}") from error
    return True


def disconnect() -> None:
    """Leave Ray; what `connect` has started ends."""
    import ray

    ray.shutdown()


def check_address(address: str) -> None:
    """Raise EvaluatorUnavailable, within seconds, unless something that can be Ray listens at "host:port".

    `ray.init` itself goes on trying for minutes, and logs at each attempt.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
        if address == "auto":
            return  # Ray looks for its processes on this machine and fails at once if there are none.
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "//" in host:
        raise EvaluatorUnavailable(
            f"Ray address {address!r} is neither 'local' nor 'auto' nor HOST:PORT, as in 10.0.0.7:6379"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as connection:
            spoken = _speaks_grpc(connection)
    except OSError as error:
        raise EvaluatorUnavailable(f"no Ray at {address!r}: {error.strerror or error}") from error
    if not spoken:
        raise EvaluatorUnavailable(
            f"no Ray at {address!r}: what listens there is something else (Ray's port is 6379 if not set)"
        )


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether a server answers the preface of HTTP/2 (RFC 9113, 3.4) with a frame of settings, as gRPC servers do."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    header = b""
    while len(header) < 4:
        received = connection.recv(4 - len(header))
        if not received:
            return False
        header += received
    return header[3] == 4

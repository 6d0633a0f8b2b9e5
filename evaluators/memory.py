"""What this process holds in memory, and how much more the system lets it have. Everything in bytes.

The system counts two things. *Resident* is what is in use: pages that have been touched. *Data* is what was asked for
and can be written, touched or not; the kernel refuses more of it beyond RLIMIT_DATA, at once and whatever the process
is doing. The other limit of this kind, RLIMIT_AS, counts address space too that nobody can ever write, of which jax and
Ray reserve many gigabytes, so that it cannot be used here.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import resource

_PAGE = os.sysconf("SC_PAGESIZE") if sys.platform != "win32" else 4096
_REST = 64 * 2**20


def resident_bytes() -> int:
    """What this process has in use; where the system only tells the most that it ever had, that; 0 if it tells nothing.

    What it shares with others counts in full: the text of libraries, and shared memory that it has touched.
    """
    counts = _statm()
    return counts[1] * _PAGE if counts else _most_ever()


def peak_resident_bytes() -> int:
    """The most that this process ever had in use; 0 if the system does not tell."""
    # Not from getrusage if it can be helped: there, a process begins with the peak of the one that it was forked from.
    _, found, rest = _read("/proc/self/status").partition(b"\nVmHWM:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if found else _most_ever()


@contextmanager
def data_limit(more: int | None) -> Iterator[None]:
    """Let this process ask for at most `more` bytes beyond what it has, inside the block; None sets no limit.

    Beyond it, allocations fail: a MemoryError in Python, whatever a library makes of it elsewhere. Does nothing where
    the system does not tell what was asked for.
    """
    counts = _statm()
    if more is None or not counts:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    _set_soft(counts[5] * _PAGE + more, before)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def stop_growth() -> None:
    """Leave this process, which is about to be ended, little more than it has. For good."""
    counts = _statm()
    if counts:
        _set_soft(counts[5] * _PAGE + _REST, resource.getrlimit(resource.RLIMIT_DATA))


def go_first() -> None:
    """Have the system end this process before others when memory runs out, as far as it can be asked to."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _set_soft(wanted: int, limits: tuple[int, int]) -> None:
    bounds = [bound for bound in limits if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([wanted, *bounds]), limits[1]))


def _statm() -> list[int]:
    """Pages: all, resident, shared, text, none, data and stack, none (proc_pid_statm(5)); empty without /proc."""
    return [int(word) for word in _read("/proc/self/statm").split()]


def _read(path: str) -> bytes:
    """What the kernel tells, if it does. Unbuffered, as this is read some fifty times a second."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""


def _most_ever() -> int:
    if sys.platform == "win32":
        return 0
    # POSIX leaves the unit open: bytes on macOS, else kibibytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

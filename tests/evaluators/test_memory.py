import mmap
import resource

import pytest

from evolion.evaluators import memory
from evolion.evaluators.memory import data_limit, peak_resident_bytes, resident_bytes


def test_resident_bytes_follow_what_is_touched() -> None:
    """Reserved memory is not in use; touched memory is, shared or not, and is counted in bytes."""
    size = 64 * 2**20
    with mmap.mmap(-1, size) as block:
        before = resident_bytes()
        block.write(b"x" * size)
        after = resident_bytes()
    assert abs(after - before - size) < size // 4
    assert peak_resident_bytes() >= after


def test_a_data_limit_refuses_and_ends() -> None:
    """Inside, what goes beyond is refused at once, used or not; afterwards the limit is what it was."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with data_limit(64 * 2**20):
        assert len(bytearray(2**20)) == 2**20
        with pytest.raises(MemoryError):
            bytearray(2**28)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(bytearray(2**28)) == 2**28


def test_a_system_without_proc_tells_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the size watched is the most ever held, in bytes, and no limit of data is set."""
    known = peak_resident_bytes()
    monkeypatch.setattr(memory, "_statm", list)
    assert resident_bytes() > known / 2
    with data_limit(1):
        assert len(bytearray(2**20)) == 2**20

"""What a pool counts, for its status."""

from dataclasses import dataclass, field
from typing import Any, final

from evolion.evaluators.staff import Staff
from evolion.evaluators.types import PoolStatus

__all__ = ["Tally"]


@final
@dataclass(slots=True)
class Tally:
    """What a `PoolStatus` says of the past."""

    peak_resident_bytes: int = 0
    recycled: int = 0
    deaths: int = 0
    timeouts: int = 0
    over_memory: int = 0
    quarantined: int = 0
    nodes: set[str] = field(default_factory=set)

    def status(self, staff: Staff[Any]) -> PoolStatus:
        """What the workers do and have been through, as far as they have said."""
        seats = staff.seats
        return PoolStatus(
            workers=staff.wanted,
            ready=seats.ready,
            busy=seats.busy,
            resident_bytes=seats.resident,
            peak_resident_bytes=self.peak_resident_bytes,
            recycled=self.recycled,
            deaths=self.deaths,
            timeouts=self.timeouts,
            over_memory=self.over_memory,
            wanted=staff.wanted,
            quarantined=self.quarantined,
            nodes_lost=len(self.nodes),
            waiting=staff.waiting,
        )

"""Programs with matrix operations."""

from oracles.running import Case

MATRIX: tuple[Case, ...] = ()

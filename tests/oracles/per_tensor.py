"""Programs that look at whole parameter tensors, rows, columns or the whole tree."""

from oracles.running import Case

PER_TENSOR: tuple[Case, ...] = ()

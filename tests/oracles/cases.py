"""Every known program that has an independent implementation among the stored trajectories."""

from oracles.elementwise import ELEMENTWISE
from oracles.matrix import MATRIX
from oracles.per_tensor import PER_TENSOR

CASES = (*ELEMENTWISE, *PER_TENSOR, *MATRIX)

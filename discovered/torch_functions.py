"""What the ops that do not work entry by entry compute, in PyTorch: the texts that generated modules copy.

Evolion reads this file and never imports it. Functions of matrices take matrices and give what
`evolion.primitives.matrices` gives for them; reductions over rows, columns and tensors take one tensor, and those over
a whole tree take lists.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def as_matrix(x: Tensor) -> Tensor:
    """Return x as a matrix: its last axis as columns, all others together as rows; a vector is one row."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1] if x.ndim else 1)


def row_shape(x: Tensor) -> tuple[int, ...]:
    """Return the shape of one number for each row, which broadcasts with x."""
    return (*x.shape[:-1], 1) if x.ndim else ()


def column_shape(x: Tensor) -> tuple[int, ...]:
    """Return the shape of one number for each column, which broadcasts with x."""
    return (*(1,) * (x.ndim - 1), x.shape[-1]) if x.ndim else ()


def left_shape(x: Tensor) -> tuple[int, ...]:
    """Return the shape of a square matrix with the side of the rows of x."""
    return (math.prod(x.shape[:-1]),) * 2


def right_shape(x: Tensor) -> tuple[int, ...]:
    """Return the shape of a square matrix with the side of the columns of x."""
    return (x.shape[-1] if x.ndim else 1,) * 2


def widened(value: Any, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return a tensor of its own with a value broadcast to a shape."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).expand(shape).clone()


def where(condition: Any, x: Any, y: Any, dtype: torch.dtype) -> Tensor:
    """Return x where the condition holds and else y; numbers may stand for all but one of the three."""
    device = next(v.device for v in (x, y, condition) if torch.is_tensor(v))
    condition = torch.as_tensor(condition, device=device)
    return torch.where(condition, *(torch.as_tensor(v, dtype=dtype, device=device) for v in (x, y)))


def cbrt(x: Tensor) -> Tensor:
    """Return the cube root, negative for negative x."""
    return torch.copysign(torch.abs(x) ** (1 / 3), x)


def logaddexp(x: Tensor, y: Any) -> Tensor:
    """Return the logarithm of exp(x) + exp(y)."""
    return torch.logaddexp(x, torch.full_like(x, y))


def norm(x: Tensor) -> Tensor:
    """Return the Euclidean norm of a tensor."""
    return torch.linalg.vector_norm(x)


def tensor_sum(x: Tensor) -> Tensor:
    """Return the sum of a tensor."""
    return x.sum()


def tensor_mean(x: Tensor) -> Tensor:
    """Return the mean of a tensor."""
    return x.mean()


def tensor_max(x: Tensor) -> Tensor:
    """Return the largest entry of a tensor."""
    return x.amax()


def row_norm(x: Tensor) -> Tensor:
    """Return the Euclidean norm of each row."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True) if x.ndim else x.abs()


def row_sum(x: Tensor) -> Tensor:
    """Return the sum of each row."""
    return x.sum(-1, keepdim=True)


def row_mean(x: Tensor) -> Tensor:
    """Return the mean of each row."""
    return x.mean(-1, keepdim=True)


def row_max(x: Tensor) -> Tensor:
    """Return the largest entry of each row."""
    return x.amax(-1, keepdim=True)


def column_norm(x: Tensor) -> Tensor:
    """Return the Euclidean norm of each column."""
    return torch.linalg.vector_norm(as_matrix(x), dim=0).reshape(column_shape(x))


def column_sum(x: Tensor) -> Tensor:
    """Return the sum of each column."""
    return as_matrix(x).sum(0).reshape(column_shape(x))


def column_mean(x: Tensor) -> Tensor:
    """Return the mean of each column."""
    return as_matrix(x).mean(0).reshape(column_shape(x))


def column_max(x: Tensor) -> Tensor:
    """Return the largest entry of each column."""
    return as_matrix(x).amax(0).reshape(column_shape(x))


def global_sum(xs: Sequence[Tensor]) -> Tensor:
    """Return the sum of all tensors."""
    return torch.stack([x.sum() for x in xs]).sum()


def global_mean(xs: Sequence[Tensor]) -> Tensor:
    """Return the mean over all tensors."""
    return torch.stack([x.sum() for x in xs]).sum() / sum(x.numel() for x in xs)


def global_max(xs: Sequence[Tensor]) -> Tensor:
    """Return the largest entry of all tensors."""
    return torch.stack([x.amax() for x in xs]).amax()


def global_norm(xs: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of all tensors together."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(xs)))


def dot(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """Return the inner product of two lists of tensors."""
    return torch.stack([(x * y).sum() for x, y in zip(xs, ys, strict=True)]).sum()


def cosine_sim(xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
    """Return the cosine of the angle between two lists of tensors."""
    return dot(xs, ys) / (global_norm(xs) * global_norm(ys))


def clip(xs: Sequence[Tensor], limit: Any) -> Tensor:
    """Return the factor that brings the norm of all tensors together down to a limit."""
    return torch.clamp_max(limit / global_norm(xs), 1)


def matmul(x: Tensor, y: Tensor) -> Tensor:
    """Return x y."""
    return x @ y


def matmul_transposed(x: Tensor, y: Tensor) -> Tensor:
    """Return x yᵀ."""
    return x @ y.mT


def transposed_matmul(x: Tensor, y: Tensor) -> Tensor:
    """Return xᵀ y."""
    return x.mT @ y


def left_gram(x: Tensor) -> Tensor:
    """Return x xᵀ."""
    return x @ x.mT


def right_gram(x: Tensor) -> Tensor:
    """Return xᵀ x."""
    return x.mT @ x


def transpose(x: Tensor) -> Tensor:
    """Return xᵀ, in memory of its own: that of x may be used again."""
    return x.mT.clone()


def eye(x: Tensor) -> Tensor:
    """Return the identity matrix of the shape of x."""
    return torch.eye(len(x), dtype=x.dtype, device=x.device)


def trace(x: Tensor) -> Tensor:
    """Return the sum of the diagonal."""
    return x.trace()


def diagonal(x: Tensor) -> Tensor:
    """Return the diagonal, in memory of its own: that of x may be used again."""
    return x.diagonal().clone()


def diagonal_matrix(x: Tensor) -> Tensor:
    """Return the matrix with these numbers on its diagonal."""
    return x.ravel().diag()


def upper_triangle(x: Tensor) -> Tensor:
    """Return x with zeros below the diagonal."""
    return x.triu()


def sorting(x: Tensor) -> Tensor:
    """Return the permutation matrix that sorts numbers in descending order; equal ones keep their order."""
    x = x.ravel()
    # Negated, as NaN then comes last.
    order = torch.argsort(-x, stable=True)
    return torch.eye(len(x), dtype=x.dtype, device=x.device)[:, order]


def top_k_mask(x: Tensor, k: Any) -> Tensor:
    """Return 1 at the k largest entries and 0 elsewhere; k is rounded, and entries equal to the k-th count as well."""
    x = torch.where(x.isnan(), -torch.inf, x)
    k = torch.as_tensor(k, dtype=x.dtype, device=x.device).nan_to_num(nan=0.0).round().clamp(0, x.numel())
    place = (x.numel() - k.long()).clamp(0, x.numel() - 1)
    return ((x >= x.ravel().sort().values[place]) & (k > 0)).to(x.dtype)


def entry_count(x: Tensor) -> Tensor:
    """Return the number of entries."""
    return torch.tensor(float(x.numel()), dtype=x.dtype, device=x.device)


def row_count(x: Tensor) -> Tensor:
    """Return the number of rows."""
    return torch.tensor(float(x.shape[0]), dtype=x.dtype, device=x.device)


def column_count(x: Tensor) -> Tensor:
    """Return the number of columns."""
    return torch.tensor(float(x.shape[1]), dtype=x.dtype, device=x.device)


def orthogonalize(x: Tensor, steps: Any, a: Any, b: Any, c: Any, orthogonalize_dtype: Any) -> Tensor:
    """Return Newton-Schulz iterations x <- a x + (b g + c g g) x with g = x xᵀ, from x / max(norm of x, 1e-7).

    The number of steps is rounded, and at most 10. A dtype of their own is that of the iterations.
    """
    steps, a, b, c = (float(v) for v in (steps, a, b, c))
    wide = x.shape[0] <= x.shape[1]
    y = x if wide else x.mT
    y = (y / torch.linalg.vector_norm(y).clamp_min(1e-7)).to(orthogonalize_dtype or x.dtype)
    for step in range(10):
        if not step < steps - 0.5:
            break
        g = y @ y.mT
        y = torch.addmm(y, torch.addmm(g, g, g, beta=b, alpha=c), y, beta=a)
    return (y if wide else y.mT).to(x.dtype)


def _scaled(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a finite matrix with entries up to 1, the scale it was divided by, and whether x is finite and not 0.

    Numbers too small to have a reciprocal count as 0.
    """
    tiny = torch.finfo(x.dtype).tiny
    largest = x.abs().amax()
    finite = largest.isfinite()
    usable = finite & (largest >= tiny)
    scale = torch.where(usable, largest.clamp_max(0.25 / tiny), 1)
    return torch.where(usable, x / scale, 0), scale, finite, usable


def inverse(x: Tensor) -> Tensor:
    """Return the inverse matrix, NaN where there is none."""
    safe, scale, _, usable = _scaled(x)
    inverted, failed = torch.linalg.inv_ex(safe)
    regular = usable & (failed == 0) & torch.linalg.slogdet(safe).logabsdet.isfinite()
    return torch.where(regular, inverted / scale, torch.nan)


def inverse_root(x: Tensor, p: Any) -> Tensor:
    """Return x to the power -1/p for a symmetric matrix without negative eigenvalues.

    Eigenvalues below a share of the largest, max(1e-12, side * machine epsilon), are rounding errors and raised to it.
    The inverse root of zero is zero.
    """
    safe, scale, finite, _ = _scaled(x)
    values, vectors = torch.linalg.eigh((safe + safe.mT) / 2)
    top = values.abs().amax()
    floor = top * max(1e-12, len(x) * torch.finfo(x.dtype).eps)
    exponent = -1 / torch.as_tensor(p, dtype=x.dtype, device=x.device)
    powers = torch.where(top > 0, torch.maximum(values, floor) ** exponent * scale**exponent, 0)
    return torch.where(finite, (vectors * powers) @ vectors.mT, torch.nan)


def eigenvectors(x: Tensor) -> Tensor:
    """Return the eigenvectors of a symmetric matrix as columns, those of the largest eigenvalues first.

    Signs are fixed, and a ramp on the diagonal orders equal eigenvalues.
    """
    safe, _, finite, _ = _scaled(x)
    side = len(x)
    places = torch.arange(side, dtype=x.dtype, device=x.device)
    ramp = (side - places) * (max(1e-7, torch.finfo(x.dtype).eps ** 0.5) / side)
    vectors = torch.linalg.eigh((safe + safe.mT) / 2 + ramp.diag()).eigenvectors.flip(1)
    signs = torch.where((1 / (places + 1.618)) @ vectors < 0, -1, 1)
    return torch.where(finite, vectors * signs, torch.nan)


def power_iteration(x: Tensor, q: Tensor) -> Tensor:
    """Return the orthogonal factor of (x + d) q: a step of power iteration from the basis q, where 0 is the identity.

    The small multiple d of the identity gives the kernel of x a basis. The columns have the signs that make the
    diagonal of the triangular factor positive.
    """
    safe, _, finite, _ = _scaled(x)
    start, _, known, given = _scaled(q)
    start = torch.where(given, start, torch.eye(len(x), dtype=x.dtype, device=x.device))
    basis, triangle = torch.linalg.qr(safe @ start + torch.finfo(x.dtype).eps ** 0.5 * start)
    signs = torch.where(triangle.diagonal() < 0, -1, 1)
    return torch.where(finite & known, basis * signs, torch.nan)

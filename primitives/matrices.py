"""What the matrix ops compute, for one parameter tensor.

Each is a function of an array namespace, `numpy` or `jax.numpy`, and of matrices; generated code takes its text. What
it returns is reshaped to the sides of the result. Decompositions never raise: a matrix with an entry that is not
finite, or none of an inverse, gives NaN. Choices that LAPACK leaves open (signs, the order and the basis within equal
eigenvalues) are fixed here, so that the result does not hang on the last bits of a platform's arithmetic.
"""

from __future__ import annotations

from typing import Any

Array = Any


def matmul(xp: Any, x: Array, y: Array) -> Array:
    """Return x y."""
    return xp.matmul(x, y)


def matmul_transposed(xp: Any, x: Array, y: Array) -> Array:
    """Return x yᵀ."""
    return xp.matmul(x, y.T)


def transposed_matmul(xp: Any, x: Array, y: Array) -> Array:
    """Return xᵀ y."""
    return xp.matmul(x.T, y)


def left_gram(xp: Any, x: Array) -> Array:
    """Return x xᵀ."""
    return xp.matmul(x, x.T)


def right_gram(xp: Any, x: Array) -> Array:
    """Return xᵀ x."""
    return xp.matmul(x.T, x)


def transpose(xp: Any, x: Array) -> Array:
    """Return xᵀ."""
    return xp.transpose(x)


def eye(xp: Any, x: Array) -> Array:
    """Return the identity matrix of the shape of x."""
    return xp.eye(x.shape[0], dtype=x.dtype)


def trace(xp: Any, x: Array) -> Array:
    """Return the sum of the diagonal."""
    return xp.trace(x)


def diagonal(xp: Any, x: Array) -> Array:
    """Return the diagonal, shape (side,)."""
    return xp.diagonal(x)


def diagonal_matrix(xp: Any, x: Array) -> Array:
    """Return the matrix with these numbers on its diagonal."""
    return xp.diag(xp.ravel(x))


def upper_triangle(xp: Any, x: Array) -> Array:
    """Return x with zeros below the diagonal."""
    return xp.triu(x)


def sorting(xp: Any, x: Array) -> Array:
    """Return the permutation matrix that sorts numbers in descending order; equal ones keep their order."""
    order = xp.argsort(-xp.ravel(x), stable=True)
    return xp.eye(order.shape[0], dtype=x.dtype)[:, order]


def top_k_mask(xp: Any, x: Array, k: Array) -> Array:
    """Return 1 at the k largest entries and 0 elsewhere; k is rounded, and entries equal to the k-th count as well.

    NaN counts as smallest.
    """
    x = xp.where(xp.isnan(x), -xp.inf, x)
    ordered = xp.sort(xp.ravel(x))
    size = ordered.shape[0]
    count = xp.clip(xp.round(xp.nan_to_num(xp.asarray(k, x.dtype), nan=0.0)), 0, size)
    if size == 0:
        return x
    place = xp.clip(size - count.astype(xp.int32), 0, size - 1)
    return ((x >= xp.take(ordered, place)) & (count > 0)).astype(x.dtype)


def entry_count(xp: Any, x: Array) -> Array:
    """Return the number of entries."""
    return xp.asarray(x.shape[0] * x.shape[1], x.dtype)


def row_count(xp: Any, x: Array) -> Array:
    """Return the number of rows."""
    return xp.asarray(x.shape[0], x.dtype)


def column_count(xp: Any, x: Array) -> Array:
    """Return the number of columns."""
    return xp.asarray(x.shape[1], x.dtype)


def orthogonalize(xp: Any, x: Array, steps: Array, a: Array, b: Array, c: Array) -> Array:
    """Return Newton-Schulz iterations x <- a x + (b g + c g g) x with g = x xᵀ, from x / max(norm of x, 1e-7).

    The number of steps is rounded, and at most 10. Source: Jordan et al., "Muon" (2024), whose five steps with
    coefficients 3.4445, -4.775 and 2.0315 bring singular values between 0.7 and 1.2.
    """
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.T
    x = x / xp.maximum(xp.sqrt(xp.sum(xp.square(x))), 1e-7)
    for step in range(10):
        if isinstance(steps, int | float) and not step < min(steps, 10.0) - 0.5:
            break
        g = xp.matmul(x, x.T)
        following = a * x + xp.matmul(b * g + c * xp.matmul(g, g), x)
        # A traced number of steps cannot end a loop of Python.
        x = following if isinstance(steps, int | float) else xp.where(step < steps - 0.5, following, x)
    return x if wide else x.T


def inverse(xp: Any, x: Array) -> Array:
    """Return the inverse matrix, NaN where there is none."""
    one = xp.eye(x.shape[0], dtype=x.dtype)
    # Entries of moderate size neither overflow nor vanish on the way; the reciprocal of the scale must be normal.
    tiny = float(xp.finfo(x.dtype).tiny)
    largest = xp.max(xp.abs(x), initial=0.0)
    usable = xp.isfinite(largest) & (largest >= tiny)
    scale = xp.where(usable, xp.minimum(largest, 0.25 / tiny), 1).astype(x.dtype)
    safe = xp.where(usable, x / scale, one)
    sign, logarithm = xp.linalg.slogdet(safe)
    regular = usable & (sign != 0) & xp.isfinite(logarithm)
    return xp.where(regular, xp.linalg.inv(xp.where(regular, safe, one)) / scale, xp.nan)


def inverse_root(xp: Any, x: Array, p: Array) -> Array:
    """Return x to the power -1/p for a symmetric matrix without negative eigenvalues.

    Eigenvalues below a share of the largest, max(1e-12, side * machine epsilon), are rounding errors and raised to it.
    The inverse root of zero is zero.
    """
    tiny = float(xp.finfo(x.dtype).tiny)
    largest = xp.max(xp.abs(x), initial=0.0)
    finite = xp.isfinite(largest)
    usable = finite & (largest >= tiny)
    scale = xp.where(usable, xp.minimum(largest, 0.25 / tiny), 1).astype(x.dtype)
    safe = xp.where(usable, x / scale, xp.zeros_like(x))
    values, vectors = xp.linalg.eigh(safe / 2 + safe.T / 2)
    top = xp.max(xp.abs(values), initial=0.0)
    floor = top * max(1e-12, x.shape[0] * float(xp.finfo(x.dtype).eps))
    exponent = xp.divide(-1.0, p).astype(x.dtype)
    powers = xp.where(top > 0, xp.maximum(values, floor) ** exponent * scale**exponent, xp.zeros_like(values))
    return xp.where(finite, xp.matmul(vectors * powers[None, :], vectors.T), xp.nan)


def eigenvectors(xp: Any, x: Array) -> Array:
    """Return the eigenvectors of a symmetric matrix as columns, those of the largest eigenvalues first.

    Signs are fixed, and a ramp on the diagonal orders equal eigenvalues: up to 1e-7 of the largest entry, or the root
    of the machine epsilon where that is more.
    """
    side = x.shape[0]
    tiny = float(xp.finfo(x.dtype).tiny)
    largest = xp.max(xp.abs(x), initial=0.0)
    finite = xp.isfinite(largest)
    usable = finite & (largest >= tiny)
    scale = xp.where(usable, xp.minimum(largest, 0.25 / tiny), 1).astype(x.dtype)
    safe = xp.where(usable, x / scale, xp.zeros_like(x))
    ramp = xp.arange(side, 0, -1).astype(x.dtype) * (max(1e-7, float(xp.finfo(x.dtype).eps) ** 0.5) / max(side, 1))
    _, vectors = xp.linalg.eigh(safe / 2 + safe.T / 2 + xp.diag(ramp))
    vectors = vectors[:, ::-1]
    sums = xp.matmul(1.0 / (xp.arange(side).astype(x.dtype) + 1.618), vectors)
    return xp.where(finite, vectors * xp.where(sums < 0, -1, 1).astype(x.dtype)[None, :], xp.nan)


def power_iteration(xp: Any, x: Array, q: Array) -> Array:
    """Return the orthogonal factor of (x + d) q: a step of power iteration from the basis q, where 0 is the identity.

    The small multiple d of the identity changes no eigenvector and gives the kernel of x a basis: it is the largest
    entry of x times the root of the machine epsilon. The columns have the signs that make the diagonal of the
    triangular factor positive.
    """
    one = xp.eye(x.shape[0], dtype=x.dtype)
    tiny = float(xp.finfo(x.dtype).tiny)
    largest, longest = xp.max(xp.abs(x), initial=0.0), xp.max(xp.abs(q), initial=0.0)
    finite = xp.isfinite(largest) & xp.isfinite(longest)
    # Neither factor's size changes the result.
    usable, given = finite & (largest >= tiny), finite & (longest >= tiny)
    scale = xp.where(usable, xp.minimum(largest, 0.25 / tiny), 1).astype(x.dtype)
    length = xp.where(given, xp.minimum(longest, 0.25 / tiny), 1).astype(x.dtype)
    safe = xp.where(usable, x / scale, xp.zeros_like(x))
    start = xp.where(given, q / length, one)
    basis, triangle = xp.linalg.qr(xp.matmul(safe, start) + float(xp.finfo(x.dtype).eps) ** 0.5 * start)
    signs = xp.where(xp.diagonal(triangle) < 0, -1, 1).astype(x.dtype)
    return xp.where(finite, basis * signs[None, :], xp.nan)

"""Grids worked axis by axis: interpolation, averaging, blurring and smooth noise as one small matrix per axis.

Everything here is a product of three matrices with an array, which a processor does many times faster than general
interpolation; the price is that the axes of both grids have to be parallel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

Axis = Float[np.ndarray, " _"]
Matrix = Float32[np.ndarray, "_ _"]

_SPLINE_SD = 0.4795 ** (3 / 2)
"""Standard deviation of a cubic B-spline through white coefficients, averaged over a cell of three axes."""


def along(array: Float[np.ndarray, "d h w"], matrices: Sequence[Matrix]) -> Float32[np.ndarray, "D H W"]:
    """The array with each axis sent through its matrix."""
    first, second, third = matrices
    out = np.ascontiguousarray(array, np.float32)
    out = (first @ out.reshape(out.shape[0], -1)).reshape(first.shape[0], *out.shape[1:])
    return np.matmul(np.matmul(second, out), third.T)


def nearest_matrix(at: Axis, count: int) -> Matrix:
    """Looks up the nearest of `count` samples at these indices; beyond the ends the last one repeats."""
    out = np.zeros((len(at), count), np.float32)
    found = np.clip(np.floor(at + 0.5), 0, count - 1).astype(int)
    out[np.arange(len(at)), found] = 1
    return out


def linear_matrix(at: Axis, count: int, width: float = 1.0) -> Matrix:
    """Linear interpolation of `count` samples; `width` above 1 averages over so many samples (no aliasing)."""
    inside = np.clip(at, 0, count - 1)
    weights = np.maximum(0.0, 1.0 - np.abs(inside[:, None] - np.arange(count)) / max(1.0, width))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def average_matrix(fine: int, coarse: int, ratio: float) -> Matrix:
    """Means of `fine` voxels over `coarse` voxels of `ratio` fine ones each, parts of voxels counted."""
    low = np.arange(coarse) * ratio
    overlap = np.minimum(low[:, None] + ratio, np.arange(fine) + 1) - np.maximum(low[:, None], np.arange(fine))
    weights = np.maximum(overlap, 0)
    return (weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)).astype(np.float32)


def blur_matrix(count: int, sigma: float) -> Matrix:
    """A Gaussian of `sigma` samples; the ends repeat."""
    if sigma < 0.15:
        return np.eye(count, dtype=np.float32)
    reach = int(np.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    out = np.zeros((count, count))
    rows = np.arange(count)
    for step, weight in zip(range(-reach, reach + 1), kernel / kernel.sum(), strict=True):
        np.add.at(out, (rows, np.clip(rows + step, 0, count - 1)), weight)
    return out.astype(np.float32)


def spline_matrix(at: Axis, count: int) -> Matrix:
    """Cubic B-spline through `count` coefficients at these indices (1 to count - 2 are fully supported)."""
    distance = np.abs(np.clip(at, 1, count - 2)[:, None] - np.arange(count))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], cells: Sequence[float] | float
) -> Float32[np.ndarray, "d h w"]:
    """Smooth Gaussian noise of about unit standard deviation with so many wave cells along each axis."""
    per_axis = np.broadcast_to(np.asarray(cells, float), (3,))
    counts = [int(np.ceil(c)) + 3 for c in per_axis]
    coefficients = rng.standard_normal(counts, np.float32) / np.float32(_SPLINE_SD)
    at = [1 + np.linspace(0, k, n) for n, k in zip(shape, per_axis, strict=True)]
    return along(coefficients, [spline_matrix(a, c) for a, c in zip(at, counts, strict=True)])


def correlated_noise(
    rng: np.random.Generator, shape: tuple[int, ...], sigma: Sequence[float]
) -> Float32[np.ndarray, "d h w"]:
    """White noise through a Gaussian of `sigma` voxels along each axis, brought back to unit standard deviation."""
    matrices = [blur_matrix(n, s) for n, s in zip(shape, sigma, strict=True)]
    lost = np.prod([np.sqrt(np.mean(np.sum(m.astype(float) ** 2, axis=1))) for m in matrices])
    return along(rng.standard_normal(shape, np.float32), matrices) / np.float32(lost)

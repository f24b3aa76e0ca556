"""The only interpolation code: a scan on another grid, or at points that a map gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage

from lesionlocator.geometry import Geometry, Index3, PointMap, index3
from lesionlocator.volume import Volume

_SLAB = 2_000_000
"""Points that are mapped at once, so that a dense map never holds more than some tens of MB of coordinates."""


def resample(volume: Volume, onto: Geometry, *, outside: float | None = None) -> Float[np.ndarray, "d h w"]:
    """The scan on another grid, float32, linear. A coarser grid gets a low-pass first, so that nothing aliases.

    Only the part of the scan that `onto` covers is read. Voxels of `onto` outside the scan get `outside`; without it
    they repeat the nearest voxel of the scan.
    """
    source = volume.geometry
    matrix = np.linalg.solve(source.affine, onto.affine)
    # A new voxel's extent along each old axis, in old voxels: above one, old voxels must be averaged.
    ratio = np.abs(matrix[:3, :3]).max(axis=1)
    margin = np.ceil(2 * ratio).astype(int) + 1
    low, high = source.around(onto.corners_mm)
    start, stop = np.array(low) - margin, np.array(high) + margin
    covered = source.clip(index3(start), index3(stop))
    if covered is None:
        covered = _nearest_voxel(source, onto)
    region = volume.crop(*covered)
    array = np.asarray(region.array, np.float32)
    sigma = np.maximum(ratio - 1, 0) / 2
    if np.any(sigma > 0.05):
        array = ndimage.gaussian_filter(array, sigma, mode="nearest", truncate=3.0)
    offset = matrix[:3, 3] - np.array(covered[0])
    mode = "nearest" if outside is None else "grid-constant"
    return ndimage.affine_transform(
        array,
        matrix[:3, :3],
        offset,
        output_shape=onto.shape,
        output=np.float32,
        order=1,
        mode=mode,
        cval=outside or 0.0,
    )


def sample(volume: Volume, at_mm: Float[np.ndarray, "n 3"], *, outside: float | None = None) -> Float[np.ndarray, " n"]:
    """The scan's linear value at points in mm, float32; `outside` as in `resample`."""
    index = volume.geometry.world_to_index(at_mm).T
    mode = "nearest" if outside is None else "grid-constant"
    return ndimage.map_coordinates(
        volume.array, index, output=np.float32, order=1, mode=mode, cval=outside or 0.0, prefilter=False
    )


def warp(
    volume: Volume, onto: Geometry, where_from: PointMap, *, outside: float | None = None
) -> Float[np.ndarray, "d h w"]:
    """The scan carried to another grid: voxel x of `onto` shows the scan at `where_from(x)`. Float32, linear."""
    out = np.empty(onto.shape, np.float32)
    depth = max(1, _SLAB // (onto.shape[1] * onto.shape[2]))
    for first in range(0, onto.shape[0], depth):
        slab = onto.crop((first, 0, 0), (min(first + depth, onto.shape[0]), onto.shape[1], onto.shape[2]))
        index = np.indices(slab.shape).reshape(3, -1).T.astype(float)
        values = sample(volume, where_from(slab.index_to_world(index)), outside=outside)
        out[first : first + slab.shape[0]] = values.reshape(slab.shape)
    return out


def axis_weights(at_index: Float[np.ndarray, " n"], step: float, length: int) -> Float[np.ndarray, "n length"]:
    """How much each voxel of an axis counts for samples at these indices, `step` voxels apart; every row sums to one.

    A triangle: linear interpolation where samples are close, an average where they are further apart than voxels.
    Beyond the ends the nearest voxel is repeated.
    """
    held = np.clip(at_index, 0, length - 1)
    weights = np.maximum(0.0, 1 - np.abs(np.arange(length) - held[:, None]) / max(1.0, step))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def along_axes(array: Shaped[np.ndarray, "d h w"], weights: Sequence[np.ndarray]) -> Float[np.ndarray, "n m k"]:
    """An array sampled along its own axes by one `axis_weights` for each: all that a grid of the same axes needs."""
    found = np.asarray(array, np.float32)
    # The axis that shrinks most goes first, which leaves least to do for the others.
    for axis in sorted(range(3), key=lambda axis: weights[axis].shape[0] / weights[axis].shape[1]):
        found = np.moveaxis(np.tensordot(weights[axis], found, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(found)


def _nearest_voxel(source: Geometry, onto: Geometry) -> tuple[Index3, Index3]:
    index = np.clip(np.round(source.world_to_index(onto.centre_mm[None])[0]), 0, np.array(source.shape) - 1).astype(int)
    d, h, w = (int(v) for v in index)
    return (d, h, w), (d + 1, h + 1, w + 1)

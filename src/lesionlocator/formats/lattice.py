"""Masks between grids that are one lattice of voxels stored in different ways: turned, flipped or cut differently."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float

from lesionlocator.geometry import Geometry, index3
from lesionlocator.volume import Mask

_TOLERANCE_MM = 0.05
_CORNERS = np.array(list(itertools.product((0.0, 1.0), repeat=3)))


def on_lattice(mask: Mask, geometry: Geometry) -> Mask | None:
    """The same voxels on another grid; None unless each of them is a voxel of that grid, to 0.05 mm."""
    if mask.is_empty:
        return Mask.empty(geometry)
    if abs(mask.geometry.voxel_ml / geometry.voxel_ml - 1) > 0.01:
        return None
    found = geometry.world_to_index(mask.points_mm)
    index = np.round(found).astype(int)
    if _off_mm(found, geometry) > _TOLERANCE_MM or np.any(index < 0) or np.any(index >= np.array(geometry.shape)):
        return None
    start, stop = index.min(axis=0), index.max(axis=0) + 1
    crop = np.zeros(stop - start, bool)
    crop[tuple((index - start).T)] = True
    # Two voxels that fall on one would be another lattice.
    if np.count_nonzero(crop) != mask.voxels:
        return None
    return Mask(crop, geometry.crop(index3(start), index3(stop)))


def same_voxels(one: Geometry, other: Geometry) -> bool:
    """Whether two grids have the same voxels, whatever the order and direction of their axes."""
    if sorted(one.shape) != sorted(other.shape):
        return False
    corners = _CORNERS * (np.array(one.shape) - 1)
    found = other.world_to_index(one.index_to_world(corners))
    ends = np.where(np.round(found) > 0, np.array(other.shape) - 1, 0)
    return bool(np.max(np.abs(found - ends) * other.spacing_mm) <= _TOLERANCE_MM)


def _off_mm(index: Float[np.ndarray, "n 3"], geometry: Geometry) -> float:
    return float(np.max(np.abs(index - np.round(index)) * geometry.spacing_mm))

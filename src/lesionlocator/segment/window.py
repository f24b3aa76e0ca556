"""The part of a scan round a box, at a bounded number of voxels, and the way back to the scan's own voxels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from lesionlocator.geometry import Geometry, Index3
from lesionlocator.prompt import Box
from lesionlocator.resample import resample
from lesionlocator.segment.ask import NotOutlined, touched
from lesionlocator.volume import Mask, Volume, bounds


@dataclass(frozen=True, eq=False)
class Window:
    """What is seen round a box.

    `values` lie on `grid`, a coarser copy of `region`, which is the part of the scan's own grid. `seen` is False where
    the scan has no number. PET values are square roots, which evens out the noise that grows with uptake.
    """

    values: Float[np.ndarray, "d h w"]
    seen: Bool[np.ndarray, "d h w"]
    grid: Geometry
    region: Geometry
    box: Box

    @cached_property
    def in_box(self) -> Float[np.ndarray, "d h w 3"]:
        """Coordinates in which the box reaches from -1 to 1 on every axis."""
        index = np.indices(self.grid.shape).reshape(3, -1).T.astype(float)
        return (2 * self.box.to_unit(self.grid.index_to_world(index)) - 1).reshape(*self.grid.shape, 3)

    @cached_property
    def radius(self) -> Float[np.ndarray, "d h w"]:
        """Zero in the middle of the box, one on its inscribed ellipsoid."""
        return np.sqrt(np.sum(self.in_box**2, axis=3))

    @cached_property
    def reach(self) -> Float[np.ndarray, "d h w"]:
        """Zero in the middle of the box, one on its faces."""
        return np.abs(self.in_box).max(axis=3)

    def to_mask(self, belief: Float[np.ndarray, "d h w"]) -> Mask:
        """The scan's own voxels where the interpolated belief is at least one half."""
        found = bounds(belief >= 0.5)
        if found is None:
            return Mask.empty(self.region)
        if self.grid is self.region:
            return Mask.from_array(belief >= 0.5, self.region)
        start, stop = np.array(found[0], float) - 1.5, np.array(found[1], float) + 0.5
        covered = self.region.clip(*self.region.around(self.grid.index_to_world(np.stack([start, stop]))))
        if covered is None:
            return Mask.empty(self.region)
        part = self.region.crop(*covered)
        # Rounded, so that a tie is not decided by the order in which an axis was stored.
        fine = resample(Volume(np.round(belief, 4).astype(np.float32), self.grid, "CT"), part)
        return Mask.from_array(np.round(fine, 4) >= 0.5, part)


def look(volume: Volume, box: Box, *, margin: float, voxels: int) -> Window:
    """What is seen round a box that is grown by a factor (`margin`), on at most `voxels` voxels a side.

    Never finer than the scan. However large the box, at most about four times as many voxels a side are read.
    """
    wide = Box(box.centre - margin * box.edges.sum(axis=1) / 2, margin * box.edges)
    covered = touched(wide, volume.geometry)
    if covered is None:
        raise NotOutlined("the prompt lies outside the scan")
    part = volume.crop(*covered)
    coarser = np.maximum(1.0, np.array(part.geometry.shape) / voxels)
    strided = _every(part, np.maximum(1, coarser // 2).astype(int))
    finite = np.isfinite(strided.array)
    if not finite.any():
        raise NotOutlined("voxels at the prompt are not numbers (NaN or infinite)")
    grid = part.geometry if np.all(coarser == 1) else part.geometry.respaced(part.geometry.spacing_mm * coarser)
    if finite.all():
        values, seen = resample(strided, grid), np.ones(grid.shape, bool)
    else:
        filled = np.where(finite, strided.array, np.median(strided.array[finite]))
        values = resample(replace(strided, array=filled), grid)
        seen = resample(replace(strided, array=finite.astype(np.float32)), grid) > 0.99
    if volume.modality == "PT":
        values = np.sqrt(np.maximum(values, 0))
    return Window(values, seen, grid, part.geometry, box)


def _every(part: Volume, step: object) -> Volume:
    """Every n-th voxel: a view."""
    d, h, w = (int(n) for n in np.asarray(step))
    if (d, h, w) == (1, 1, 1):
        return part
    array = part.array[::d, ::h, ::w]
    affine = part.geometry.affine.copy()
    affine[:3, :3] *= (d, h, w)
    shape: Index3 = (array.shape[0], array.shape[1], array.shape[2])
    return replace(part, array=array, geometry=Geometry(shape, affine, part.geometry.frame))

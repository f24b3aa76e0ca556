"""Where a lesion is expected: a box, and whether a reader drew it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box
from lesionlocator.segment.ask import NotOutlined, touched
from lesionlocator.volume import Mask, Volume

_SLAB = 1_000_000
"""Voxels that are painted at once, so that a huge box needs little memory."""


@dataclass(frozen=True, eq=False)
class Extent:
    """A box that the lesion fills, and whether a reader drew it (`sure`) or it was guessed from a line or a click."""

    box: Box
    sure: bool

    @property
    def click_reach_mm(self) -> float:
        """How far a click speaks for its neighbourhood: a tenth of the lesion's mean size."""
        return 0.1 * float(self.box.size_mm.mean())


def known(volume: Volume, box: Box) -> None:
    """Refuses a lesion whose box lies outside the scan or holds voxels that are no numbers."""
    covered = touched(box, volume.geometry)
    if covered is None:
        raise NotOutlined("the prompt lies outside the scan")
    region = volume.crop(*covered)
    if region.array.dtype.kind != "f" or bool(np.isfinite(region.array).all()):
        return
    painted = box.paint(region.geometry)
    values = region.array[painted] if painted.any() else region.array
    if not np.isfinite(values).all():
        raise NotOutlined("voxels at the prompt are not numbers (NaN or infinite)")


def inscribed(boxes: Sequence[Box], geometry: Geometry) -> Mask:
    """The voxels whose centres lie in one of the inscribed ellipsoids; a box that holds no centre gives its middle."""
    covered = geometry.clip(*geometry.around(np.concatenate([box.points_mm for box in boxes])))
    if covered is None:
        raise NotOutlined("the prompt lies outside the scan")
    region = geometry.crop(*covered)
    array = np.zeros(region.shape, bool)
    depth = max(1, _SLAB // (region.shape[1] * region.shape[2]))
    for first in range(0, region.shape[0], depth):
        slab = region.crop((first, 0, 0), (min(first + depth, region.shape[0]), *region.shape[1:]))
        for box in boxes:
            array[first : first + depth] |= box.paint_ellipsoid(slab)
    if not array.any():
        middle = region.world_to_index(np.stack([box.centre for box in boxes]))
        array[tuple(np.clip(np.floor(middle + 0.5).astype(int), 0, np.array(region.shape) - 1).T)] = True
    return Mask.from_array(array, region)


def at_least_a_voxel(box: Box, geometry: Geometry) -> Box:
    """A flat box, as drawn on one slice, gets the thickness of a voxel."""
    thinnest = float(geometry.spacing_mm.min())
    size_mm = box.size_mm
    if size_mm.min() >= 1e-3 * thinnest:
        return box
    flat = size_mm < 1e-3 * thinnest
    if flat.sum() > 1:
        return Box.from_bounds(box.centre - geometry.spacing_mm.max() / 2, box.centre + geometry.spacing_mm.max() / 2)
    edges = box.edges.copy()
    first, second = edges[:, ~flat].T
    normal = np.cross(first, second)
    step = np.abs(normal @ geometry.affine[:3, :3]).max() / np.linalg.norm(normal)
    edges[:, flat] = (normal / np.linalg.norm(normal) * step)[:, None]
    return Box(box.centre - edges.sum(axis=1) / 2, edges)

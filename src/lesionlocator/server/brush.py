"""Strokes of a brush: a ball along a line, painted into an outline or out of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from lesionlocator.case import Lesion, Status
from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask


def painted(
    lesion: Lesion, geometry: Geometry, points_mm: Float[np.ndarray, "n 3"], *, radius_mm: float, adds: bool
) -> Lesion:
    """The lesion with a stroke added to its outline or taken off it.

    Args:
        lesion: With or without an outline; taking off needs one.
        geometry: The scan's grid.
        points_mm: Corners of the stroke's line, in LPS mm.
        radius_mm: The brush's.
        adds: Whether it paints or wipes.

    Raises:
        Refused: The stroke lies outside the scan, or nothing of the outline is left.
    """
    along = _along(points_mm, float(geometry.spacing_mm.min()))
    covered = geometry.clip(*geometry.around(along, radius_mm))
    if covered is None:
        raise Refused(found="a stroke outside the scan", needed="one inside it", do="paint on the picture")
    stroke_grid = geometry.crop(*covered)
    stroke = _stroke(stroke_grid, along, radius_mm)
    if lesion.mask is None:
        if not adds:
            raise Refused(found="nothing to take off", needed="an outline", do="outline the lesion first")
        mask = Mask.from_array(stroke, stroke_grid)
    else:
        joint = np.concatenate([lesion.mask.geometry.corners_mm, stroke_grid.corners_mm])
        start, stop = geometry.around(joint)
        region = geometry.crop(*(geometry.clip(start, stop) or covered))
        old, new = lesion.mask.on(region), Mask.from_array(stroke, stroke_grid).on(region)
        mask = Mask.from_array(old | new if adds else old & ~new, region)
    if mask.is_empty:
        raise Refused(found="an outline of which nothing is left", needed="a voxel", do="reject the lesion instead")
    return replace(lesion, mask=mask, status=Status.OUTLINED, reason="painted by a reader", confidence=None)


def _along(points_mm: Float[np.ndarray, "n 3"], step_mm: float) -> Float[np.ndarray, "m 3"]:
    """Points on the line, half a voxel apart."""
    pieces = [points_mm[:1]]
    for start, end in zip(points_mm[:-1], points_mm[1:], strict=True):
        steps = int(np.clip(np.ceil(2 * np.linalg.norm(end - start) / step_mm), 1, 2000))
        pieces.append(start + np.linspace(0, 1, steps + 1)[1:, None] * (end - start))
    return np.concatenate(pieces)


def _stroke(geometry: Geometry, along: Float[np.ndarray, "m 3"], radius_mm: float) -> np.ndarray:
    from scipy.spatial import KDTree

    index = np.indices(geometry.shape).reshape(3, -1).T.astype(float)
    # A brush finer than a voxel still paints the voxel that it is in.
    reach_mm = max(radius_mm, float(geometry.spacing_mm.min()) / 2)
    distance, _ = KDTree(along).query(geometry.index_to_world(index), distance_upper_bound=reach_mm)
    return np.isfinite(distance).reshape(geometry.shape)

"""Which lesions a change can happen to, and how much room they have."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.spatial import KDTree

from lesionlocator.errors import Refused
from lesionlocator.synth.fill import rim_of
from lesionlocator.synth.region import Region
from lesionlocator.synth.visit import Visit
from lesionlocator.volume import Mask


def suitable(visit: Visit, lesion_ids: tuple[str, ...] = (), least_voxels: int = 1) -> tuple[str, ...]:
    """Of these lesions (of all, when none is named) those that the scan shows whole."""
    return tuple(
        name
        for name in (lesion_ids or tuple(visit.lesions))
        if name in visit.lesions
        and visit.lesions[name].voxels >= least_voxels
        and edge_mm(visit, visit.lesions[name]) > 0
    )


def lesion_of(visit: Visit, lesion_id: str) -> Mask:
    """Its outline, if the scan shows it whole."""
    mask = visit.lesions.get(lesion_id)
    if mask is None or mask.is_empty:
        raise Refused(
            found=f"no lesion {lesion_id!r} in this visit",
            needed=f"one of {', '.join(visit.lesions) or 'none'}",
            do="draw the change for this visit",
        )
    if edge_mm(visit, mask) <= 0:
        raise Refused(
            found=f"lesion {lesion_id!r}, which reaches the edge of the scan",
            needed="a lesion that the scan shows whole",
            do="choose another lesion",
        )
    return mask


def edge_mm(visit: Visit, mask: Mask) -> float:
    """How far a lesion's box is from the nearest edge of the scan; 0 or less when it reaches it."""
    if mask.is_empty:
        return -1.0
    scan = visit.geometry
    start = mask.geometry.offset_in(scan)
    if start is None:
        return -1.0
    low = np.array(start)
    high = np.array(scan.shape) - low - np.array(mask.array.shape)
    return float((np.minimum(low, high) * scan.spacing_mm).min())


def gap_mm(one: Mask, other: Mask, beyond_mm: float = np.inf) -> float:
    """The distance between the nearest voxels of two lesions (about, for large ones); `beyond_mm` if it is more."""
    corners, others = one.geometry.corners_mm, other.geometry.corners_mm
    apart = np.maximum(corners.min(axis=0) - others.max(axis=0), others.min(axis=0) - corners.max(axis=0))
    if float(apart.max()) > beyond_mm:
        return beyond_mm
    return float(min(beyond_mm, nearest_pair(one, other)[2]))


def nearest_pair(one: Mask, other: Mask) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"], float]:
    """The nearest voxels of two lesions and their distance."""
    ours, theirs = _border(one), _border(other)
    distances, index = KDTree(theirs).query(ours)
    nearest = int(np.argmin(distances))
    return ours[nearest], theirs[int(np.asarray(index)[nearest])], float(distances[nearest])


def _border(mask: Mask) -> Float[np.ndarray, "n 3"]:
    inner = ndimage.binary_erosion(mask.array)
    return mask.geometry.index_to_world(np.argwhere(mask.array & ~inner).astype(float))


def radius_mm(mask: Mask) -> float:
    """Radius of the ball that has its volume."""
    return mask.equivalent_diameter_mm / 2


def levels(visit: Visit, lesion_id: str) -> tuple[float, float]:
    """Medians in the lesion and around it."""
    region = Region.around(visit, visit.lesions[lesion_id].geometry, 8.0)
    where = region.where(lesion_id)
    rim = rim_of(ndimage.binary_dilation(where), region.geometry) & ~region.others()
    inside = float(np.median(region.array[where]))
    return inside, float(np.median(region.array[rim])) if rim.any() else inside

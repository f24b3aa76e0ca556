"""Masks in several parts: counted, joined, and told whether they touch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask

_EVERYWHERE = np.ones((3, 3, 3), bool)
_ONE_PIECE = 0.9


def count_parts(mask: Mask, smallest_share: float = 0.1) -> int:
    """How many 26-connected parts have at least this share of the mask's voxels."""
    labels, _ = ndimage.label(mask.array, _EVERYWHERE)
    sizes = np.bincount(np.asarray(labels).ravel())[1:]
    return int(np.count_nonzero(sizes >= max(1.0, smallest_share * mask.voxels)))


def components(mask: Mask) -> list[Mask]:
    """Its 26-connected parts, largest first."""
    labels, count = ndimage.label(mask.array, _EVERYWHERE)
    parts = [Mask.from_array(np.asarray(labels == label), mask.geometry) for label in range(1, count + 1)]
    return sorted(parts, key=lambda part: -part.voxels)


def in_one_piece(mask: Mask) -> bool:
    """Whether nearly all of it is in its largest part, the rest being specks."""
    return not mask.is_empty and components(mask)[0].voxels >= _ONE_PIECE * mask.voxels


def touch(one: Mask, other: Mask) -> bool:
    """Whether two masks of one grid share a voxel or have neighbouring ones."""
    d, h, w = one.array.shape
    around = one.geometry.crop((-1, -1, -1), (d + 1, h + 1, w + 1))
    grown = np.asarray(ndimage.binary_dilation(np.pad(one.array, 1), _EVERYWHERE))
    return Mask(grown, around).overlap(other) > 0


def shared_share(one: Mask, other: Mask) -> float:
    """The shared volume as a share of the smaller mask's; 0 when one is empty. Grids may differ."""
    smaller_ml = min(one.volume_ml, other.volume_ml)
    if smaller_ml <= 0:
        return 0.0
    return one.placed(other.geometry).overlap(other) * other.geometry.voxel_ml / smaller_ml


def share_out(outlines: Sequence[Mask], places: Sequence[Mask], owners: Sequence[int], most: float = 0.3) -> list[Mask]:
    """Outlines of different lesions that lie on each other taken apart: what two share goes where it lies nearer.

    Only where they share more than `most` of the smaller one; less is left as it is. All masks are on one lattice.

    Args:
        outlines: What was outlined.
        places: Where the lesion of each was expected; an empty one keeps nothing of what it shares.
        owners: Which lesion each belongs to; outlines of one lesion are left alone.
        most: A share of the smaller outline.
    """
    found = list(outlines)
    for i, one in enumerate(outlines):
        for j in range(i + 1, len(outlines)):
            if owners[i] == owners[j] or not near(one, outlines[j]):
                continue
            if shared_share(found[i], found[j]) > most:
                found[i], found[j] = _taken_apart((found[i], found[j]), (places[i], places[j]))
    return found


def near(one: Mask, other: Mask, within_mm: float = 0.0) -> bool:
    """Whether their grids meet, or come so near to each other."""
    return one.geometry.clip(*one.geometry.around(other.geometry.corners_mm, within_mm)) is not None


def _taken_apart(outlines: tuple[Mask, Mask], places: tuple[Mask, Mask]) -> tuple[Mask, Mask]:
    lattice = outlines[0].geometry
    corners = np.concatenate([mask.geometry.corners_mm for mask in (*outlines, *places)])
    region = lattice.crop(*lattice.around(corners))
    one, other = (mask.placed(region).on(region) for mask in outlines)
    far_from_one, far_from_other = (_distance(mask, region) for mask in places)
    ours = far_from_one <= far_from_other
    return Mask.from_array(one & (ours | ~other), region), Mask.from_array(other & ~(one & ours), region)


def _distance(mask: Mask, region: Geometry) -> Float[np.ndarray, "d h w"]:
    if mask.is_empty:
        return np.full(region.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~mask.placed(region).on(region), sampling=region.spacing_mm))


def join(parts: Sequence[Mask]) -> Mask:
    """All of them as one mask, on the lattice of the first. At least one is needed."""
    if len(parts) == 1:
        return parts[0]
    lattice = parts[0].geometry
    region = lattice.crop(*lattice.around(np.concatenate([part.geometry.corners_mm for part in parts])))
    return Mask.from_array(np.logical_or.reduce([part.placed(region).on(region) for part in parts]), region)


def common(one: Mask, other: Mask) -> Mask:
    """What both have, on the lattice of the first."""
    return Mask.from_array(one.array & other.placed(one.geometry).on(one.geometry), one.geometry)


def distinct(masks: Sequence[Mask]) -> list[int]:
    """Which masks are left, largest first, without those that lie mostly in a larger one."""
    kept: list[int] = []
    for index in sorted(range(len(masks)), key=lambda i: -masks[i].voxels):
        if all(shared_share(masks[index], masks[larger]) <= 0.5 for larger in kept):
            kept.append(index)
    return kept

"""A lesion outlined in a later scan as it was in an earlier one: by how it differs from what is around it.

A reader who outlined a bright rim without its dark core means the rim in the later scan too, whatever a segmenter would
make of it. How well brightness alone tells an outline from its surroundings can be seen where the outline is known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from lesionlocator.geometry import Index3
from lesionlocator.measure import axial_axis
from lesionlocator.parts import join
from lesionlocator.volume import Mask, Volume

MOST_VOXELS = 4
"""How far an outline may reach beyond what was carried over, in its slices."""
_SHARE = 0.25
"""Of a lesion's diameter: small lesions reach less far."""
_BOTH = 0.5


def recalled(carried: Mask, parts: Sequence[Mask], followup: Volume, contrast: float) -> Mask | None:
    """What a lesion of an earlier scan looks like in this one; None where it is not told from what is around.

    Read off twice, from the outline that was carried over and from what was seen of the lesion, where that was told:
    each is right about other things, so what both say is the answer, and what was seen alone where they hardly meet.

    Args:
        carried: Its outline through the alignment.
        parts: What looks like it near there, on grids of their own; may be none.
        followup: The later scan.
        contrast: By how much the lesion was brighter than its surroundings in the earlier scan; negative when darker.
    """
    start = halfway(carried, followup, _reach(carried, followup), contrast)
    seen = (
        halfway(join(parts).placed(followup.geometry), followup, _reach(carried, followup), contrast) if parts else None
    )
    if start is None or seen is None:
        return seen or start
    both = Mask.from_array(start.on(seen.geometry) & seen.array, seen.geometry)
    return both if both.voxels >= _BOTH * min(seen.voxels, start.voxels) else seen


def told_by_brightness(mask: Mask, scan: Volume, contrast: float) -> float:
    """How well a lesion's own outline is read off by `halfway` in the scan where it is known: Dice, 0 to 1."""
    found = halfway(mask, scan, _reach(mask, scan), contrast)
    return 0.0 if found is None else found.dice(mask)


def halfway(outline: Mask, scan: Volume, reach: int = MOST_VOXELS, contrast: float = 0.0) -> Mask | None:
    """The outline grown in its axial slices, and of that what is on its side of the value half-way to the grown rim.

    None where nothing of it is in the scan, or where it does not differ from the rim as `contrast` says (0: either
    way).

    Args:
        outline: On the scan's grid, or a part of it.
        scan: What is seen.
        reach: Voxels that it may grow by.
        contrast: Positive for what has to be brighter than its rim, negative for darker.
    """
    covered = None if outline.is_empty else scan.geometry.clip(*_wider(outline, scan, reach))
    if covered is None:
        return None
    part = scan.crop(*covered)
    inside = outline.on(part.geometry)
    grown = _grown_in_slices(inside, axial_axis(part.geometry), reach)
    rim = grown & ~inside
    values = np.nan_to_num(np.asarray(part.array, float))
    if not inside.any() or not rim.any():
        return None
    within, around = float(values[inside].mean()), float(values[rim].mean())
    if (within - around) * contrast < 0:
        return None
    middle = (within + around) / 2
    found = grown & (values > middle if within > around else values < middle)
    return Mask.from_array(found, part.geometry) if found.any() else None


def _reach(mask: Mask, scan: Volume) -> int:
    in_plane = np.delete(scan.geometry.spacing_mm, axial_axis(scan.geometry)).mean()
    return int(np.clip(round(_SHARE * mask.equivalent_diameter_mm / float(in_plane)), 1, MOST_VOXELS))


def _wider(mask: Mask, volume: Volume, by: int) -> tuple[Index3, Index3]:
    d, h, w = mask.geometry.offset_in(volume.geometry) or (0, 0, 0)
    n, m, k = mask.array.shape
    return (d - by, h - by, w - by), (d + n + by, h + m + by, w + k + by)


def _grown_in_slices(inside: Bool[np.ndarray, "d h w"], axis: int, by: int) -> Bool[np.ndarray, "d h w"]:
    square = np.ones(tuple(1 if a == axis else 3 for a in range(3)), bool)
    return np.asarray(ndimage.binary_dilation(inside, square, iterations=by))

"""What a reader said about a scan, held against what was found there: kept, moved, or outlined anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from lesionlocator.case import Lesion
from lesionlocator.follow.wanted import Carried, Wanted
from lesionlocator.geometry import AffineMap, Alignment, Geometry
from lesionlocator.prompt import Box, Click, Prompt, Shape
from lesionlocator.volume import Mask

_SAME_VOXELS = 0.6
"""A box that was proposed and not moved is this near to the outline's, in voxels; files round."""


def confirms(prompts: Sequence[Prompt], outline: Mask) -> bool:
    """Whether a reader's prompts say of an outline that it is right.

    Clicks in it (and none of the negative ones), and, if there is one, the box that was proposed for it, unmoved. A
    mask, a line or a box of the reader's own is an answer by itself.
    """
    boxes = [prompt for prompt in prompts if isinstance(prompt, Box)]
    clicks = [prompt for prompt in prompts if isinstance(prompt, Click)]
    if outline.is_empty or len(boxes) + len(clicks) < len(prompts) or not any(click.positive for click in clicks):
        return False
    if any(_holds(outline, click.at) is not click.positive for click in clicks):
        return False
    near_mm = _SAME_VOXELS * outline.geometry.spacing_mm.max()
    around = Box.around(outline)
    return all(np.abs(_bounds(box) - _bounds(around)).max() <= near_mm for box in boxes)


def at_clicks(item: Carried, prompts: Sequence[Prompt], geometry: Geometry) -> Wanted | None:
    """What to ask for at a reader's clicks, of a lesion that is known from an earlier scan: its outline, moved there.

    None when the reader gave more than clicks, or when there is nothing to move.

    Args:
        item: The lesion as it was carried over.
        prompts: What the reader gave.
        geometry: The later scan's grid.
    """
    clicks = [prompt for prompt in prompts if isinstance(prompt, Click)]
    placed = [click.at for click in clicks if click.positive]
    carried = item.sighting.carried
    if len(clicks) < len(prompts) or not placed or carried.is_empty:
        return None
    moved = carried.warped(geometry, Alignment.from_affine(AffineMap.shift(_way_to(placed[0], carried))))
    if moved.is_empty:
        return None
    there = replace(item, sighting=replace(item.sighting, carried=moved, parts=(), around=None))
    return Wanted((there,), ((Shape(moved), *clicks),))


def holds_clicks(lesion: Lesion, prompts: Sequence[Prompt]) -> bool:
    """Whether an outline has all positive clicks in it."""
    placed = [prompt.at for prompt in prompts if isinstance(prompt, Click) and prompt.positive]
    return lesion.mask is not None and all(_holds(lesion.mask, at_mm) for at_mm in placed)


def _way_to(at_mm: Float[np.ndarray, "3"], carried: Mask) -> Float[np.ndarray, "3"]:
    """How far an outline has to go to lie at a click: not at all, by its nearest voxel, from afar by its middle."""
    if _holds(carried, at_mm):
        return np.zeros(3)
    points_mm = carried.points_mm
    nearest_mm = points_mm[int(np.argmin(np.linalg.norm(points_mm - at_mm, axis=1)))]
    if np.linalg.norm(at_mm - nearest_mm) > carried.equivalent_diameter_mm / 2:
        return at_mm - carried.deepest_mm
    return at_mm - nearest_mm


def _holds(mask: Mask, at_mm: Float[np.ndarray, "3"]) -> bool:
    index = np.floor(mask.geometry.world_to_index(at_mm[None])[0] + 0.5).astype(int)
    return bool(np.all((index >= 0) & (index < mask.array.shape)) and mask.array[tuple(index)])


def _bounds(box: Box) -> Float[np.ndarray, "2 3"]:
    return np.stack([box.points_mm.min(axis=0), box.points_mm.max(axis=0)])

"""A click that corrects an outline: only the part that the click speaks of is changed, all else stays as it was."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from lesionlocator.case import Lesion
from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click, Prompt, Shape
from lesionlocator.segment import Outline, Prepared, Segmenter
from lesionlocator.server.brush import painted
from lesionlocator.volume import Mask

_REACH = 0.25
"""Share of a lesion's mean size that a click stands for before the picture has its say."""
_GROWTH = 2.0
"""A click beside an outline says that the lesion goes at least so far: it may grow by twice that distance."""
_HOLDS, _WITHIN = 0.7, 0.5
"""Shares that tell the lesion from something else that the picture shows at a click: it holds so much of the outline,
and so much of it is within that reach."""


def correct(segmenter: Segmenter, prepared: Prepared, lesion: Lesion, clicks: Sequence[Click]) -> Outline:
    """The outline as it is, painted or found, corrected at the clicks by what the segmenter says of it.

    The segmenter is asked with the outline and all clicks so far. Of its answer only pieces that hold one of the new
    clicks are taken, so that a stroke at the other end, or an outline that came with the case, is not undone. An
    outline is believed but for a little, and one that is a small part of the lesion would hardly grow: beside it, the
    segmenter is asked for the clicks alone as well.
    """
    mask = lesion.mask
    if mask is None:
        return segmenter.outline(prepared, [(*lesion.prompts, *clicks)])[0]
    geometry = prepared.volume.geometry
    said: list[Prompt] = [prompt for prompt in lesion.prompts if isinstance(prompt, Click)]
    for click in clicks:
        hinted = _with_ball(mask, click, geometry)
        answer = segmenter.outline(prepared, [(Shape(hinted), *said, click)])[0]
        if answer.mask is None:
            return answer
        before, mask = mask, _at_click(mask, answer.mask, click, geometry)
        said.append(click)
        if _is_beside(before, click, geometry):
            alone = segmenter.outline(prepared, [tuple(said), (Click.inside(before), *said)])
            grown = (_grown(mask, before, one.mask, click=click, geometry=geometry) for one in alone)
            mask = next((one for one in grown if one is not None), mask)
    if mask.is_empty:
        return Outline(None, None, "nothing of it would be left")
    return Outline(mask, None, "corrected by a reader")


def _with_ball(mask: Mask, click: Click, geometry: Geometry) -> Mask:
    """The outline with a ball at the click put to it or taken off it: a mask is believed but for a little."""
    if not geometry.contains(click.points_mm)[0]:
        return mask
    radius_mm = max(_REACH * float(Box.around(mask).size_mm.mean()), float(geometry.spacing_mm.min()))
    try:
        hinted = painted(
            Lesion("", mask=mask), geometry, click.points_mm, radius_mm=radius_mm, adds=click.positive
        ).mask
    except Refused:  # nothing would be left
        return mask
    return mask if hinted is None else hinted


def _is_beside(mask: Mask, click: Click, geometry: Geometry) -> bool:
    is_inside = bool((mask.array & click.paint(mask.geometry)).any())
    return click.positive and not is_inside and bool(geometry.contains(click.points_mm)[0])


def _at_click(before: Mask, after: Mask, click: Click, geometry: Geometry) -> Mask:
    region = _region((before, after), click, geometry)
    if region is None:
        return before
    old, new = before.on(region), after.on(region)
    at = click.paint(region)
    if click.positive:
        return Mask.from_array(old | _holding(new & ~old, at), region)
    return Mask.from_array(old & ~_holding(old & ~new, at), region)


def _grown(mask: Mask, before: Mask, alone: Mask | None, *, click: Click, geometry: Geometry) -> Mask | None:
    """The outline with what the picture shows at the click; None if that seems to be something else."""
    region = None if alone is None else _region((mask, alone), click, geometry)
    if alone is None or region is None:
        return None
    old, seen, at = before.on(region), alone.on(region), click.paint(region)
    away_mm, nearest = ndimage.distance_transform_edt(~old, sampling=region.spacing_mm, return_indices=True)
    # The stroke that the click is beside; others may lie far away, in what the picture does not show here.
    strokes, _ = ndimage.label(old)
    stroke = strokes == strokes[tuple(axis[at][0] for axis in nearest)]
    near = seen & (away_mm <= _GROWTH * away_mm[at].max())
    if (stroke & seen).sum() < _HOLDS * stroke.sum() or near.sum() < _WITHIN * seen.sum():
        return None
    return Mask.from_array(mask.on(region) | _holding(near, at), region)


def _region(masks: Sequence[Mask], click: Click, geometry: Geometry) -> Geometry | None:
    """The part of the scan that holds the masks and the click."""
    corners = np.concatenate([*(mask.geometry.corners_mm for mask in masks), click.points_mm])
    covered = geometry.clip(*geometry.around(corners))
    return None if covered is None else geometry.crop(*covered)


def _holding(pieces: Bool[np.ndarray, "d h w"], at: Bool[np.ndarray, "d h w"]) -> Bool[np.ndarray, "d h w"]:
    """The pieces that have one of the voxels."""
    labels, count = ndimage.label(pieces)
    wanted = np.zeros(count + 1, bool)
    wanted[labels[at]] = True
    wanted[0] = False
    return wanted[labels]

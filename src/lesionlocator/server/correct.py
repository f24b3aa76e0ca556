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


def correct(segmenter: Segmenter, prepared: Prepared, lesion: Lesion, clicks: Sequence[Click]) -> Outline:
    """The outline as it is, painted or found, corrected at the clicks by what the segmenter says of it.

    The segmenter is asked with the outline and all clicks so far. Of its answer only pieces that hold one of the new
    clicks are taken, so that a stroke at the other end, or an outline that came with the case, is not undone.
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
        mask = _at_click(mask, answer.mask, click, geometry)
        said.append(click)
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


def _at_click(before: Mask, after: Mask, click: Click, geometry: Geometry) -> Mask:
    corners = np.concatenate([before.geometry.corners_mm, after.geometry.corners_mm])
    covered = geometry.clip(*geometry.around(corners))
    if covered is None:
        return before
    region = geometry.crop(*covered)
    old, new = before.on(region), after.on(region)
    at = click.paint(region)
    if click.positive:
        return Mask.from_array(old | _holding(new & ~old, at), region)
    return Mask.from_array(old & ~_holding(old & ~new, at), region)


def _holding(pieces: Bool[np.ndarray, "d h w"], at: Bool[np.ndarray, "d h w"]) -> Bool[np.ndarray, "d h w"]:
    """The pieces that have one of the voxels."""
    labels, count = ndimage.label(pieces)
    wanted = np.zeros(count + 1, bool)
    wanted[labels[at]] = True
    wanted[0] = False
    return wanted[labels]

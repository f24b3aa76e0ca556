"""One lesion's outline near the box where it is expected, by shape and brightness."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionlocator.prompt import Box, Click, Shape
from lesionlocator.segment.ask import Ask
from lesionlocator.segment.contrast import Prior, Rules, border_step, main_parts, separation, settle, tightness
from lesionlocator.segment.extent import Extent, inscribed
from lesionlocator.segment.window import Window, look
from lesionlocator.volume import Mask, Modality, Volume

_FIRST_LOOK = 28
_FEWEST = 8
_MARGIN = 1.5
_ASKED = 1.6
_LOOSE_SOFTNESS = 2.0
_LOOSE_BEYOND = 1.3
_DARK_CT = 0.2
_STEP_COUNTS = 0.1
_TIGHT_THRESHOLD = 0.6
_STEP_THRESHOLD = 0.3
_TIGHT_ENOUGH = 0.4

Side = Literal[-1, 1]


def refine(volume: Volume, ask: Ask, extent: Extent, rules: Rules, voxels: int) -> Mask:
    """The outline near `extent`, worked out on at most `voxels` voxels a side."""
    believed = believe(volume, ask, extent, rules, voxels)
    if believed is None:
        return inscribed([extent.box], volume.geometry)
    window, belief = believed
    return window.to_mask(belief)


def believe(
    volume: Volume, ask: Ask, extent: Extent, rules: Rules, voxels: int
) -> tuple[Window, Float[np.ndarray, "d h w"]] | None:
    """How far each voxel near `extent` is believed to be lesion, 0 to 1; None where only the ellipsoid is left to say.

    Args:
        volume: The scan.
        ask: The lesion's prompts.
        extent: Where it is expected.
        rules: What counts how much.
        voxels: Most voxels a side of what is looked at.
    """
    if not extent.sure:
        rules = replace(rules, softness=rules.softness * _LOOSE_SOFTNESS, beyond=_LOOSE_BEYOND)
    first = look(volume, extent.box, margin=_MARGIN, voxels=min(_FIRST_LOOK, voxels))
    if np.count_nonzero((first.radius <= 1) & first.seen) < _FEWEST:
        return None
    side, by_threshold = _choose(first, _prior(first, ask, volume.modality, rules), volume.modality, rules)
    window = look(volume, extent.box, margin=_MARGIN, voxels=voxels)
    prior = _prior(window, ask, volume.modality, rules)
    bright = _bright(window, side)
    start = _by_threshold(window, bright) if by_threshold else _by_shape(_radius(window, ask))
    belief = settle(bright, prior, start, window.grid, rules)
    # An outline that was given may be a ring or a branch; only a box promises that the lesion fills it.
    if extent.sure and not _given_outlines(ask) and tightness(belief, window.reach <= 1) < _TIGHT_ENOUGH:
        return None
    return window, _tidied(belief, volume.modality)


def _choose(window: Window, prior: Prior, modality: Modality, rules: Rules) -> tuple[Side, bool]:
    """Whether the lesion is the brighter (1) or darker (-1) side, and whether a threshold is the better start.

    The side is read off the whole (brightness inside and outside the ellipsoid) and the border (the step across it).
    """
    sides: tuple[Side, ...] = (1,) if modality == "PT" else (1, -1)
    ends = {side: settle(_bright(window, side), prior, _by_shape(window.radius), window.grid, rules) for side in sides}
    steps = {side: border_step(_bright(window, side), ends[side], window.grid) for side in sides}
    side: Side = 1
    if modality != "PT":
        brighter, darker = _separations(window)
        # A lesion on CT is seldom darker than its surroundings; in the liver it is, and then clearly.
        bias = _DARK_CT if modality == "CT" else 0.0
        side = 1 if brighter - darker + _STEP_COUNTS * (steps[1] - steps[-1]) + bias >= 0 else -1
    bright = _bright(window, side)
    other = settle(bright, prior, _by_threshold(window, bright), window.grid, rules)
    better = border_step(bright, other, window.grid) > steps[side] + _STEP_THRESHOLD
    return side, better and tightness(other, window.reach <= 1) >= _TIGHT_THRESHOLD


def _separations(window: Window) -> tuple[float, float]:
    inside = window.values[(window.radius < 0.9) & window.seen]
    outside = window.values[(window.radius > 1.1) & (window.radius < 1.5) & window.seen]
    return separation(inside, outside) if min(len(inside), len(outside)) >= 5 else (0.0, 0.0)


def _prior(window: Window, ask: Ask, modality: Modality, rules: Rules) -> Prior:
    radius = _radius(window, ask)
    middle = rules.middle_pet if modality == "PT" else rules.middle
    odds = np.clip((1 - radius) / rules.softness, -6.0, middle)
    for click in ask:
        if isinstance(click, Click):
            index = np.indices(window.grid.shape).reshape(3, -1).T.astype(float)
            away_mm = np.linalg.norm(window.grid.index_to_world(index) - click.at, axis=1).reshape(window.grid.shape)
            bump = 6.0 * np.exp(-((away_mm / Extent(window.box, sure=True).click_reach_mm) ** 2))
            odds = odds + (bump if click.positive else -bump)
    return Prior(odds, (window.reach <= rules.beyond) & window.seen, (window.radius < _ASKED) & window.seen)


def _radius(window: Window, ask: Ask) -> Float[np.ndarray, "d h w"]:
    """One on the ellipsoid, or on the border of a mask that was given."""
    shapes = _given_outlines(ask)
    if not shapes:
        return window.radius
    painted = np.zeros(window.grid.shape, bool)
    for shape in shapes:
        painted |= shape.paint(window.grid)
    if not painted.any():
        return window.radius
    inside_mm, outside_mm = (
        np.asarray(ndimage.distance_transform_edt(part, sampling=window.grid.spacing_mm))
        for part in (painted, ~painted)
    )
    half_mm = float(window.grid.spacing_mm.min()) / 2
    signed_mm = np.where(painted, half_mm - inside_mm, outside_mm - half_mm)
    return np.maximum(0.0, 1 + signed_mm / (window.box.size_mm.mean() / 2))


def _given_outlines(ask: Ask) -> list[Shape]:
    """The outlines to go by: those that were given, unless a box says better how far the lesion reaches."""
    return [] if any(isinstance(p, Box) for p in ask) else [prompt for prompt in ask if isinstance(prompt, Shape)]


def _bright(window: Window, side: Side) -> Float[np.ndarray, "d h w"]:
    """From 0 to 1, the lesion being the brighter; the extreme hundredths are cut off (bone, metal, air)."""
    near = window.values[(window.reach < 1.3) & window.seen]
    low, high = np.percentile(near, (1, 99))
    bright = np.clip((window.values - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    return (bright if side == 1 else 1 - bright).astype(float)


def _by_shape(radius: Float[np.ndarray, "d h w"]) -> Float[np.ndarray, "d h w"]:
    return np.where(radius <= 1, 0.95, 0.05)


def _by_threshold(window: Window, bright: Float[np.ndarray, "d h w"]) -> Float[np.ndarray, "d h w"]:
    """What is above Otsu's threshold in the ellipsoid (doi:10.1109/TSMC.1979.4310076)."""
    from skimage.filters import threshold_otsu

    cut = float(threshold_otsu(bright[(window.reach <= 1) & window.seen]))
    return np.where(window.radius <= 1, np.where(bright > cut, 0.95, 0.1), 0.05)


def _tidied(belief: Float[np.ndarray, "d h w"], modality: Modality) -> Float[np.ndarray, "d h w"]:
    """Without fragments; on CT and PET without holes."""
    found = belief >= 0.5
    kept = main_parts(found)
    belief = np.where(found & ~kept, 0.0, belief)
    if modality == "MR":
        return belief
    filled: Bool[np.ndarray, "d h w"] = ndimage.binary_fill_holes(kept)
    return np.where(filled & ~kept, 1.0, belief)

"""Candidates for new lesions: what stands out in the follow-up and did not in the aligned baseline, for a reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionlocator.case import Lesion
from lesionlocator.follow.scene import gain_of, place_on
from lesionlocator.geometry import Alignment, Geometry
from lesionlocator.prompt import Click
from lesionlocator.resample import resample, warp
from lesionlocator.volume import Mask, Volume

_SPACING_MM = 2.5
_RADII_MM = (3.5, 5.5, 8.5)
"""Radii of the balls that are looked for; a lesion is seen from about half the least to twice the largest."""
_STANDS_OUT = 5.0
"""Spreads of the difference between the scans by which a ball has to stand out."""
_GAINED = 0.4
"""And by which share of its answer it has to be new: what was there before at two thirds of it is not."""
_WOBBLE_MM = 5.0
"""An alignment is trusted to this: what the baseline shows so near by is not new."""
_EDGE_MM = 8.0
"""So near the border of what both scans show nothing is proposed."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A place in the follow-up that may be a new lesion.

    `score` (0 to 1) ranks the candidates of one scan; it is no probability. `brighter` says whether it is brighter
    than what lies around it.
    """

    at_mm: Float[np.ndarray, "3"]
    radius_mm: float
    score: float
    brighter: bool


def find_new(
    baseline: Volume, followup: Volume, alignment: Alignment, known: Sequence[Mask], most: int = 10
) -> list[Candidate]:
    """Round places that stand out in the follow-up and did not before, best first. Nothing is outlined or decided.

    Both scans are brought to one grid of 2.5 mm, and each is compared with balls of three sizes (the mean in a ball
    less the mean in the shell around it). A candidate answers in the follow-up by at least five spreads of what the
    two scans differ by, and by clearly more than the baseline does anywhere within 5 mm. Lesions smaller than about
    4 mm, flat or infiltrating ones, and those with little contrast are not found; contrast medium, bowel, and what an
    alignment got wrong give false ones.

    Args:
        baseline: The earlier scan.
        followup: The later scan, of the same modality: no candidates otherwise.
        alignment: From the earlier to the later scan.
        known: Lesions of the follow-up that are followed, or places where one was looked for; nothing near is new.
        most: How many candidates at most.
    """
    if baseline.modality != followup.modality:
        return []
    grid = _grid(followup.geometry)
    now = np.nan_to_num(resample(followup, grid))
    before = np.nan_to_num(warp(baseline, grid, alignment.backward))
    seen = _seen(baseline, grid, alignment)
    if not seen.any():
        return []
    before = before * gain_of(followup.modality, before, now, seen)
    taken = np.zeros(grid.shape, bool)
    for mask in known:
        taken |= place_on(mask, grid)
    if taken.any():
        taken = np.asarray(ndimage.distance_transform_edt(~taken, sampling=grid.spacing_mm)) < _WOBBLE_MM
    allowed = _inner(seen, grid) & ~taken
    found = [one for radius in _RADII_MM for one in _peaks((now, before), grid, allowed, radius)]
    return _distinct(found)[:most]


def _grid(geometry: Geometry) -> Geometry:
    return geometry.respaced(np.maximum(geometry.spacing_mm, _SPACING_MM))


def _seen(baseline: Volume, grid: Geometry, alignment: Alignment) -> Bool[np.ndarray, "d h w"]:
    """Voxels that the baseline shows too."""
    shown = np.zeros(grid.shape, bool)
    for first in range(0, grid.shape[0], 16):
        slab = grid.crop((first, 0, 0), (min(first + 16, grid.shape[0]), grid.shape[1], grid.shape[2]))
        at_mm = slab.index_to_world(np.indices(slab.shape).reshape(3, -1).T.astype(float))
        shown[first : first + 16] = baseline.geometry.contains(alignment.backward(at_mm)).reshape(slab.shape)
    return shown


def _inner(seen: Bool[np.ndarray, "d h w"], grid: Geometry) -> Bool[np.ndarray, "d h w"]:
    padded = np.pad(seen, 1)
    depth = ndimage.distance_transform_edt(padded, sampling=grid.spacing_mm)
    return np.asarray(depth)[1:-1, 1:-1, 1:-1] > _EDGE_MM


def _peaks(
    scans: tuple[np.ndarray, np.ndarray], grid: Geometry, allowed: Bool[np.ndarray, "d h w"], radius_mm: float
) -> list[Candidate]:
    now, before = (_ball_answer(array, grid, radius_mm) for array in scans)
    size = 2 * np.maximum(1, np.round(_WOBBLE_MM / grid.spacing_mm)).astype(int) + 1
    spread = 1.4826 * float(np.median(np.abs((now - before)[allowed]))) if allowed.any() else 0.0
    if spread <= 0:
        return []
    found: list[Candidate] = []
    for sign in (1.0, -1.0):
        # The strongest answer that the baseline has near by is what has to be beaten.
        gained = sign * now - np.maximum(ndimage.maximum_filter(sign * before, size), 0.0)
        enough = (gained > _STANDS_OUT * spread) & (gained > _GAINED * sign * now)
        tops = (gained == ndimage.maximum_filter(gained, size)) & allowed & enough
        for index in np.argwhere(tops):
            strength = float(gained[tuple(index)]) / spread
            at_mm = grid.index_to_world(index[None].astype(float))[0]
            found.append(Candidate(at_mm, radius_mm, strength / (strength + 4 * _STANDS_OUT), sign > 0))
    return found


def _ball_answer(array: Float[np.ndarray, "d h w"], grid: Geometry, radius_mm: float) -> Float[np.ndarray, "d h w"]:
    """Mean in a soft ball less the mean in a wider one, as a difference of Gaussians."""
    sigma = radius_mm / np.sqrt(3) / grid.spacing_mm
    return ndimage.gaussian_filter(array, sigma) - ndimage.gaussian_filter(array, 1.8 * sigma)


def _distinct(found: Sequence[Candidate]) -> list[Candidate]:
    kept: list[Candidate] = []
    for one in sorted(found, key=lambda one: -one.score):
        near = (np.linalg.norm(one.at_mm - other.at_mm) < one.radius_mm + other.radius_mm for other in kept)
        if not any(near):
            kept.append(one)
    return kept


def as_prompts(candidates: Sequence[Candidate]) -> tuple[Lesion, ...]:
    """One click for each candidate, its score as confidence, and a note that it is a proposal only."""
    return tuple(
        Lesion(
            f"new-{number}",
            (Click(one.at_mm),),
            confidence=one.score,
            note=f"candidate for a new lesion, {'brighter' if one.brighter else 'darker'} than around it, "
            f"about {2 * one.radius_mm:.0f} mm; not outlined, and not counted anywhere, unless a reader takes it over",
        )
        for number, one in enumerate(candidates, start=1)
    )

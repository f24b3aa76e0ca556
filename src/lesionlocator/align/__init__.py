"""Ways of bringing two scans together: each takes a baseline and a follow-up and says where tissue went."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lesionlocator.align.agreement import align_quality, likeness
from lesionlocator.align.cache import cached
from lesionlocator.align.field import FieldMap
from lesionlocator.align.linear import affine as affine_map
from lesionlocator.align.linear import is_believable
from lesionlocator.align.linear import rigid as rigid_map
from lesionlocator.align.near import Hypothesis, Nearby, refine_near
from lesionlocator.align.nonrigid import deform
from lesionlocator.align.offset import likely_shifts
from lesionlocator.align.view import View, views
from lesionlocator.geometry import AffineMap, Alignment, compose
from lesionlocator.volume import Volume

__all__ = [
    "ALIGNERS",
    "DEFAULT_ALIGNER",
    "Aligner",
    "FieldMap",
    "Hypothesis",
    "Nearby",
    "align_quality",
    "cached",
    "refine_near",
]

Aligner = Callable[[Volume, Volume], Alignment]

_STARTS = 4
_NEGLIGIBLE = 0.01
_LITTLE = 0.15
"""Mean local correlation below which two scans hardly show the same thing."""


def header(baseline: Volume, followup: Volume) -> Alignment:
    """World coordinates as they are: right when both scans come from one visit."""
    warnings = () if _extents_meet(baseline, followup) else ("the scans share no place in their own coordinates",)
    return Alignment.from_affine(AffineMap.identity(), "header", warnings)


def centre(baseline: Volume, followup: Volume) -> Alignment:
    """The shift that brings the centres of both bodies together: right when both scans show the same part."""
    first, second = views(baseline, followup)
    shift = AffineMap.shift(second.centre_mm - first.centre_mm)
    return Alignment.from_affine(shift, "centre", _doubts(likeness(first.coarser(2), second.coarser(2), shift)))


def rigid(baseline: Volume, followup: Volume) -> Alignment:
    """Shift and rotation, found without any trust in a common origin or a common field of view."""
    first, second = views(baseline, followup)
    found, quality, warnings = _rigid(first, second)
    return Alignment.from_affine(found, "rigid", (*warnings, *_doubts(quality)))


def affine(baseline: Volume, followup: Volume) -> Alignment:
    """As `rigid`, with stretch and shear where they bring the scans closer."""
    first, second = views(baseline, followup)
    found, quality, warnings = _affine(first, second)
    return Alignment.from_affine(found, "affine", (*warnings, *_doubts(quality)))


def deformable(baseline: Volume, followup: Volume) -> Alignment:
    """As `affine`, and a stiff smooth deformation after it, where that brings the scans closer."""
    first, second = views(baseline, followup)
    start, before, warnings = _affine(first, second)
    fields = deform(first, second, start)
    if fields is None:
        warnings = (*warnings, "too little in common for a deformation; the affine alignment stands")
        return Alignment.from_affine(start, "deformable", (*warnings, *_doubts(before)))
    there, back = fields
    forward = compose(there, start)
    quality = likeness(first, second, forward)
    if quality <= before:
        warnings = (*warnings, *_worse(before, quality, "the deformation", "affine"))
        return Alignment.from_affine(start, "deformable", (*warnings, *_doubts(before)))
    folded = int((there.volume_change() <= 0).sum())
    if folded:
        warnings = (*warnings, f"the deformation folds at {folded} grid points")
    return Alignment(forward, compose(start.inverse(), back), "deformable", (*warnings, *_doubts(quality)))


def _rigid(first: View, second: View) -> tuple[AffineMap, float, tuple[str, ...]]:
    """The best of several starts, each improved on coarse views; then improved on the finest."""
    coarse_first, coarse_second = first.coarser(2), second.coarser(2)
    shifts = [np.zeros(3), second.centre_mm - first.centre_mm, *likely_shifts(coarse_first, coarse_second, _STARTS)]
    tried: list[tuple[float, AffineMap]] = []
    for shift in shifts:
        start = AffineMap.shift(shift)
        tried.append((likeness(coarse_first, coarse_second, start), start))
        if tried[-1][0] == 0.0:
            continue
        improved = _attempt(first, second, start, (4, 2))
        if improved is not None:
            tried.append((likeness(coarse_first, coarse_second, improved), improved))
    before, start = max(tried, key=lambda pair: pair[0])
    if before == 0.0:
        return start, before, ("no shift makes the scans overlap",)
    before = likeness(first, second, start)
    found = _attempt(first, second, start, (1,))
    after = likeness(first, second, found) if found is not None else -1.0
    if found is None or after < before:
        return start, before, ()
    return found, after, ()


def _affine(first: View, second: View) -> tuple[AffineMap, float, tuple[str, ...]]:
    start, before, warnings = _rigid(first, second)
    try:
        found = affine_map(first, second, start)
    except RuntimeError:
        return start, before, (*warnings, "the affine search lost the overlap; the rigid alignment stands")
    after = likeness(first, second, found)
    if not is_believable(found):
        return (
            start,
            before,
            (*warnings, "an affine map would stretch by more than a quarter; the rigid alignment stands"),
        )
    if after <= before:
        return start, before, (*warnings, *_worse(before, after, "the affine search", "rigid"))
    return found, after, warnings


def _attempt(first: View, second: View, start: AffineMap, factors: tuple[int, ...]) -> AffineMap | None:
    """None when the search loses the overlap."""
    try:
        return rigid_map(first, second, start, factors)
    except RuntimeError:
        return None


def _worse(before: float, after: float, what: str, kept: str) -> tuple[str, ...]:
    """Words for a step that led away; none for one that found nothing to improve."""
    if before - after < _NEGLIGIBLE:
        return ()
    return (f"{what} led away (agreement {before:.2f} before, {after:.2f} after); the {kept} alignment stands",)


def _doubts(quality: float) -> tuple[str, ...]:
    if quality == 0.0:
        return ("the aligned scans do not overlap",)
    if quality < _LITTLE:
        return (f"the aligned scans hardly resemble each other (agreement {quality:.2f} of 1): check the positions",)
    return ()


def _extents_meet(baseline: Volume, followup: Volume) -> bool:
    low = np.maximum(baseline.geometry.corners_mm.min(axis=0), followup.geometry.corners_mm.min(axis=0))
    high = np.minimum(baseline.geometry.corners_mm.max(axis=0), followup.geometry.corners_mm.max(axis=0))
    return bool(np.all(high > low))


ALIGNERS: dict[str, Aligner] = {
    "header": header,
    "centre": centre,
    "rigid": rigid,
    "affine": affine,
    "deformable": deformable,
}
DEFAULT_ALIGNER = "deformable"

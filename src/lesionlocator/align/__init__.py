"""Ways of bringing two scans together: each takes a baseline and a follow-up and says where tissue went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lesionlocator.align.agreement import align_quality, likeness
from lesionlocator.align.cache import Kept, Store, cached
from lesionlocator.align.doubt import agreement_doubts, overlap_doubts, search_doubts
from lesionlocator.align.field import FieldMap
from lesionlocator.align.near import Hypothesis, Nearby, refine_near
from lesionlocator.align.nonrigid import deform
from lesionlocator.align.search import Found, Search, either_way_round, find_affine, find_rigid, worse
from lesionlocator.align.view import View, views
from lesionlocator.geometry import AffineMap, Alignment, PointMap, compose
from lesionlocator.volume import Volume

__all__ = [
    "ALIGNERS",
    "DEFAULT_ALIGNER",
    "Aligner",
    "FieldMap",
    "Hypothesis",
    "Kept",
    "Nearby",
    "Store",
    "align_quality",
    "cached",
    "refine_near",
]

Aligner = Callable[[Volume, Volume], Alignment]


def header(baseline: Volume, followup: Volume) -> Alignment:
    """World coordinates as they are: right when both scans come from one visit."""
    warnings = () if _extents_meet(baseline, followup) else ("the scans share no place in their own coordinates",)
    return Alignment.from_affine(AffineMap.identity(), "header", warnings)


def centre(baseline: Volume, followup: Volume) -> Alignment:
    """The shift that brings the centres of both bodies together: right when both scans show the same part."""
    first, second = views(baseline, followup)
    shift = AffineMap.shift(second.centre_mm - first.centre_mm)
    quality = likeness(first.coarser(2), second.coarser(2), shift)
    return Alignment.from_affine(shift, "centre", (*overlap_doubts(first, second, shift), *agreement_doubts(quality)))


def rigid(baseline: Volume, followup: Volume) -> Alignment:
    """Shift and rotation, found without any trust in a common origin or a common field of view."""
    return _linear("rigid", find_rigid, baseline, followup)


def affine(baseline: Volume, followup: Volume) -> Alignment:
    """As `rigid`, with stretch and shear where they bring the scans closer."""
    return _linear("affine", find_affine, baseline, followup)


def deformable(baseline: Volume, followup: Volume) -> Alignment:
    """As `affine`, and a stiff smooth deformation after it, where that brings the scans closer."""
    found, first, second = _searched(find_affine, baseline, followup)
    start, said = found.point_map, found.warnings
    fields = deform(first, second, start)
    if fields is None:
        said = (*said, "too little in common for a deformation; the affine alignment stands")
        return _given(found, start, start.inverse(), "deformable", said)
    there, back = fields
    forward = compose(there, start)
    quality = likeness(first, second, forward)
    if quality <= found.agreement:
        said = (*said, *worse(found.agreement, quality, "the deformation", "affine"))
        return _given(found, start, start.inverse(), "deformable", said)
    folded = int((there.volume_change() <= 0).sum())
    if folded:
        said = (*said, f"the deformation folds at {folded} grid points")
    return _given(found, forward, compose(start.inverse(), back), "deformable", said)


def _linear(name: str, search: Search, baseline: Volume, followup: Volume) -> Alignment:
    found, *_ = _searched(search, baseline, followup)
    return _given(found, found.point_map, found.point_map.inverse(), name, found.warnings)


def _searched(search: Search, baseline: Volume, followup: Volume) -> tuple[Found, View, View]:
    """What a search found, with all that speaks against it, and the views that it brings together."""
    first, second = views(baseline, followup)
    found = either_way_round(first, second, search)
    second = second if found.turn is None else found.turn.view
    said = search_doubts(first, second, found, one_kind=baseline.modality == followup.modality)
    return replace(found, warnings=(*found.warnings, *said)), first, second


def _given(found: Found, forward: PointMap, backward: PointMap, name: str, said: tuple[str, ...]) -> Alignment:
    """The alignment to the follow-up as its header has it."""
    if found.turn is not None:
        forward, backward = compose(forward, found.turn.back), compose(found.turn.back, backward)
    return Alignment(forward, backward, name, said)


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

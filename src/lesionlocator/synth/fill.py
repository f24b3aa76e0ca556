"""Believable tissue in place of a lesion: cloned from a place nearby that looks alike around its rim."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from scipy import ndimage

from lesionlocator.geometry import Geometry
from lesionlocator.synth.region import Region, Voxels, Where, narrow
from lesionlocator.volume import Volume

_TRIES = 400
_RIM_POINTS = 400
_SEAM_VOXELS = 0.7

Steps3 = Int[np.ndarray, "3"]


def with_halo(where: Where, volume: Volume, geometry: Geometry) -> Where:
    """A lesion with the blur of its border: readers draw at half of its height."""
    reach = max(6.0 if volume.modality == "PT" else 1.5, float(geometry.spacing_mm.min()) * 1.01)
    return ndimage.distance_transform_edt(~where, sampling=geometry.spacing_mm) <= reach


def tissue_over(region: Region, where: Where, avoid: Where, rng: np.random.Generator) -> Voxels:
    """The region with other tissue at some voxels, which must not reach its edge on all sides.

    Of some hundred places nearby, the one whose rim is most like the rim here is cloned, noise and all; a smooth
    correction takes up what is left of the difference (membrane interpolation; Perez et al., ACM Trans. Graph. 2003,
    doi 10.1145/882262.882269). Where a lesion is so large that nothing clean of its size is near, the rim is continued
    inwards smoothly, with noise as strong as around it.

    Args:
        region: What surrounds the lesion, with room for clones.
        where: Voxels to be replaced.
        avoid: Voxels that must not be cloned: all lesions.
        rng: Chooses the places that are tried.
    """
    rim = rim_of(where, region.geometry) & ~avoid
    shift = _best_shift(region, _Wanted(where, rim, avoid), rng)
    noise = region.noise
    if shift is None:
        return _continued(region, where, rim, rng)
    cloned_structure, cloned_fine = _shifted(noise.structure, shift), _shifted(noise.fine, shift)
    membrane = _membrane(region.array - _shifted(region.array, shift), where, rim, region.geometry)
    return _blended(region, where, cloned_structure + membrane, cloned_fine)


@dataclass(frozen=True, eq=False)
class _Wanted:
    where: Where
    rim: Where
    avoid: Where


def rim_of(where: Where, geometry: Geometry) -> Where:
    """The shell of some millimetres around."""
    spacing = geometry.spacing_mm
    away = ndimage.distance_transform_edt(~where, sampling=spacing)
    return (away > 0) & (away <= max(3.0, 2.01 * float(spacing.min()), 1.01 * float(spacing.max())))


def _best_shift(region: Region, wanted: _Wanted, rng: np.random.Generator) -> Steps3 | None:
    """The displacement to the place that is cloned; None where all are worse than no clone."""
    inside, rim = np.argwhere(wanted.where), np.argwhere(wanted.rim)
    if len(rim) < 8:
        return None
    structure = region.noise.structure
    inside = inside[rng.permutation(len(inside))[:_RIM_POINTS]]
    rim = rim[rng.permutation(len(rim))[:_RIM_POINTS]]
    points = np.concatenate([inside, rim])
    whole = np.argwhere(wanted.where)
    low, high = -whole.min(axis=0), np.array(structure.shape) - 1 - whole.max(axis=0)
    shifts = np.stack([rng.integers(a, b + 1, _TRIES) for a, b in zip(low, high, strict=True)], axis=1)
    # The nearer, the more alike: half of the tries are near.
    shifts[::2] = np.rint(shifts[::2] * 0.5).astype(shifts.dtype)
    at = np.clip(points[None] + shifts[:, None], 0, np.array(structure.shape) - 1)
    flat = np.ravel_multi_index((at[..., 0], at[..., 1], at[..., 2]), structure.shape)
    taken = wanted.avoid.ravel()[flat] | wanted.where.ravel()[flat]
    clean = np.flatnonzero(taken.mean(axis=1) <= 0.0)
    if len(clean) == 0:
        return None
    values = structure.ravel()[flat[clean]]
    here = structure[tuple(rim.T)]
    there, filling = values[:, len(inside) :], values[:, : len(inside)]
    bias = np.median(there - here, axis=1, keepdims=True)
    low_here, high_here = np.percentile(here, (15, 85))
    margin = 0.25 * (high_here - low_here) + float(np.median(region.noise.spread[tuple(rim.T)]))
    beyond = np.maximum(0, filling - bias - high_here - margin) + np.maximum(0, low_here - margin - filling + bias)
    cost = np.abs(there - here - bias).mean(axis=1) + 0.5 * np.abs(bias[:, 0]) + beyond.mean(axis=1)
    best = int(np.argmin(cost))
    flat_cost = float(np.abs(here - np.median(here)).mean()) + 3 * float(region.noise.spread[tuple(rim.T)].mean())
    return shifts[clean[best]] if cost[best] < 2 * flat_cost else None


def _shifted(array: Voxels, shift: Steps3) -> Voxels:
    return np.roll(array, tuple(int(-s) for s in shift), axis=(0, 1, 2))


def _membrane(difference: Voxels, where: Where, rim: Where, geometry: Geometry) -> Voxels:
    """A smooth field that continues the difference at the rim inwards."""
    # A vessel at the rim on one side only is no reason to brighten all of the inside.
    middle = float(np.median(difference[rim]))
    limit = 2.5 * 1.4826 * float(np.median(np.abs(difference[rim] - middle)))
    difference = np.clip(difference, middle - limit, middle + limit)
    radius_mm = (np.count_nonzero(where) * geometry.voxel_ml * 1000 * 3 / (4 * np.pi)) ** (1 / 3)
    known = rim.astype(np.float32)
    found = np.full(difference.shape, float(np.median(difference[rim])), np.float32)
    for share in (1.0, 0.5, 0.25):
        sigma = np.maximum(share * radius_mm, 1.0) / geometry.spacing_mm
        weight = ndimage.gaussian_filter(known, sigma, mode="constant", truncate=3.0)
        rest = ndimage.gaussian_filter(known * (difference - found), sigma, mode="constant", truncate=3.0)
        found += rest / (weight + 0.02 * float(weight[rim].mean()) + 1e-12)
    return found


def _continued(region: Region, where: Where, rim: Where, rng: np.random.Generator) -> Voxels:
    noise = region.noise
    if not rim.any():
        return region.array
    level = _membrane(region.array, where, rim, region.geometry)
    drawn = noise.grain(rng) * float(np.median(noise.spread[rim]))
    return _blended(region, where, level, drawn)


def _blended(region: Region, where: Where, structure: Voxels, fine: Voxels) -> Voxels:
    """Structure blended over the seam; of the noise the power is blended, which leaves no quiet seam."""
    noise = region.noise
    share = ndimage.gaussian_filter(where.astype(np.float32), narrow(region.geometry, _SEAM_VOXELS), truncate=3.0)
    share[share < 0.01] = 0
    return np.where(
        share > 0,
        share * structure + (1 - share) * noise.structure + np.sqrt(share) * fine + np.sqrt(1 - share) * noise.fine,
        region.array,
    ).astype(np.float32)

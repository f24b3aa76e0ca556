"""Lesions painted into the lungs of a copy of a scan: where there is room, at the size of each visit, in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask, Volume

_HU, _TEXTURE_HU = 35.0, 40.0
_LUNG_HU, _VESSEL_HU = -500.0, -700.0
_STEP_MM = 4.0
_WALL_MM = 18.0
"""A lesion in free lung: no nearer to its wall than this."""
_APART_MM = 60.0


@dataclass(frozen=True, eq=False)
class Painted:
    """One part of a lesion, or all of it: a ball of soft tissue with lobes."""

    at_mm: Float[np.ndarray, "3"]
    radius_mm: float
    shape: int = 0


def free_sites(
    scan: Volume, lesions: Sequence[Mask], count: int, apart_mm: float = _APART_MM
) -> list[Float[np.ndarray, "3"]]:
    """Places inside the lungs with few vessels, far from each other and from the lesions; fewer if there is no room."""
    small = _coarse(scan)
    lung = _lungs(small)
    depth = np.asarray(ndimage.distance_transform_edt(lung, sampling=small.geometry.spacing_mm))
    vessels = ndimage.gaussian_filter((small.array > _VESSEL_HU).astype(np.float32), 14 / small.geometry.spacing_mm)
    at = np.argwhere(depth > _WALL_MM)
    order = np.argsort(vessels[tuple(at.T)], kind="stable")
    taken = [mask.centroid_mm for mask in lesions if not mask.is_empty]
    found: list[Float[np.ndarray, "3"]] = []
    for place in small.geometry.index_to_world(at[order].astype(float)):
        if len(found) == count:
            break
        if all(np.linalg.norm(place - other) > apart_mm for other in [*taken, *found]):
            found.append(place)
    return found


def paint(scan: Volume, lesions: Mapping[str, Sequence[Painted]]) -> tuple[Volume, dict[str, Mask]]:
    """A copy of the scan with these lesions in it, each of one part or several, and their masks."""
    array = scan.array.astype(np.float32)
    masks: dict[str, Mask] = {}
    for lesion_id, parts in lesions.items():
        full = np.zeros(array.shape, bool)
        for part in parts:
            _add(array, full, scan.geometry, part)
        masks[lesion_id] = Mask.from_array(full, scan.geometry)
    limits = np.iinfo(np.int16)
    painted = np.clip(np.round(array), limits.min, limits.max).astype(np.int16)
    return replace(scan, array=painted), masks


def lobed(unit: Float[np.ndarray, "*n 3"], rng: np.random.Generator) -> Float[np.ndarray, " *n"]:
    """Radius by direction, around one: a few smooth lobes."""
    radius = np.ones(unit.shape[:-1])
    for strength, waves in ((0.16, 1.8), (0.09, 3.5), (0.045, 7.0)):
        radius += strength * np.sin(unit @ (rng.standard_normal(3) * waves) + rng.uniform(0, 2 * np.pi))
    return radius


def _add(array: np.ndarray, full: np.ndarray, geometry: Geometry, part: Painted) -> None:
    covered = geometry.clip(*geometry.around(part.at_mm[None], 1.5 * part.radius_mm + 3))
    if covered is None:
        return
    region = geometry.crop(*covered)
    slices = tuple(slice(a, b) for a, b in zip(*covered, strict=True))
    offset = region.index_to_world(np.indices(region.shape).reshape(3, -1).T.astype(float)) - part.at_mm
    distance = np.linalg.norm(offset, axis=1)
    rng = np.random.default_rng(part.shape)
    inside_mm = part.radius_mm * lobed(offset / (distance[:, None] + 1e-6), rng) - distance
    inside_mm = inside_mm.reshape(region.shape)
    grain = ndimage.gaussian_filter(rng.standard_normal(region.shape), (0.6, 1.6, 1.6))
    # As wide as a slice is thick, a border is soft from slice to slice.
    share = np.clip(inside_mm / 1.4 + 0.5, 0, 1)
    array[slices] += (_HU + _TEXTURE_HU * grain - array[slices]) * share
    full[slices] |= inside_mm >= 0


def _coarse(scan: Volume) -> Volume:
    every = np.maximum(1, np.round(_STEP_MM / scan.geometry.spacing_mm)).astype(int)
    array = scan.array[:: every[0], :: every[1], :: every[2]]
    affine = scan.geometry.affine.copy()
    affine[:3, :3] *= every
    return replace(scan, array=array, geometry=Geometry(array.shape, affine))


def _lungs(scan: Volume) -> np.ndarray:
    """Air inside the body: no part of it that reaches a side of the axial slices; vessels in it filled."""
    labels, _ = ndimage.label(scan.array < _LUNG_HU)
    labels = np.asarray(labels)
    sides = [labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]]
    outside = np.unique(np.concatenate([side.ravel() for side in sides]))
    lung = (labels > 0) & ~np.isin(labels, outside)
    lung = ndimage.binary_closing(np.pad(lung, 2), iterations=2)[2:-2, 2:-2, 2:-2]
    # The first and last slice are borders too: beyond them nothing is known.
    lung[[0, -1]] = False
    return lung

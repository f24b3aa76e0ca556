"""The voxels around a lesion, taken out of a visit to be changed and put back; the rest stays bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry, Index3
from lesionlocator.synth.deform import SmoothField
from lesionlocator.synth.visit import Visit
from lesionlocator.volume import Mask, Volume

Voxels = Float[np.ndarray, "d h w"]
Where = Bool[np.ndarray, "d h w"]

_AT_REST = 1e-3
"""Voxels. What moves less keeps its own value."""
_CLIPPED_AT = 2.5
"""Spreads of the noise beyond which a detail is structure."""
_STEEPNESS = 4.0
"""Of the ramp between two voxels: 1 is linear interpolation, which blurs; far more is the nearest voxel, with steps."""


@dataclass(frozen=True, eq=False)
class Region:
    """A box of a visit's scan, as float32, and the lesions in it."""

    visit: Visit
    start: Index3
    array: Voxels
    geometry: Geometry

    @staticmethod
    def around(visit: Visit, geometry: Geometry, margin_mm: float = 0.0) -> Region:
        """The part of the scan that covers a grid and a margin."""
        scan = visit.volume
        covered = scan.geometry.clip(*scan.geometry.around(geometry.corners_mm, margin_mm))
        if covered is None:
            raise Refused(
                found="a lesion outside the scan",
                needed="one that the scan shows",
                do="choose another lesion",
            )
        part = scan.crop(*covered)
        return Region(visit, covered[0], np.array(part.array, np.float32), part.geometry)

    @cached_property
    def noise(self) -> Noise:
        return Noise.of(self.array, self.geometry)

    def where(self, lesion_id: str) -> Where:
        return self.visit.lesions[lesion_id].on(self.geometry)

    def others(self, *lesion_ids: str) -> Where:
        """Voxels of all other lesions."""
        found = np.zeros(self.geometry.shape, bool)
        for name, mask in self.visit.lesions.items():
            if name not in lesion_ids and self.shows(mask):
                found |= mask.on(self.geometry)
        return found

    def shows(self, mask: Mask) -> bool:
        return self.geometry.clip(*self.geometry.around(mask.geometry.corners_mm)) is not None

    def put_back(self, array: Voxels) -> Volume:
        """The visit's scan with other values here, in its own kind of number; unchanged voxels keep their bits."""
        scan = self.visit.volume
        whole = scan.array.copy()
        place = whole[tuple(slice(a, a + n) for a, n in zip(self.start, array.shape, strict=True))]
        changed = array != self.array
        values = np.clip(array[changed], float(scan.array.min()), float(scan.array.max()))
        if np.issubdtype(whole.dtype, np.integer):
            values = np.rint(values)
        place[changed] = values.astype(whole.dtype)
        return replace(scan, array=whole)

    def with_voxels(self, array: Voxels, lesions: Mapping[str, Mask] | None = None) -> Visit:
        """The visit with other values here, and other outlines for some lesions."""
        outlines = {**self.visit.lesions, **(lesions or {})}
        return self.visit.edited(volume=self.put_back(array), lesions=outlines)


@dataclass(frozen=True, eq=False)
class Noise:
    """A region told apart into structure and fine noise, whose sum it is.

    What is laid over other tissue keeps its own noise: structure is blended there, and of the noise the power.
    """

    structure: Voxels
    fine: Voxels
    spread: Voxels
    """Of the noise, in the neighbourhood."""
    border: Where
    """Where structure is so steep that part of what is left as noise is border."""

    @staticmethod
    def of(array: Voxels, geometry: Geometry) -> Noise:
        smooth = ndimage.gaussian_filter(array, narrow(geometry, 1.0), mode="nearest", truncate=3.0)
        fine = array - smooth
        typical = 1.4826 * float(np.median(np.abs(fine[:: max(1, fine.shape[0] // 32)]))) + 1e-6
        # Noise is measured away from borders; the blur leaves about half a voxel's step of a border in `fine`.
        border = np.zeros(array.shape, bool)
        for axis in range(3):
            step = np.abs(np.diff(smooth, axis=axis)) > 2.5 * typical
            low, high = [
                tuple(slice(k, -1 + k or None) if a == axis else slice(None) for a in range(3)) for k in (0, 1)
            ]
            border[low] |= step
            border[high] |= step
        border |= np.abs(fine) > 4 * typical
        width = narrow(geometry, 2.5)
        plain = (~border).astype(np.float32)
        weight = ndimage.gaussian_filter(plain, width, mode="nearest", truncate=3.0) + 0.01
        power = ndimage.gaussian_filter(plain * fine**2, width, mode="nearest", truncate=3.0) + 0.01 * typical**2
        spread = np.sqrt(power / weight + 1e-12).astype(np.float32)
        fine = np.clip(fine, -_CLIPPED_AT * spread, _CLIPPED_AT * spread)
        return Noise(array - fine, fine, spread, border)

    def grain(self, rng: np.random.Generator) -> Voxels:
        """Noise of unit spread, without the traces that borders leave in it."""
        unit = self.fine / self.spread
        drawn = np.zeros_like(unit)
        for _ in range(4):
            empty = drawn == 0
            if not empty.any():
                break
            shift = tuple(int(rng.integers(n // 4, max(n // 4 + 1, 3 * n // 4))) for n in unit.shape)
            shifted = np.roll(np.where(self.border, np.float32(0), unit), shift, axis=(0, 1, 2))
            drawn[empty] = shifted[empty]
        strength = float(drawn.std())
        drawn = drawn / strength * min(1.0, float(unit[~self.border].std())) if strength > 0 else drawn
        share = ndimage.gaussian_filter(self.border.astype(np.float32), 0.6) * 1.5
        share = np.clip(share, 0, 1)
        return np.sqrt(1 - share**2) * unit + share * drawn


def narrow(geometry: Geometry, voxels: float) -> tuple[float, ...]:
    """A blur of some voxels in the plane, and of less where slices are further apart than that."""
    spacing = geometry.spacing_mm
    return tuple(float(v) for v in voxels * np.minimum(1.0, 1.5 * float(spacing.min()) / spacing))


def moved(region: Region, field: SmoothField) -> Voxels:
    """The region after a deformation, about as sharp and as noisy as before.

    Interpolation between voxels blurs borders and quietens noise; splines also ring beside borders that are as narrow
    as a voxel. So the way from one voxel's value to the next is a steep ramp in the middle between them: a border is
    where the deformation puts it, and every value comes from within three eighths of a voxel, along each axis.
    """
    steps = field.on(region.geometry)
    touched = np.abs(steps).max(axis=0) > _AT_REST
    box = _box_of(touched)
    if box is None:
        return region.array
    steps, touched = steps[(slice(None), *box)], touched[box]
    origin = np.array([part.start for part in box], np.float32)[:, None]
    index = np.argwhere(touched).T.astype(np.float32) + origin + steps[:, touched]
    voxel = np.floor(index)
    ramp = np.clip(_STEEPNESS * (index - voxel - 0.5) + 0.5, 0, 1)
    out = region.array.copy()
    out[box][touched] = ndimage.map_coordinates(region.array, voxel + ramp, order=1, mode="nearest")
    return out


def carried_outline(
    mask: Mask, field: SmoothField, box: Geometry, voxels: int | None = None, free: Where | None = None
) -> tuple[Mask, int]:
    """The lesion's outline after a deformation, and how many voxels the deformation itself gives it.

    Args:
        mask: The outline before.
        field: Where what is at a place has come from.
        box: A part of the lattice that covers the outline before and after.
        voxels: How many the outline shall have: the nearest to the moved border are taken or left. Without it as many
            as the deformation gives.
        free: Voxels of the box that it may take.
    """
    steps = field.on(box)
    depth, origin = _depth(mask, box)
    index = [
        (np.arange(n, dtype=np.float32) - origin[axis]).reshape([-1 if a == axis else 1 for a in range(3)])
        + steps[axis]
        for axis, n in enumerate(box.shape)
    ]
    near = np.logical_and.reduce([(at > 0) & (at < n - 1) for at, n in zip(index, depth.shape, strict=True)])
    found = np.full(box.shape, -np.inf, np.float32)
    at = np.stack([part[near] for part in index])
    found[near] = ndimage.map_coordinates(depth, at, order=1, mode="nearest", prefilter=False)
    if free is not None:
        found[~free] = -np.inf
    given = int(np.count_nonzero(found > 0))
    wanted = max(1, given if voxels is None else voxels)
    order = np.argpartition(-found.ravel(), wanted - 1)[:wanted]
    outline = np.zeros(found.size, bool)
    outline[order] = True
    outline &= np.isfinite(found.ravel())
    return Mask.from_array(outline.reshape(found.shape), box), given


def _depth(mask: Mask, geometry: Geometry) -> tuple[Voxels, Int[np.ndarray, "3"]]:
    """Depth below the outline in mm (negative outside) on the mask's box and a margin; and that box's start."""
    inside = np.pad(mask.array, 3)
    spacing = mask.geometry.spacing_mm
    half = float(spacing.min()) / 2
    deep = ndimage.distance_transform_edt(inside, sampling=spacing)
    away = ndimage.distance_transform_edt(~inside, sampling=spacing)
    depth = np.where(inside, deep - half, half - away).astype(np.float32)
    start = mask.geometry.offset_in(geometry)
    if start is None:
        raise Refused(
            found="a lesion on another grid than its scan",
            needed="outlines on the scan's lattice",
            do="bring them there with `Mask.placed` first",
        )
    return depth, np.array(start) - 3


def _box_of(touched: Where) -> tuple[slice, slice, slice] | None:
    found = ndimage.find_objects(touched.astype(np.uint8))
    return found[0] if found else None

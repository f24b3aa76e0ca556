"""A scan as registration looks at it: coarse, upright, comparable grey values, the body told from table and air."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage
from skimage.filters import threshold_otsu

from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry, Index3
from lesionlocator.resample import resample
from lesionlocator.volume import Modality, Volume, bounds

FINEST_MM, COARSEST_MM = 1.5, 5.0
_VOXELS = 600_000
"""Voxels of the smaller body's box on the working grid: about 4 mm for a trunk, 2.3 mm for a head."""
_VOXELS_LARGER = 3_000_000
_RIM_MM = 20.0
"""Air kept around the body: its outline is the strongest landmark that there is."""


@dataclass(frozen=True, eq=False)
class View:
    """A scan on an upright cubic grid (axes d, h, w along z, y, x).

    `array` is grey from 0 to 1; `body` is the patient and a rim of air around; `seen` is what lies inside the scan.
    """

    array: Float[np.ndarray, "d h w"]
    body: Bool[np.ndarray, "d h w"]
    seen: Bool[np.ndarray, "d h w"]
    geometry: Geometry

    @property
    def spacing_mm(self) -> float:
        return float(self.geometry.spacing_mm[0])

    @property
    def centre_mm(self) -> Float[np.ndarray, "3"]:
        """Centre of the body."""
        return self.geometry.index_to_world(np.argwhere(self.body).mean(axis=0)[None])[0]

    def crop(self, start: Index3, stop: Index3) -> View:
        """The part [start, stop), which must lie inside."""
        cut = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        return View(self.array[cut], self.body[cut], self.seen[cut], self.geometry.crop(start, stop))

    def padded(self, voxels: int) -> View:
        """With unseen voxels added on every side."""
        shape = self.geometry.shape
        stop = (shape[0] + voxels, shape[1] + voxels, shape[2] + voxels)
        return View(
            np.pad(self.array, voxels, mode="edge"),
            np.pad(self.body, voxels),
            np.pad(self.seen, voxels),
            self.geometry.crop((-voxels, -voxels, -voxels), stop),
        )

    def coarser(self, factor: int) -> View:
        """Every `factor` voxels averaged to one."""
        if factor == 1:
            return self
        shape = tuple(-(-n // factor) for n in self.geometry.shape)
        affine = self.geometry.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.full(3, (factor - 1) / 2)
        affine[:3, :3] *= factor
        return View(
            _pooled(self.array, factor),
            _pooled(self.body.astype(np.float32), factor) >= 0.5,
            _pooled(self.seen.astype(np.float32), factor) >= 0.5,
            Geometry((shape[0], shape[1], shape[2]), affine),
        )


def views(baseline: Volume, followup: Volume) -> tuple[View, View]:
    """Both scans on upright grids of one spacing, fine enough for the smaller, small enough for the larger."""
    small = [_thinned(volume) for volume in (baseline, followup)]
    rough = [_view(volume, max(6.0, _spacing_for(volume.geometry, 300_000))) for volume in small]
    boxes_mm3 = sorted(float(np.prod(view.geometry.shape)) * view.spacing_mm**3 for view in rough)
    spacing_mm = float(np.clip(np.cbrt(boxes_mm3[0] / _VOXELS), FINEST_MM, COARSEST_MM))
    own_mm = max(float(np.cbrt(volume.geometry.voxel_ml * 1000)) for volume in (baseline, followup))
    spacing_mm = max(spacing_mm, float(np.cbrt(boxes_mm3[1] / _VOXELS_LARGER)), own_mm)
    first, second = (_view(volume, spacing_mm) for volume in small)
    return first, second


def _view(volume: Volume, spacing_mm: float) -> View:
    grid = _upright(volume.geometry, spacing_mm)
    array = resample(volume, grid)
    index = np.indices(grid.shape).reshape(3, -1).T.astype(float)
    seen = volume.geometry.contains(grid.index_to_world(index)).reshape(grid.shape)
    if float(np.ptp(array[seen])) == 0:
        raise Refused(
            found=f"the scan {volume.name!r}, whose voxels are all alike",
            needed="a picture of the patient, to bring two scans together",
            do="check the file, or use the alignment 'header' if the scans share their coordinates",
        )
    body = _body(array, seen, volume.modality, spacing_mm)
    if volume.modality == "CT":
        # The table goes; the skin stays, whose voxels are half air.
        array = np.where(_grown(body, 2) | ~seen, array, -1000.0)
    grey = to_grey(array, body & seen, volume.modality)
    rim = max(1, round(_RIM_MM / spacing_mm))
    body = _grown(body, rim) & seen
    low, high = bounds(body) or ((0, 0, 0), grid.shape)
    return View(grey.astype(np.float32), body, seen, grid).crop(low, high)


def _thinned(volume: Volume) -> Volume:
    """The scan with fine voxels averaged in blocks, float32 and finite: small enough to be resampled at will."""
    target_mm = max(FINEST_MM, 0.35 * _spacing_for(volume.geometry, _VOXELS))
    factors = np.maximum(1, np.floor(target_mm / volume.geometry.spacing_mm)).astype(int)
    factors = np.minimum(factors, volume.geometry.shape)
    shape = np.array(volume.geometry.shape) // factors
    total = np.zeros(shape, np.float32)
    for offset in np.ndindex(*(int(f) for f in factors)):
        cut = tuple(slice(o, o + n * f, f) for o, n, f in zip(offset, shape, factors, strict=True))
        total += volume.array[cut]
    total /= np.prod(factors)
    if not np.isfinite(total).all():
        known = total[np.isfinite(total)]
        total = np.where(np.isfinite(total), total, known.min() if known.size else 0.0).astype(np.float32)
    affine = volume.geometry.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((factors - 1) / 2)
    affine[:3, :3] *= factors
    return replace(volume, array=total, geometry=Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine))


def _upright(source: Geometry, spacing_mm: float) -> Geometry:
    low, high = source.corners_mm.min(axis=0), source.corners_mm.max(axis=0)
    shape = np.maximum(1, np.ceil((high - low) / spacing_mm - 0.01)).astype(int)
    affine = np.zeros((4, 4))
    affine[[0, 1, 2], [2, 1, 0]] = spacing_mm
    affine[:3, 3] = (low + high) / 2 - (shape - 1) / 2 * spacing_mm
    affine[3, 3] = 1
    return Geometry((int(shape[2]), int(shape[1]), int(shape[0])), affine)


def _spacing_for(geometry: Geometry, voxels: int) -> float:
    extent_mm = np.ptp(geometry.corners_mm, axis=0)
    return float(np.cbrt(np.prod(extent_mm) / voxels))


def to_grey(
    array: Float[np.ndarray, "d h w"], body: Bool[np.ndarray, "d h w"], modality: Modality
) -> Float[np.ndarray, "d h w"]:
    """Grey from 0 to 1, the darkest and the brightest of `body` cut off (in CT: -1000 to 500 HU)."""
    if modality == "CT":
        return np.clip((array + 1000) / 1500, 0, 1)
    if modality == "PT":
        # The root brings the hot organs (bladder, brain, heart) down to the scale of the rest of the body.
        array = np.sqrt(np.clip(array, 0, None))
    low, high = np.percentile(array[body] if body.any() else array, (0.5, 99.5))
    return np.clip((array - low) / max(float(high - low), 1e-12), 0, 1)


def _body(
    array: Float[np.ndarray, "d h w"], seen: Bool[np.ndarray, "d h w"], modality: Modality, spacing_mm: float
) -> Bool[np.ndarray, "d h w"]:
    """The patient: the largest bright part, its holes filled slice by slice; all that is seen if there is none."""
    level = -300.0 if modality == "CT" else _air_level(array[seen])
    bright = (array > level) & seen
    opened = ndimage.binary_opening(bright, iterations=max(1, round(6 / spacing_mm)))
    parts, count = ndimage.label(opened)
    if count == 0:
        return seen
    largest = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    body = _grown(largest, 1) & (bright | largest)
    body = np.stack([ndimage.binary_fill_holes(part) for part in body]).astype(bool) & seen
    # A crop from inside the body (a nodule in lung) has no outline to find.
    return body if 0.1 * seen.sum() < body.sum() else seen


def _air_level(values: Shaped[np.ndarray, " n"]) -> float:
    if values.size == 0 or float(np.ptp(values)) == 0:
        return -np.inf
    return 0.4 * float(threshold_otsu(values)) + 0.6 * float(np.percentile(values, 1))


def _grown(mask: Bool[np.ndarray, "d h w"], voxels: int) -> Bool[np.ndarray, "d h w"]:
    return ndimage.binary_dilation(mask, iterations=voxels)


def _pooled(array: Float[np.ndarray, "d h w"], factor: int) -> Float[np.ndarray, "D H W"]:
    padded = np.pad(array, [(0, -n % factor) for n in array.shape], mode="edge")
    d, h, w = (n // factor for n in padded.shape)
    return padded.reshape(d, factor, h, factor, w, factor).mean(axis=(1, 3, 5), dtype=np.float32)

"""A scan's voxels, and a mask that keeps only its bounding crop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped

from lesionlocator.errors import Refused
from lesionlocator.geometry import Alignment, Geometry, Index3

Modality = Literal["CT", "MR", "PT"]
UNITS: dict[str, str] = {"CT": "HU", "PT": "SUV", "MR": "a.u."}


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels in their place.

    `array` is (d, h, w), of any real number type (a CT stays int16 as stored, so that long scans fit in memory).
    `warnings` are what the reader had to decide or repair; they end in `run.json`. `own_unit` is for a scan whose
    numbers have another unit than its modality's usual one (a PET that could not be made SUV).
    """

    array: Shaped[np.ndarray, "d h w"]
    geometry: Geometry
    modality: Modality
    name: str = "scan"
    warnings: tuple[str, ...] = ()
    own_unit: str | None = None

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise Refused(
                found=f"voxels of shape {self.array.shape} on a grid of {self.geometry.shape}",
                needed="one voxel for every grid point",
                do="pass the array in (d, h, w) order with its own geometry",
            )

    @property
    def unit(self) -> str:
        """Unit of the intensities: HU, SUV (g/ml), or arbitrary units for MR."""
        return self.own_unit or UNITS[self.modality]

    def crop(self, start: Index3, stop: Index3) -> Volume:
        """The part [start, stop), which must lie inside; a view, not a copy."""
        slices = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        return replace(self, array=self.array[slices], geometry=self.geometry.crop(start, stop))


@dataclass(frozen=True, eq=False)
class Mask:
    """The voxels of one lesion: a boolean crop and the crop's own geometry, so overlap between lesions is harmless.

    An empty mask is one voxel that is False.
    """

    array: Bool[np.ndarray, "d h w"]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise Refused(
                found=f"a mask of shape {self.array.shape} on a grid of {self.geometry.shape}",
                needed="one value for every grid point",
                do="pass the array in (d, h, w) order with its own geometry",
            )

    @staticmethod
    def from_array(array: Shaped[np.ndarray, "d h w"], geometry: Geometry) -> Mask:
        """The tight crop of the non-zero voxels of a full array."""
        if array.shape != geometry.shape:
            raise Refused(
                found=f"a mask of shape {array.shape} on a grid of {geometry.shape}",
                needed="the same shape",
                do="pass the array in (d, h, w) order with its own geometry",
            )
        start, stop = bounds(array != 0) or ((0, 0, 0), (1, 1, 1))
        slices = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        return Mask(np.array(array[slices] != 0), geometry.crop(start, stop))

    @staticmethod
    def empty(geometry: Geometry) -> Mask:
        return Mask(np.zeros((1, 1, 1), bool), geometry.crop((0, 0, 0), (1, 1, 1)))

    @cached_property
    def voxels(self) -> int:
        return int(np.count_nonzero(self.array))

    @property
    def is_empty(self) -> bool:
        return self.voxels == 0

    @property
    def volume_ml(self) -> float:
        return self.voxels * self.geometry.voxel_ml

    @property
    def equivalent_diameter_mm(self) -> float:
        """Diameter of the ball that has its volume."""
        return 2 * (3 * self.volume_ml * 1000 / (4 * np.pi)) ** (1 / 3)

    @cached_property
    def points_mm(self) -> Float[np.ndarray, "n 3"]:
        """Centres of its voxels; none for an empty mask."""
        return self.geometry.index_to_world(np.argwhere(self.array).astype(float))

    @cached_property
    def centroid_mm(self) -> Float[np.ndarray, "3"]:
        """Mean of the voxel centres; may lie outside a hollow lesion."""
        self._refuse_if_empty("a centroid")
        return self.points_mm.mean(axis=0)

    @property
    def depth_mm(self) -> Float[np.ndarray, "d h w"]:
        """How far every voxel of the lesion is from the nearest one outside it; 0 outside."""
        from scipy import ndimage

        distances: Callable[..., np.ndarray] = ndimage.distance_transform_edt
        return distances(np.pad(self.array, 1), sampling=self.geometry.spacing_mm)[1:-1, 1:-1, 1:-1]

    @cached_property
    def deepest_mm(self) -> Float[np.ndarray, "3"]:
        """Centre of the voxel furthest (in mm) from the border; on a tie the one nearest the centroid."""
        self._refuse_if_empty("a deepest voxel")
        depth = self.depth_mm
        deepest = np.argwhere(depth >= depth.max() - 1e-6).astype(float)
        at_mm = self.geometry.index_to_world(deepest)
        return at_mm[np.argmin(np.linalg.norm(at_mm - self.centroid_mm, axis=1))]

    def on(self, geometry: Geometry) -> Bool[np.ndarray, "d h w"]:
        """Pasted into a full grid of the same lattice; what lies outside that grid is cut off."""
        full = np.zeros(geometry.shape, bool)
        start = self.geometry.offset_in(geometry)
        if start is None:
            raise Refused(
                found="a mask on another grid",
                needed="the same lattice of voxels (to 0.01 mm)",
                do="carry the mask over with `warped` first",
            )
        stop = tuple(a + n for a, n in zip(start, self.array.shape, strict=True))
        inside = geometry.clip(start, (stop[0], stop[1], stop[2]))
        if inside is not None:
            low, high = inside
            full[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = self.array[
                tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
            ]
        return full

    def placed(self, geometry: Geometry) -> Mask:
        """The same place in the patient as a mask on another grid: each new voxel takes the nearest old one."""
        if self.geometry.offset_in(geometry) is not None:
            return self._clipped(geometry)
        return self.warped(geometry, Alignment(_same, _same, "same place"))

    def warped(self, onto: Geometry, alignment: Alignment) -> Mask:
        """Carried through an alignment of which this mask's scan is the baseline, to the grid `onto` of the follow-up.

        Looks up the nearest voxel at `backward(x)` for every voxel x near `forward` of the mask. Empty when nothing of
        it lies inside `onto`.
        """
        if self.is_empty:
            return Mask.empty(onto)
        reach_mm = float(np.max(onto.spacing_mm) + np.max(self.geometry.spacing_mm))
        covered = onto.clip(*onto.around(alignment.forward(self.points_mm), 2 * reach_mm))
        if covered is None:
            return Mask.empty(onto)
        region = onto.crop(*covered)
        index = np.indices(region.shape).reshape(3, -1).T.astype(float)
        at_mm = alignment.backward(region.index_to_world(index))
        found = np.floor(self.geometry.world_to_index(at_mm) + 0.5).astype(int)
        known = np.all((found >= 0) & (found < self.array.shape), axis=1)
        values = np.zeros(len(index), bool)
        values[known] = self.array[tuple(found[known].T)]
        return Mask.from_array(values.reshape(region.shape), region)

    def dice(self, other: Mask) -> float:
        """Dice with another mask, 0 to 1; 0 where both are empty."""
        voxels = self.voxels + other.voxels
        return 2 * self.overlap(other) / voxels if voxels else 0.0

    def overlap(self, other: Mask) -> int:
        """Voxels that both have; both must be on one lattice."""
        start = self.geometry.offset_in(other.geometry)
        if start is None:
            return self.overlap(other.placed(self.geometry))
        return int(np.count_nonzero(self.array & other.on(self.geometry)))

    def _clipped(self, geometry: Geometry) -> Mask:
        covered = geometry.clip(*_range_in(self, geometry))
        if covered is None:
            return Mask.empty(geometry)
        region = geometry.crop(*covered)
        return Mask.from_array(self.on(region), region)

    def _refuse_if_empty(self, what: str) -> None:
        if self.is_empty:
            raise Refused(found="an empty mask", needed=f"at least one voxel to have {what}", do="ask `is_empty` first")


def bounds(array: Bool[np.ndarray, "d h w"]) -> tuple[Index3, Index3] | None:
    """Start and stop of the tight box of True voxels; None when there are none."""
    ranges: list[tuple[int, int]] = []
    for axis in range(3):
        hit = np.flatnonzero(array.any(axis=tuple(a for a in range(3) if a != axis)))
        if len(hit) == 0:
            return None
        ranges.append((int(hit[0]), int(hit[-1]) + 1))
    (d0, d1), (h0, h1), (w0, w1) = ranges
    return (d0, h0, w0), (d1, h1, w1)


def _range_in(mask: Mask, geometry: Geometry) -> tuple[Index3, Index3]:
    start = mask.geometry.offset_in(geometry) or (0, 0, 0)
    d, h, w = (a + n for a, n in zip(start, mask.array.shape, strict=True))
    return start, (d, h, w)


def _same(at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    return at_mm

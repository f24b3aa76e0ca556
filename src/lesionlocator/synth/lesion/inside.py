"""A lesion that looks different inside: a necrotic core, another rim, another uptake, in the same outline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy import ndimage

from lesionlocator.synth.lattice import smooth_noise
from lesionlocator.synth.lesion.choice import lesion_of, levels, suitable
from lesionlocator.synth.region import Region, Voxels, Where, narrow
from lesionlocator.synth.visit import Changed, Visit
from lesionlocator.volume import Mask

_WATER_HU = (0.0, 25.0)
_WALL_VOXELS = 2.0
"""Of a lesion round its dead core: less is hardly seen as a wall."""


@dataclass(frozen=True)
class Necrosis:
    """The core of a lesion dies: `core_share` of its volume goes to `level` (HU, SUV or the MR's own units).

    The core is what lies deepest, with a wavy border of `waviness` times its depth.
    """

    lesion_id: str
    core_share: float
    level: float
    waviness: float = 0.3
    seed: int = 0

    name: ClassVar[str] = "necrosis"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "lesion"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Necrosis | None:
        """In lesions of at least 60 voxels; to between 0 and 25 HU, and always darker than the lesion.

        Of most of them a wall is left.
        """
        for name in rng.permutation(list(suitable(visit, lesion_ids, 60))):
            inside, around = levels(visit, str(name))
            if visit.source.modality == "CT":
                level = min(rng.uniform(*_WATER_HU), inside - rng.uniform(10, 30))
            else:
                # Dark in MR, cold in PET: near what surrounds it, or below a lesion that is dark itself.
                level = around + rng.uniform(0.1, 0.5) * (inside - around) if inside > around else 0.6 * inside
            share = round(float(rng.uniform(0.1, max(0.15, min(0.6, _walled(visit.lesions[str(name)]))))), 3)
            return cls(str(name), share, round(float(level), 4), round(float(rng.uniform(0.1, 0.5)), 3), _seed(rng))
        return None

    def apply(self, visit: Visit) -> Changed:
        """The visit with the dead core."""
        mask = lesion_of(visit, self.lesion_id)
        region = Region.around(visit, mask.geometry, 12.0)
        where = region.where(self.lesion_id)
        core = _deepest(region, where, self)
        soft = ndimage.gaussian_filter(core.astype(np.float32), narrow(region.geometry, 0.6), truncate=3.0)
        soft[soft < 0.01] = 0
        smooth = _mean_in(region.array, where, region, 1.5)
        return _with(region, region.array + np.where(soft > 0, soft * (self.level - smooth), 0))


@dataclass(frozen=True)
class RimChange:
    """A lesion becomes brighter or darker by `by` (HU, SUV or the MR's own units) at its rim, and less so within.

    At a depth of `rim_mm` it is by a third of that.
    """

    lesion_id: str
    rim_mm: float
    by: float

    name: ClassVar[str] = "rim"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "lesion"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> RimChange | None:
        """By 15 to 60 HU; in MR and PET by up to half of what the lesion stands out by."""
        for name in rng.permutation(list(suitable(visit, lesion_ids, 30))):
            inside, around = levels(visit, str(name))
            sign = 1 if rng.random() < 0.6 else -1
            step = (
                rng.uniform(15, 60) if visit.source.modality == "CT" else rng.uniform(0.15, 0.5) * abs(inside - around)
            )
            finest = float(visit.geometry.spacing_mm.min())
            return cls(str(name), round(float(rng.uniform(1.0, 4.0)) + finest, 2), round(float(sign * step), 4))
        return None

    def apply(self, visit: Visit) -> Changed:
        """The visit with the changed rim."""
        mask = lesion_of(visit, self.lesion_id)
        region = Region.around(visit, mask.geometry, 8.0)
        where = region.where(self.lesion_id)
        depth = ndimage.distance_transform_edt(where, sampling=region.geometry.spacing_mm)
        depth = np.maximum(depth - float(region.geometry.spacing_mm.min()), 0)
        rim = np.where(where, np.exp(-((depth / self.rim_mm) ** 2)), 0).astype(np.float32)
        soft = ndimage.gaussian_filter(rim, narrow(region.geometry, 0.7), truncate=3.0)
        soft[(soft < 0.01) | ~ndimage.binary_dilation(where)] = 0
        return _with(region, region.array + np.float32(self.by) * soft)


@dataclass(frozen=True)
class UptakeChange:
    """A lesion in PET takes up `factor` times as much above its surroundings; its noise grows with it."""

    lesion_id: str
    factor: float
    halo_mm: float = 6.0
    """How far the scanner's blur carries the lesion's uptake beyond its outline."""

    name: ClassVar[str] = "uptake"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "lesion"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> UptakeChange | None:
        """0.3 to 3 times, in PET only, for a lesion that stands out."""
        if visit.source.modality != "PT":
            return None
        for name in rng.permutation(list(suitable(visit, lesion_ids))):
            inside, around = levels(visit, str(name))
            if inside > 1.2 * around:
                return cls(str(name), round(float(np.exp(rng.uniform(np.log(0.3), np.log(3.0)))), 4))
        return None

    def apply(self, visit: Visit) -> Changed:
        """The visit with the changed uptake."""
        mask = lesion_of(visit, self.lesion_id)
        region = Region.around(visit, mask.geometry, self.halo_mm + 12.0)
        where = region.where(self.lesion_id)
        _, around = levels(visit, self.lesion_id)
        away = ndimage.distance_transform_edt(~where, sampling=region.geometry.spacing_mm)
        soft = np.clip(1 - away / self.halo_mm, 0, 1).astype(np.float32)
        soft[region.others(self.lesion_id)] = 0
        above = np.maximum(region.array - np.float32(around), 0)
        return _with(region, region.array + soft * np.float32(self.factor - 1) * above)


def _with(region: Region, array: Voxels) -> Changed:
    return Changed.kept(region.visit, region.with_voxels(array.astype(np.float32)))


def _deepest(region: Region, where: Where, necrosis: Necrosis) -> Where:
    depth = ndimage.distance_transform_edt(where, sampling=region.geometry.spacing_mm).astype(np.float32)
    cells = np.array(region.geometry.shape) * region.geometry.spacing_mm / max(4.0, float(depth.max()))
    waves = smooth_noise(np.random.default_rng(necrosis.seed), region.geometry.shape, [float(c) for c in cells])
    wavy = np.where(where, depth * (1 + necrosis.waviness * np.clip(waves, -2, 2)), -np.inf)
    wanted = max(1, round(necrosis.core_share * int(where.sum())))
    return wavy >= np.partition(wavy.ravel(), -wanted)[-wanted]


def _walled(mask: Mask) -> float:
    """The share of a lesion that lies deeper than its outermost voxels."""
    finest = float(mask.geometry.spacing_mm.min())
    return float(np.mean(mask.depth_mm[mask.array] > _WALL_VOXELS * finest))


def _mean_in(array: Voxels, where: Where, region: Region, voxels: float) -> Voxels:
    """A smooth version of the lesion's inside, which takes nothing from outside."""
    sigma = narrow(region.geometry, voxels)
    inside = where.astype(np.float32)
    weight = ndimage.gaussian_filter(inside, sigma)
    return np.where(weight > 0.05, ndimage.gaussian_filter(array * inside, sigma) / np.maximum(weight, 0.05), array)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))

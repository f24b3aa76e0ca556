"""A lesion that falls into two, and two lesions that become one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, Literal

import numpy as np
from scipy import ndimage

from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.synth.fill import tissue_over, with_halo
from lesionlocator.synth.lesion.choice import lesion_of, levels, nearest_pair, radius_mm, suitable
from lesionlocator.synth.region import Region, Voxels, Where, narrow
from lesionlocator.synth.visit import Changed, Visit
from lesionlocator.volume import Mask

_EVERYWHERE = np.ones((3, 3, 3), bool)
_LEAST_SHARE = 0.12
"""The smaller part of a split has at least this share of both, a little more than counts as a part."""
_LARGEST_ML = 60.0
"""Tissue that could fill the gap of a larger split is not to be had nearby."""
_BONE_HU = 300.0

Direction = tuple[float, float, float]


@dataclass(frozen=True)
class Split:
    """Tissue grows through the lesion: a gap across `direction` (LPS), `at` of the way along it.

    The gap is `gap_mm` wide in the middle and widens towards its rim, so that the parts have round ends. The larger
    part keeps the id; specks that come off are filled over too.
    """

    lesion_id: str
    direction: Direction
    at: float = 0.5
    gap_mm: float = 4.0
    seed: int = 0

    name: ClassVar[str] = "split"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "lesion"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Split | None:
        """Across the lesion's long axis, tilted a little, near its middle."""
        for name in rng.permutation(list(suitable(visit, lesion_ids, 40))):
            mask = visit.lesions[str(name)]
            if mask.volume_ml > _LARGEST_ML:
                continue
            for _ in range(6):
                direction = _long_axis(mask) + rng.normal(0, 0.25, 3)
                direction = direction / np.linalg.norm(direction)
                widest = max(_least_gap_mm(mask.geometry, direction), min(0.3 * radius_mm(mask), 8.0))
                gap = rng.uniform(_least_gap_mm(mask.geometry, direction), widest * 1.01)
                a, b, c = (round(float(v), 4) for v in direction)
                drawn = cls(str(name), (a, b, c), round(rng.uniform(0.35, 0.65), 3), round(gap, 2))
                if _parts(mask, drawn) is not None:
                    return cls(drawn.lesion_id, drawn.direction, drawn.at, drawn.gap_mm, int(rng.integers(2**31)))
        return None

    def apply(self, visit: Visit) -> Changed:
        """The visit with two lesions instead of one."""
        mask = lesion_of(visit, self.lesion_id)
        parts = _parts(mask, self)
        if parts is None:
            raise Refused(
                found=f"lesion {self.lesion_id!r}, which this gap does not divide in two",
                needed=f"two parts with at least {100 * _LEAST_SHARE:.0f} % each",
                do="draw the split for this lesion",
            )
        region = Region.around(visit, mask.geometry, float(np.clip(3 * radius_mm(mask), 20.0, 60.0)))
        kept = parts[0].on(region.geometry) | parts[1].on(region.geometry)
        gone = region.where(self.lesion_id) & ~kept
        others = region.others(self.lesion_id)
        halo = with_halo(gone, visit.volume, region.geometry) & ~others & ~kept
        array = tissue_over(region, gone | halo, others | gone | halo | kept, np.random.default_rng(self.seed))
        new_id = visit.new_lesion_id()
        lesions = {**visit.lesions, self.lesion_id: parts[0], new_id: parts[1]}
        fates = {name: (name, new_id) if name == self.lesion_id else (name,) for name in visit.lesions}
        return Changed(region.with_voxels(array, lesions), fates)


@dataclass(frozen=True)
class Merge:
    """Lesion tissue grows between two lesions; the larger one's id stays.

    `thickness` is the radius of the bridge as a share of the smaller lesion's.
    """

    lesion_ids: tuple[str, str]
    thickness: float = 0.8
    seed: int = 0

    name: ClassVar[str] = "merge"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "lesion"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Merge | None:
        """Two lesions that are near each other for their size, with no bone between them; None where none are."""
        names = suitable(visit, lesion_ids, 8)
        pairs = [(a, b) for a, b in combinations(names, 2) if _near(visit, a, b)]
        if not pairs:
            return None
        one, other = pairs[int(rng.integers(len(pairs)))]
        return cls((one, other), round(float(rng.uniform(0.4, 0.8)), 3), int(rng.integers(2**31)))

    def apply(self, visit: Visit) -> Changed:
        """The visit with one lesion instead of two."""
        masks = [lesion_of(visit, name) for name in self.lesion_ids]
        keeper = self.lesion_ids[int(masks[1].voxels > masks[0].voxels)]
        lattice = visit.geometry
        both = lattice.crop(*lattice.around(np.concatenate([mask.geometry.corners_mm for mask in masks])))
        region = Region.around(visit, both, 15.0)
        wheres = [region.where(name) for name in self.lesion_ids]
        bridge, share = _bridge(region, masks, self.thickness)
        bridge &= ~region.others(*self.lesion_ids)
        if visit.source.modality == "CT":
            lowest = min(levels(visit, name)[1] for name in self.lesion_ids)
            bridge &= (region.noise.structure > lowest - 150) & (region.noise.structure < _BONE_HU)
        whole = _in_one(bridge | wheres[0] | wheres[1])
        array = _bridged(region, wheres, whole, share, np.random.default_rng(self.seed))
        lesions = {name: mask for name, mask in visit.lesions.items() if name not in self.lesion_ids}
        lesions[keeper] = Mask.from_array(whole, region.geometry)
        fates = {name: (keeper,) if name in self.lesion_ids else (name,) for name in visit.lesions}
        return Changed(visit.edited(volume=region.put_back(array), lesions=lesions), fates)


def _parts(mask: Mask, split: Split) -> tuple[Mask, Mask] | None:
    """The two parts, larger first, each in one piece; None when the gap does not make two."""
    points = np.argwhere(mask.array).astype(float)
    at_mm = mask.geometry.index_to_world(points)
    along = at_mm @ np.array(split.direction)
    middle = np.quantile(along, split.at)
    near = np.abs(along - middle) <= split.gap_mm
    axis = at_mm[near].mean(axis=0) if near.any() else at_mm.mean(axis=0)
    across = np.linalg.norm(
        (at_mm - axis) - np.outer((at_mm - axis) @ np.array(split.direction), split.direction), axis=1
    )
    widening = 1 + 0.6 * (across / max(float(across[near].max()) if near.any() else 1.0, 1e-6)) ** 2
    kept = np.abs(along - middle) > split.gap_mm / 2 * np.minimum(widening, 1.6)
    found: list[Mask] = []
    for side in (along < middle, along >= middle):
        array = np.zeros(mask.array.shape, bool)
        array[tuple(points[kept & side].astype(int).T)] = True
        labels, count = ndimage.label(array, _EVERYWHERE)
        if count == 0:
            return None
        sizes = np.bincount(labels.ravel())[1:]
        found.append(Mask.from_array(labels == 1 + int(np.argmax(sizes)), mask.geometry))
    found.sort(key=lambda part: -part.voxels)
    total = found[0].voxels + found[1].voxels
    if found[1].voxels < max(4, _LEAST_SHARE * total) or total < 0.4 * mask.voxels:
        return None
    return found[0], found[1]


def _least_gap_mm(geometry: Geometry, direction: np.ndarray) -> float:
    """Two and a half voxels along a direction, so that the gap is seen, and never less than 3 mm."""
    steps = np.abs(np.linalg.solve(geometry.affine[:3, :3], direction))
    return max(3.0, 2.5 / float(steps.max()))


def _long_axis(mask: Mask) -> np.ndarray:
    _, axes = np.linalg.eigh(np.cov(mask.points_mm.T))
    return axes[:, -1]


def _near(visit: Visit, one: str, other: str) -> bool:
    a, b = visit.lesions[one], visit.lesions[other]
    if np.linalg.norm(a.centroid_mm - b.centroid_mm) > 4 * (radius_mm(a) + radius_mm(b)) + 20:
        return False
    start, stop, gap = nearest_pair(a, b)
    if not 2.0 * float(a.geometry.spacing_mm.max()) < gap <= min(15.0, radius_mm(a) + radius_mm(b)):
        return False
    if visit.source.modality != "CT":
        return True
    from lesionlocator.resample import sample

    way = start + (stop - start) * np.linspace(0.15, 0.85, 15)[:, None]
    found = sample(visit.volume, way)
    # No bone, and no airway between lesions of soft tissue.
    lowest = min(levels(visit, one)[1], levels(visit, other)[1])
    return float(found.max()) < _BONE_HU and float(found.min()) > lowest - 150


def _bridge(region: Region, masks: list[Mask], thickness: float) -> tuple[Where, Voxels]:
    """The voxels of a tube from one lesion into the other, and how far along it each voxel is (0 to 1)."""
    start, stop, _ = nearest_pair(masks[0], masks[1])
    way = (stop - start) / np.linalg.norm(stop - start)
    radius = max(thickness * min(radius_mm(mask) for mask in masks), 1.01 * float(region.geometry.spacing_mm.max()) / 2)
    # Into both lesions, so that the tube has no necks.
    start, stop = start - way * 0.7 * radius_mm(masks[0]), stop + way * 0.7 * radius_mm(masks[1])
    index = np.indices(region.geometry.shape).reshape(3, -1).T.astype(float)
    at_mm = region.geometry.index_to_world(index)
    along = (at_mm - start) @ way
    length = float(np.linalg.norm(stop - start))
    share = np.clip(along / length, 0, 1)
    away = np.linalg.norm(at_mm - start - np.outer(np.clip(along, 0, length), way), axis=1)
    shape = region.geometry.shape
    return (away <= radius).reshape(shape), share.reshape(shape).astype(np.float32)


def _in_one(whole: Where) -> Where:
    labels, count = ndimage.label(whole, _EVERYWHERE)
    sizes = np.bincount(labels.ravel())[1:]
    if count > 1 and sizes.max() < 0.97 * sizes.sum():
        raise Refused(
            found="two lesions with a third between them",
            needed="tissue between them that a bridge can cross",
            do="choose another pair",
        )
    return np.asarray(labels == 1 + int(np.argmax(sizes)))


def _bridged(region: Region, wheres: list[Where], whole: Where, share: Voxels, rng: np.random.Generator) -> Voxels:
    """Lesion tissue where the bridge is: the lesions' own levels, from one to the other, and the scan's noise."""
    noise = region.noise
    sigma = narrow(region.geometry, 0.6)
    levels_in = [float(np.median(region.array[where])) for where in wheres]
    level = levels_in[0] * (1 - share) + levels_in[1] * share
    calm = min(float(np.median(noise.spread[where])) for where in wheres)
    grain = noise.grain(rng) * calm
    tissue = level + grain + 2 * ndimage.gaussian_filter(grain, narrow(region.geometry, 1.5))
    soft = ndimage.gaussian_filter(whole.astype(np.float32), sigma, truncate=3.0)
    before = ndimage.gaussian_filter((wheres[0] | wheres[1]).astype(np.float32), sigma, truncate=3.0)
    new = np.clip((soft - before) / np.maximum(1 - before, 0.05), 0, 1)
    new[new < 0.01] = 0
    return np.where(new > 0, (1 - new) * region.array + new * tissue, region.array).astype(np.float32)

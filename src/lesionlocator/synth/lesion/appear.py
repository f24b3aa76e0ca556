"""A lesion that was not there before: painted from a drawn shape, or grafted from another lesion of the scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry, Index3, index3
from lesionlocator.synth.fill import with_halo
from lesionlocator.synth.lattice import along, average_matrix, smooth_noise
from lesionlocator.synth.lesion.choice import lesion_of, radius_mm, suitable
from lesionlocator.synth.region import Region, Voxels, Where, narrow
from lesionlocator.synth.shapes import READER, Outline, Shape, occupancy
from lesionlocator.synth.visit import Changed, Visit
from lesionlocator.volume import Mask

Point = tuple[float, float, float]

_KINDS = {
    "lobed": 0.5,
    "spiculated": 0.12,
    "ring": 0.06,
    "parts": 0.07,
    "cystic": 0.09,
    "necrotic": 0.1,
    "calcified": 0.06,
}
_MARGIN = 3
"""Voxels around a copied lesion that come along, as far as its border is blurred."""
_REACH = 1.9
"""Radii within which a shape lies."""
_AIR_HU, _LUNG_HU, _BONE_HU = -950.0, -500.0, 250.0
_FINE = 3
"""Fine voxels to a voxel, so that the border knows how much of a voxel it takes."""


@dataclass(frozen=True)
class Appear:
    """A lesion of a drawn shape at a place.

    `level` and `core_level` are its intensities (HU, SUV or the MR's own units), `texture` the spread of its slow
    variations, `blur_voxels` the blur of its border beyond what the scanner's voxels do. `outline` is the packed shape
    of one that a reader drew, when that is its kind. Read backwards (`Changed.reversed`) it is a lesion that vanishes
    without a trace.
    """

    at_mm: Point
    radius_mm: float
    kind: str
    level: float
    core_level: float
    texture: float
    blur_voxels: float = 0.6
    seed: int = 0
    outline: str = ""

    name: ClassVar[str] = "appear"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "lesion"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Appear | None:
        """With 2 to 20 mm of radius, where tissue is even enough for it; None where nothing suits."""
        for _ in range(4):
            radius = float(np.exp(rng.uniform(np.log(2.0), np.log(20.0))))
            radius = max(radius, 1.2 * float(visit.geometry.spacing_mm.max()))
            place = draw_place(rng, visit, radius)
            if place is None:
                continue
            at_mm, around, spread = place
            kind = str(rng.choice(list(_KINDS), p=np.array(list(_KINDS.values())) / sum(_KINDS.values())))
            level = _level(rng, visit, around, spread)
            core = _core_level(rng, visit, kind, level)
            texture = abs(level - around) * rng.uniform(0.08, 0.3)
            a, b, c = (round(float(v), 2) for v in at_mm)
            numbers = (level, core, texture, rng.uniform(0.4, 0.9))
            own, inner, waves, blur = (round(float(v), 4) for v in numbers)
            return cls((a, b, c), round(radius, 3), kind, own, inner, waves, blur, int(rng.integers(2**31)))
        return None

    def apply(self, visit: Visit) -> Changed:
        """The visit with one more lesion, under a new id."""
        region = _box(visit, np.array(self.at_mm), _REACH * self.radius_mm + 3 * float(visit.geometry.spacing_mm.max()))
        rng = np.random.default_rng(self.seed)
        whole, core = _painted(region.geometry, self, self._shape(rng))
        mask = whole > 0.5
        if not mask.any():
            mask = whole >= max(float(whole.max()), 1e-6)
        mask &= ~region.others()
        if not mask.any():
            raise Refused(
                found="a new lesion with no voxel of its own",
                needed="a place in the scan that no other lesion takes",
                do="draw another place",
            )
        cells = [
            max(1.0, n * s / max(self.radius_mm, 3.0))
            for n, s in zip(mask.shape, region.geometry.spacing_mm, strict=True)
        ]
        waves = np.float32(self.texture) * _rough(rng, mask.shape, cells)
        inside = np.float32(self.level) + core * np.float32(self.core_level - self.level) + waves
        inside += _own_noise(region, rng)
        array = _laid_in(region, _seen(whole, region.geometry, self.blur_voxels), inside)
        return _with_new(region, array, mask)

    def shaped_by(self, outlines: Sequence[Outline]) -> Appear:
        """Half of the time with one of these shapes, seen from some side; of what is drawn nothing else changes."""
        rng = np.random.default_rng([self.seed, len(outlines)])
        if not outlines or rng.random() >= 0.5:
            return self
        outline = outlines[int(rng.integers(len(outlines)))].turned(rng)
        return replace(self, kind=READER, outline=outline.packed)

    def _shape(self, rng: np.random.Generator) -> Shape:
        if self.outline:
            return Shape(READER, outline=Outline(self.outline))
        return Shape.draw(rng, self.kind)


@dataclass(frozen=True)
class Graft:
    """A copy of another lesion of the scan (`from_lesion_id`), texture and all, mirrored as `mirrored` says."""

    from_lesion_id: str
    to_mm: Point
    mirrored: tuple[bool, bool, bool] = (False, False, False)

    name: ClassVar[str] = "graft"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "lesion"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Graft | None:
        """To a place whose tissue is like that around the lesion itself."""
        for name in rng.permutation(list(suitable(visit, lesion_ids, 8))):
            mask = visit.lesions[str(name)]
            place = draw_place(rng, visit, radius_mm(mask), like=str(name))
            if place is not None and _box_at(visit, _with_margin(mask), place[0]) is not None:
                a, b, c = (round(float(v), 2) for v in place[0])
                x, y, z = (bool(v) for v in rng.random(3) < 0.5)
                return cls(str(name), (a, b, c), (x, y, z))
        return None

    def apply(self, visit: Visit) -> Changed:
        """The visit with one more lesion, under a new id."""
        mask = lesion_of(visit, self.from_lesion_id)
        start = np.array(mask.geometry.offset_in(visit.geometry)) - _MARGIN
        shape = _with_margin(mask)
        donor = Region.around(visit, visit.geometry.crop(index3(start), index3(start + np.array(shape))))
        where = np.zeros(shape, bool)
        where[(slice(_MARGIN, -_MARGIN),) * 3] = mask.array
        flips = tuple(axis for axis in range(3) if self.mirrored[axis])
        box = _box_at(visit, shape, np.array(self.to_mm))
        if box is None or donor.geometry.shape != shape:
            raise Refused(found="a copy that reaches beyond the scan", needed="room for it", do="draw another place")
        first, last = box
        region = Region.around(visit, visit.geometry.crop(first, last), 15.0)
        at = tuple(slice(a - b, a - b + n) for a, b, n in zip(first, region.start, where.shape, strict=True))
        whole, inside = np.zeros(region.array.shape, np.float32), region.array.copy()
        new = np.zeros(region.array.shape, bool)
        new[at] = np.flip(where, flips)
        # The blur of its border comes along with the lesion.
        whole[at] = np.flip(with_halo(where, visit.volume, donor.geometry), flips)
        inside[at] = np.flip(donor.array, flips)
        array = _laid_in(region, _seen(whole, region.geometry, 0.6), inside)
        new &= ~region.others()
        if not new.any():
            raise Refused(found="a copy onto another lesion", needed="a free place", do="draw another place")
        return _with_new(region, array, new)


def _with_margin(mask: Mask) -> Index3:
    return index3(np.array(mask.array.shape) + 2 * _MARGIN)


def _box_at(visit: Visit, shape: Index3, at_mm: Float[np.ndarray, "3"]) -> tuple[Index3, Index3] | None:
    """The voxels of a box around a place; None where they reach beyond the scan."""
    middle = visit.geometry.world_to_index(at_mm[None])[0]
    first = index3(np.rint(middle - (np.array(shape) - 1) / 2))
    last = index3(np.array(first) + np.array(shape))
    return (first, last) if visit.geometry.clip(first, last) == (first, last) else None


def draw_place(
    rng: np.random.Generator, visit: Visit, radius: float, like: str | None = None
) -> tuple[Float[np.ndarray, "3"], float, float] | None:
    """A place with even tissue around it that no lesion takes, its level and spread; never in air.

    Of forty places, one of those about as even as the surroundings of a lesion of the scan, or of the most even where
    there is none. `like` names a lesion that its surroundings have to be as bright as, too.
    """
    scan = visit.geometry
    margin = np.ceil((radius + 2) / scan.spacing_mm).astype(int) + 1
    if np.any(2 * margin >= np.array(scan.shape)):
        return None
    ball = _ball(scan, radius + 2.0)
    taken = [mask.points_mm[:: max(1, mask.voxels // 500)] for mask in visit.lesions.values() if not mask.is_empty]
    known = np.concatenate(taken) if taken else np.empty((0, 3))
    wanted = _surroundings(visit, like) if like is not None else None
    known_ids = suitable(visit)
    even_as = wanted[2] if wanted else _surroundings(visit, str(rng.choice(known_ids)))[2] if known_ids else 0.0
    finest = 15.0 if visit.source.modality == "CT" else 0.0
    lowest = _least_tissue(visit)
    found: list[tuple[float, Float[np.ndarray, "3"], float, float]] = []
    for _ in range(120):
        index = np.array([rng.integers(m, n - m) for m, n in zip(margin, scan.shape, strict=True)])
        values = np.asarray(visit.volume.array[tuple((index + ball).T)], np.float32)
        level = float(np.median(values))
        if float(np.percentile(values, 10)) < lowest or level > 5 * abs(lowest) + 2000:
            continue
        at_mm = scan.index_to_world(index[None].astype(float))[0]
        if len(known) and float(np.linalg.norm(known - at_mm, axis=1).min()) < 2.2 * radius + 8:
            continue
        spread = 1.4826 * float(np.median(np.abs(values - level)))
        if wanted is not None and abs(level - wanted[0]) > max(2 * wanted[1], finest):
            continue
        found.append((float(np.ptp(np.percentile(values, (5, 95)))), at_mm, level, spread))
        if len(found) >= 40:
            break
    if not found:
        return None
    found.sort(key=lambda item: abs(item[0] - even_as))
    _, at_mm, level, spread = found[int(rng.integers(max(1, len(found) // 4)))]
    return at_mm, level, spread


def _least_tissue(visit: Visit) -> float:
    """What is darker is air (in lungs: outside)."""
    if visit.source.modality == "CT":
        return _AIR_HU
    sampled = visit.volume.array[::3, ::3, ::3]
    return 0.12 * float(np.percentile(sampled, 98))


def _ball(scan: Geometry, radius: float) -> np.ndarray:
    reach = np.ceil(radius / scan.spacing_mm).astype(int)
    index = np.stack(np.meshgrid(*[np.arange(-r, r + 1) for r in reach], indexing="ij"), axis=-1).reshape(-1, 3)
    inside = index[np.sum((index * scan.spacing_mm / radius) ** 2, axis=1) <= 1]
    return inside[:: max(1, len(inside) // 600)]


def _surroundings(visit: Visit, lesion_id: str) -> tuple[float, float, float]:
    """Level and spread of the tissue round a lesion, and how uneven it is: 5 to 95 % of it."""
    region = Region.around(visit, visit.lesions[lesion_id].geometry, 8.0)
    where = region.where(lesion_id)
    away = ndimage.distance_transform_edt(~where, sampling=region.geometry.spacing_mm)
    rim: Bool[np.ndarray, "d h w"] = (away > 2) & (away < 8) & ~region.others()
    values = region.array[rim] if rim.any() else region.array[~where]
    level = float(np.median(values))
    uneven = float(np.ptp(np.percentile(values, (5, 95))))
    return level, 1.4826 * float(np.median(np.abs(values - level))), uneven


def _level(rng: np.random.Generator, visit: Visit, around: float, spread: float) -> float:
    """What the lesion's tissue looks like, so that it stands out from its surroundings."""
    sign = 1.0 if rng.random() < 0.4 else -1.0
    if visit.source.modality == "PT":
        return around + rng.uniform(1.5, 8.0) * max(1.0, around)
    if visit.source.modality == "MR":
        return around * (rng.uniform(1.35, 2.2) if rng.random() < 0.6 else rng.uniform(0.4, 0.7))
    if around < _LUNG_HU:
        return rng.uniform(10, 70) if rng.random() < 0.8 else rng.uniform(-650, -350)
    if around > _BONE_HU:
        return around + (rng.uniform(200, 500) if sign > 0 else -rng.uniform(120, 250))
    if around < -30:
        return rng.uniform(10, 70)
    return around + sign * (rng.uniform(25, 75) + spread)


def _core_level(rng: np.random.Generator, visit: Visit, kind: str, level: float) -> float:
    if visit.source.modality != "CT":
        return level * rng.uniform(0.3, 0.7)
    if kind == "calcified":
        return rng.uniform(200, 600)
    return min(level, 40.0) - rng.uniform(5, 30) if level > -200 else level


def _box(visit: Visit, at_mm: Float[np.ndarray, "3"], reach_mm: float) -> Region:
    scan = visit.geometry
    start, stop = scan.around(at_mm[None], reach_mm)
    if scan.clip(start, stop) is None or not scan.contains(at_mm[None])[0]:
        raise Refused(found="a place outside the scan", needed="one inside", do="draw another place")
    return Region.around(visit, scan.crop(start, stop), 4.0)


def _painted(geometry: Geometry, lesion: Appear, shape: Shape) -> tuple[Voxels, Voxels]:
    """Which share of each voxel is lesion, and which share of the lesion is core."""
    middle = geometry.world_to_index(np.array([lesion.at_mm]))[0]
    axes = [
        ((np.arange(n * _FINE) + 0.5) / _FINE - 0.5 - at) * spacing / lesion.radius_mm
        for n, at, spacing in zip(geometry.shape, middle, geometry.spacing_mm, strict=True)
    ]
    level, core = shape.levels((axes[0], axes[1], axes[2]))
    means = [average_matrix(n * _FINE, n, float(_FINE)) for n in geometry.shape]
    fine = float(lesion.radius_mm / geometry.spacing_mm.min() * _FINE)
    whole = along(occupancy(level, fine), means)
    inner = np.zeros_like(whole) if core is None else along(occupancy(core, fine), means)
    return whole, np.clip(inner / np.maximum(whole, 1e-3), 0, 1)


def _seen(whole: Voxels, geometry: Geometry, blur_voxels: float) -> Voxels:
    """The lesion's share of each voxel as a scanner with some blur sees it."""
    soft = ndimage.gaussian_filter(whole, narrow(geometry, blur_voxels), truncate=3.0)
    soft[soft < 0.01] = 0
    return soft


def _rough(rng: np.random.Generator, shape: Index3, cells: list[float]) -> Voxels:
    """Variations as long as the lesion's radius, and some of a half and a quarter of that: tumours are uneven."""
    octaves = ((1.0, 1.0), (0.8, 2.0), (0.6, 4.0))
    waves = [
        np.float32(part) * smooth_noise(rng, shape, [min(times * c, n / 2) for c, n in zip(cells, shape, strict=True)])
        for part, times in octaves
    ]
    return np.stack(waves).sum(axis=0) / np.float32(np.sqrt(sum(part**2 for part, _ in octaves)))


def _own_noise(region: Region, rng: np.random.Generator) -> Voxels:
    """Noise of the scan as strong as it is in even tissue: what is finer in a lung is vessels.

    Taken from elsewhere in the region, so that its grain is the scan's own.
    """
    grain = region.noise.grain(rng)
    shift = tuple(int(rng.integers(n // 4, max(n // 4 + 1, 3 * n // 4))) for n in grain.shape)
    fine = np.roll(grain, shift, axis=(0, 1, 2))
    return fine * (np.float32(np.percentile(region.noise.spread, 20)) / max(float(fine.std()), 1e-6))


def _laid_in(region: Region, share: Voxels, inside: Voxels) -> Voxels:
    """Lesion over tissue, each with its own noise, whose power is blended: no border is quieter than both sides."""
    noise = region.noise
    inner = ndimage.gaussian_filter(inside, 1.0, truncate=3.0)
    fine = inside - inner
    laid = (1 - share) * noise.structure + share * inner + np.sqrt(1 - share) * noise.fine + np.sqrt(share) * fine
    return np.where(share > 0, laid, region.array).astype(np.float32)


def _with_new(region: Region, array: Voxels, mask: Where) -> Changed:
    visit = region.visit
    new = region.with_voxels(array, {visit.new_lesion_id(): Mask.from_array(mask, region.geometry)})
    return Changed.kept(visit, new)

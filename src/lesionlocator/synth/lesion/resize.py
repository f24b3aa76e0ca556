"""A lesion that grows or shrinks to a volume that was drawn, and pushes or pulls the tissue around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.resample import resample
from lesionlocator.synth.deform import (
    Flow,
    MapPair,
    Nodes,
    Swelling,
    blurred_gradient,
    gives_way,
    site_of,
    solved,
)
from lesionlocator.synth.lesion.choice import edge_mm, gap_mm, lesion_of, radius_mm, suitable
from lesionlocator.synth.region import Region, carried_outline, moved
from lesionlocator.synth.visit import Changed, Visit
from lesionlocator.volume import Mask

Method = Literal["flow", "blurred gradient"]

_BONE_HU = (250.0, 450.0)
"""Below the first nothing is bone, above the second all is."""
_LARGEST_ML = 600.0
_Resized = TypeVar("_Resized", bound="_Resize")
_FINER = (32, 48, 72, 108)
"""Nodes to try, until there and back are near enough."""
_NEAR = 0.03
"""The share of its volume by which a deformation may miss; the last voxels of the border make up for it."""


@dataclass(frozen=True)
class _Resize:
    """The lesion becomes `factor` times its volume.

    `stretch` is how much more readily it does so along its own three main axes, longest first. `nodes` is how fine
    the deformation is (about so many steps across); without it as fine as there and back within half a voxel
    needs, which costs three times as much. `method` is `flow` (steady velocity with mass effect, bone
    resists) or `blurred gradient`, the published one, kept for comparison: with cubic interpolation, at one blur, and
    refused where it folds. `seed` decides nothing any more; recipes have it.
    """

    lesion_id: str
    factor: float
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    seed: int = 0
    method: Method = "flow"
    nodes: int | None = None

    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "lesion"

    def apply(self, visit: Visit) -> Changed:
        """The lesion at its new size; other lesions nearby are moved along.

        Raises:
            Refused: The lesion is not in the visit or not whole, or it has no room for this volume.
        """
        mask = lesion_of(visit, self.lesion_id)
        wanted = max(1, round(mask.voxels * self.factor))
        maps = _drawn_for(visit, self) or self.maps(visit, mask)
        region = Region.around(visit, maps.back.grid)
        free = ~region.others(self.lesion_id)
        outline, given = carried_outline(mask, maps.back, region.geometry, wanted, free)
        for _ in range(2):
            if not self._missed(mask, wanted, given) or not isinstance(maps, Flow):
                break
            other = maps.slower(float(np.clip(np.log(self.factor) / np.log(given / mask.voxels), 0.7, 1.4)))
            if not other.is_exact(visit.geometry):
                # What is missing is made up for at the border, where a flow for longer would fold.
                break
            maps = other
            outline, given = carried_outline(mask, maps.back, region.geometry, wanted, free)
        array = self._voxels(region, maps)
        lesions = {
            name: carried_outline(other, maps.back, _widened(other.geometry, maps, visit.geometry))[0]
            for name, other in visit.lesions.items()
            if name != self.lesion_id and _inside(other, region)
        }
        lesions[self.lesion_id] = outline
        new = region.with_voxels(array, lesions)
        if visit.source_organs:
            new = new.edited(organs=visit.moved(maps.forward, maps.backward).organs)
        return Changed.kept(visit, new, maps.forward, maps.backward)

    def maps(self, visit: Visit, mask: Mask) -> Flow | MapPair:
        """The deformation that gives the lesion its volume, if there is one."""
        if self.method == "blurred gradient":
            return _published(visit.geometry, mask, self.factor)
        for nodes in (self.nodes,) if self.nodes else _FINER:
            found = flow_to(visit, mask, self.factor, self.stretch, nodes)
            if found is not None and (self.nodes or found.is_exact(visit.geometry)):
                return found
        raise Refused(
            found=f"lesion {self.lesion_id!r} with no room to become {self.factor:.2f} times as large",
            needed="tissue around it that can give way",
            do="ask for less",
        )

    def _voxels(self, region: Region, maps: Flow | MapPair) -> np.ndarray:
        return moved(region, maps.back) if self.method == "flow" else _plainly_moved(region, maps)

    def _missed(self, mask: Mask, wanted: int, given: int) -> bool:
        """Whether the deformation misses by more than the border's last voxels can make up for."""
        if given in (0, mask.voxels) or self.factor == 1:
            return False
        layer = 0.25 * wanted ** (2 / 3)
        return abs(given - wanted) > max(_NEAR * wanted, layer)


@dataclass(frozen=True)
class Grow(_Resize):
    """The lesion grows and displaces what is around it."""

    name: ClassVar[str] = "grow"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Grow | None:
        """To between 1.1 and 8 times its volume, smaller factors more often; as far as there is room."""
        for lesion_id in rng.permutation(list(suitable(visit, lesion_ids))):
            most = min(8.0, room(visit, str(lesion_id)))
            if most > 1.15:
                factor = float(np.exp(rng.uniform(np.log(1.1), np.log(most))))
                drawn = cls(str(lesion_id), round(factor, 4), _stretch(rng), int(rng.integers(2**31)))
                return possible(drawn, visit)
        return None


@dataclass(frozen=True)
class Shrink(_Resize):
    """The lesion shrinks and pulls in what is around it."""

    name: ClassVar[str] = "shrink"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Shrink | None:
        """To between 0.05 and 0.9 of its volume, but to not less than two voxels."""
        for lesion_id in rng.permutation(list(suitable(visit, lesion_ids, 4))):
            least = max(0.05, 2.0 / visit.lesions[str(lesion_id)].voxels)
            factor = float(np.exp(rng.uniform(np.log(least), np.log(0.9))))
            drawn = cls(str(lesion_id), round(factor, 4), _stretch(rng), int(rng.integers(2**31)))
            return possible(drawn, visit)
        return None


def flow_to(
    visit: Visit, mask: Mask, factor: float, stretch: tuple[float, float, float] = (1.0, 1.0, 1.0), nodes: int = 40
) -> Flow | None:
    """The flow under which a lesion becomes `factor` times its volume; None when it has no room."""
    further = radius_mm(mask) * (max(factor, 1.0) ** (1 / 3) - 1)
    nearer = radius_mm(mask) * (1 - min(factor, 1.0) ** (1 / 3))
    reach_mm = further + max(float(np.clip(0.8 * radius_mm(mask), 8.0, 30.0)), 1.5 * further, min(2 * nearer, 60.0))
    site = site_of(visit.geometry, mask, reach_mm, nodes, lambda grid: _ease(visit, mask, grid))
    zone_mm = max(0.0, site.reached_mm(max(factor, 1.0)))
    even = max(stretch) - min(stretch) < 1e-3
    deepest = -float(site.distance_mm.min())
    edge = min(0.4 * deepest, 2.5 * float(visit.geometry.spacing_mm.min()))
    swelling = Swelling(
        zone_mm + 1.25 * site.node_mm + edge + (0 if even else 0.25 * further),
        max(deepest * min(factor, 1.0) ** (1 / 3) - edge, 0.5 * deepest, site.node_mm),
        (zone_mm + (0.6 if factor < 1 else 0.25) * (reach_mm - zone_mm), reach_mm),
        factor < 1,
        stretch,
        None if even else _main_axes(mask),
    )
    return solved(swelling.velocity(site), site.grid, mask, factor)


def room(visit: Visit, lesion_id: str) -> float:
    """The factor to which a lesion may grow without coming near the scan's edge or another lesion."""
    mask = visit.lesions[lesion_id]
    radius = radius_mm(mask)
    further = 0.5 * edge_mm(visit, mask)
    for name, other in visit.lesions.items():
        if name != lesion_id and not other.is_empty:
            further = min(further, 0.4 * gap_mm(mask, other, 100.0))
    return min((1 + max(0.0, further) / radius) ** 3, _LARGEST_ML / max(mask.volume_ml, 1e-6))


def possible(drawn: _Resized, visit: Visit) -> _Resized | None:
    """The change, or a milder one, as far as the lesion has room; None when it has none."""
    for _ in range(4):
        try:
            _DRAWN[visit] = (drawn, drawn.maps(visit, visit.lesions[drawn.lesion_id]))
        except Refused:
            drawn = replace(drawn, factor=round(float(drawn.factor**0.5), 4))
        else:
            return drawn
    return None


_DRAWN: WeakKeyDictionary[Visit, tuple[_Resize, Flow | MapPair]] = WeakKeyDictionary()
"""The last deformation that was found while drawing: half of what a change costs, and mostly applied at once."""


def _drawn_for(visit: Visit, change: _Resize) -> Flow | MapPair | None:
    """The deformation of this very change for this very visit, if it was the last to be drawn; then forgotten."""
    known, maps = _DRAWN.pop(visit, (None, None))
    return maps if known == change else None


def _stretch(rng: np.random.Generator) -> tuple[float, float, float]:
    """Even in a third of all cases; else the axes differ by up to about a factor of two."""
    if rng.random() < 1 / 3:
        return (1.0, 1.0, 1.0)
    a, b, c = (round(float(v), 3) for v in np.exp(rng.normal(0.0, 0.3, 3)))
    return a, b, c


def _ease(visit: Visit, mask: Mask, grid: Geometry) -> Nodes:
    """How readily tissue gives way: bone hardly does, unless the lesion itself lies in bone."""
    bone = _bone(visit, grid)
    if bone is None or float(bone.max()) < 0.02:
        return np.ones(grid.shape, np.float32)
    lesion = mask.placed(grid).on(grid)
    from scipy import ndimage

    near = ndimage.binary_dilation(lesion, iterations=2)
    if not near.any() or float(bone[near & ~lesion].mean()) > 0.4:
        return np.ones(grid.shape, np.float32)
    return gives_way(np.where(near, np.float32(0), bone))


def _bone(visit: Visit, grid: Geometry) -> Nodes | None:
    organ = visit.organs.get("bone") if visit.source_organs else None
    if organ is not None:
        return organ.placed(grid).on(grid).astype(np.float32)
    if visit.source.modality != "CT":
        return None
    low, high = _BONE_HU
    return np.clip((resample(visit.volume, grid) - low) / (high - low), 0, 1).astype(np.float32)


def _main_axes(mask: Mask) -> np.ndarray:
    """The lesion's main axes as columns, longest first, along the array's d, h, w."""
    index = np.argwhere(mask.array) * mask.geometry.spacing_mm
    if len(index) < 8:
        return np.eye(3)
    _, axes = np.linalg.eigh(np.cov(index.T))
    return axes[:, ::-1]


def _inside(mask: Mask, region: Region) -> bool:
    """Whether a lesion lies in the region, or at least partly; those that reach beyond it do not move at its edge."""
    return region.shows(mask) and not mask.is_empty


def _widened(box: Geometry, maps: Flow | MapPair, scan: Geometry) -> Geometry:
    """A lesion's box and as much around it as anything moves."""
    furthest_mm = float(np.abs(maps.back.steps).max()) * float(maps.back.grid.spacing_mm.max())
    return scan.crop(*scan.around(box.corners_mm, furthest_mm + 2 * float(scan.spacing_mm.max())))


def _published(scan: Geometry, mask: Mask, factor: float) -> MapPair:
    """The blurred-gradient deformation with the amplitude that gives the factor, by bisection."""
    from scipy import ndimage

    at_amplitude = blurred_gradient(mask, scan, max(2.0, 0.5 * radius_mm(mask)))
    box = scan.crop(*scan.around(mask.geometry.corners_mm, 3.0 + 0.6 * radius_mm(mask) * max(factor - 1, 0.0)))
    blurred = ndimage.gaussian_filter(mask.on(box).astype(np.float32), 0.5)
    index = np.indices(box.shape, dtype=np.float32)
    sign = 1.0 if factor > 1 else -1.0
    level = float(np.partition(blurred.ravel(), -mask.voxels)[-mask.voxels])

    def reached(amplitude: float) -> float:
        at = index + at_amplitude(sign * amplitude).back.on(box)
        return float(np.sum(ndimage.map_coordinates(blurred, at, order=1) >= level)) / mask.voxels

    low, high = 0.0, 1.0
    while sign * (reached(high) - factor) < 0:
        high *= 2
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (middle, high) if sign * (reached(middle) - factor) < 0 else (low, middle)
    return at_amplitude(sign * (low + high) / 2)


def _plainly_moved(region: Region, maps: Flow | MapPair) -> np.ndarray:
    """As published: the whole region looked up by cubic interpolation."""
    from scipy import ndimage

    steps = maps.back.on(region.geometry)
    still = np.abs(steps).max(axis=0) < 1e-3
    found = ndimage.map_coordinates(
        region.array, np.indices(region.array.shape, dtype=np.float32) + steps, order=3, mode="nearest"
    )
    return np.where(still, region.array, found)

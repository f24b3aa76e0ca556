"""What a patient does between two visits: breathes and lies otherwise, loses weight, and is scanned elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionlocator.align.field import FieldMap, flow, to_field
from lesionlocator.geometry import AffineMap, Geometry, index3
from lesionlocator.synth.visit import Changed, Visit
from lesionlocator.volume import Volume

_BODY_HU = -300.0
_SKIN_GRID_MM = 4.0
_LONGEST_BREATH_MM = 20.0


@dataclass(frozen=True)
class Breathing:
    """Posture and breathing: everything moves smoothly, neighbours together, nothing folds and no tissue is compressed.

    The flow of a steady velocity, the curl of a smooth random potential on a coarse grid: it has no sources, so that
    lesions keep their volume, and its inverse is the flow the other way.
    """

    amplitude_mm: float
    """How far the point of the scan that moves most moves, at most."""
    length_mm: float
    """Over what distance the motion changes."""
    along_body: float
    """How much stronger motion from head to foot is driven: the diaphragm moves more than the shoulders."""
    seed: int
    name: ClassVar[str] = "breathing"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "patient"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Breathing | None:
        length_mm = float(rng.uniform(40.0, 90.0))
        return cls(
            amplitude_mm=float(rng.uniform(2.0, min(_LONGEST_BREATH_MM, length_mm / 4))),
            length_mm=length_mm,
            along_body=float(rng.uniform(1.0, 2.5)),
            seed=int(rng.integers(2**53)),
        )

    def apply(self, visit: Visit) -> Changed:
        grid = control_grid(visit.geometry, self.length_mm / 8, margin_mm=self.length_mm)
        noise = np.random.default_rng(self.seed).standard_normal((3, *grid.shape))
        x, y, z = ndimage.gaussian_filter(noise, (0, *(self.length_mm / 2 / grid.spacing_mm)), mode="wrap")
        x, y = self.along_body * x, self.along_body * y
        velocity_mm = np.stack(
            [
                np.gradient(z, axis=1) - np.gradient(y, axis=0),
                np.gradient(x, axis=0) - np.gradient(z, axis=2),
                np.gradient(y, axis=2) - np.gradient(x, axis=1),
            ]
        )
        in_scan = velocity_mm[:, 8:-8, 8:-8, 8:-8]
        velocity_mm *= self.amplitude_mm / np.sqrt((in_scan**2).sum(axis=0)).max()
        return flowed(visit, velocity_mm, grid)


@dataclass(frozen=True)
class WeightChange:
    """Fat under the skin grows or goes: the skin moves out or in, and the layer below it stretches with it."""

    skin_mm: float
    """How far the skin moves out (a loss of weight is negative)."""
    layer_mm: float
    """How thick the layer is that takes it up; what lies deeper stays."""
    name: ClassVar[str] = "weight_change"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "patient"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> WeightChange | None:
        layer_mm = float(rng.uniform(20.0, 40.0))
        return cls(skin_mm=float(rng.uniform(-0.3, 0.3)) * layer_mm, layer_mm=layer_mm)

    def apply(self, visit: Visit) -> Changed:
        grid = control_grid(visit.geometry, _SKIN_GRID_MM, margin_mm=0.0)
        body = np.pad(body_of(visit, grid), 1, mode="edge")
        outside: np.ndarray = ndimage.distance_transform_edt(~body, sampling=grid.spacing_mm)
        inside: np.ndarray = ndimage.distance_transform_edt(body, sampling=grid.spacing_mm)
        # Without any skin in sight (a crop deep inside) there is nothing that could move.
        if body.all() or not body.any():
            return Changed.kept(visit, visit)
        height = (outside - inside)[1:-1, 1:-1, 1:-1]
        share = np.clip(1 + height / self.layer_mm, 0, 1) * np.clip(2 - height / self.layer_mm, 0, 1)
        outwards = np.stack(np.gradient(ndimage.gaussian_filter(height, 2.0)))
        outwards[0] = 0.0
        length = np.sqrt((outwards**2).sum(axis=0))
        # Where the skin comes together (armpits, between the legs), out has no direction and nothing moves.
        steps = outwards / np.maximum(length, 0.5 * _SKIN_GRID_MM) * share * self.skin_mm
        velocity_mm = np.stack([ndimage.gaussian_filter(part, 1.5) for part in steps[::-1]])
        return flowed(visit, velocity_mm, grid)


@dataclass(frozen=True)
class TableShift:
    """The patient lies elsewhere on the table, a little turned, and the scan is planned around where he lies.

    The grid goes along with the shift; of the turn it takes no notice.
    """

    shift_mm: tuple[float, float, float]
    turn_degrees: tuple[float, float, float]
    """About x, y and z through the middle of the scan, in this order."""
    name: ClassVar[str] = "table_shift"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "patient"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> TableShift | None:
        x, y, z = (float(v) for v in rng.normal(0, (15.0, 15.0, 40.0)))
        a, b, c = (float(v) for v in np.clip(rng.normal(0, 1.5, 3), -5, 5))
        return cls((x, y, z), (a, b, c))

    def apply(self, visit: Visit) -> Changed:
        middle = visit.geometry.centre_mm
        matrix = np.eye(4)
        matrix[:3, :3] = _turn(np.deg2rad(self.turn_degrees))
        matrix[:3, 3] = middle + np.array(self.shift_mm) - matrix[:3, :3] @ middle
        forward = AffineMap(matrix)
        moved = visit.geometry.affine.copy()
        moved[:3, 3] += self.shift_mm
        grid = Geometry(visit.geometry.shape, moved, visit.geometry.frame)
        backward = forward.inverse()
        return Changed.kept(visit, visit.moved(forward, backward, grid), forward, backward)


@dataclass(frozen=True)
class FieldOfView:
    """Less of the body is scanned, and the grid begins elsewhere. Lesions beyond it are outside.

    The new grid's voxels keep their size; `start` may be a fraction of a voxel, as scans are never planned to one.
    """

    start: tuple[float, float, float]
    """Index in the old grid at which the new one begins, along d, h, w."""
    shape: tuple[int, int, int]
    name: ClassVar[str] = "field_of_view"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "patient"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> FieldOfView | None:
        full = np.array(visit.geometry.shape)
        kept = np.where(full > 8, rng.uniform(0.6, 1.0, 3), 1.0)
        shape = np.maximum(1, np.floor(full * kept)).astype(int)
        room = np.maximum(full - 1 - shape, 0)
        low, high = np.zeros(3), room.astype(float)
        target = _a_lesion(rng, visit)
        if target is not None:
            # At least one lesion is in the scan, or nobody would ask for it.
            low = np.clip(target - 0.9 * shape, 0, room)
            high = np.maximum(np.clip(target - 0.1 * shape, 0, room), low)
        d, h, w = (float(v) for v in rng.uniform(low, high))
        return cls((d, h, w), index3(shape))

    def apply(self, visit: Visit) -> Changed:
        affine = visit.geometry.affine.copy()
        affine[:3, 3] = visit.geometry.index_to_world(np.array([self.start]))[0]
        return Changed.kept(visit, visit.seen_on(Geometry(self.shape, affine, visit.geometry.frame)))


@dataclass(frozen=True, eq=False)
class Inverse:
    """The way back along a displacement: a flow the other way, set right where interpolation between nodes led off."""

    forward: FieldMap
    nearly: FieldMap

    def __call__(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        found = self.nearly(at_mm)
        for _ in range(2):
            found = found + (at_mm - self.forward(found))
        return found


def flowed(visit: Visit, velocity_mm: Float[np.ndarray, "3 d h w"], grid: Geometry) -> Changed:
    """The visit after one unit of time in a steady velocity (x, y, z, mm) on a grid along z, y, x."""
    steps = (velocity_mm[::-1] / grid.spacing_mm[:, None, None, None]).astype(np.float32)
    there = to_field(flow(steps), grid)
    back = Inverse(there, to_field(flow(-steps), grid))
    return Changed.kept(visit, visit.moved(there, back), there, back)


def control_grid(geometry: Geometry, spacing_mm: float, margin_mm: float) -> Geometry:
    """A coarse upright grid (d, h, w along z, y, x) over a scan and a margin."""
    low, high = geometry.corners_mm.min(axis=0) - margin_mm, geometry.corners_mm.max(axis=0) + margin_mm
    counts = np.maximum(np.ceil((high - low) / spacing_mm).astype(int) + 1, 4)
    affine = np.zeros((4, 4))
    affine[[0, 1, 2], [2, 1, 0]] = spacing_mm
    affine[:3, 3] = (low + high - spacing_mm * (counts - 1)) / 2
    affine[3, 3] = 1
    return Geometry(index3(counts[::-1]), affine)


def body_of(visit: Visit, grid: Geometry) -> Bool[np.ndarray, "d h w"]:
    """The patient on a grid: the organ `body` where it is known, else what is no air, holes and table left out."""
    if "body" in visit.organs:
        return visit.organs["body"].placed(grid).on(grid)
    solid = visit.glimpse(grid).array > air_limit(visit.source)
    solid = np.asarray(ndimage.binary_opening(solid, np.ones((1, 3, 3), bool)))
    labels, count = ndimage.label(solid)
    if count == 0:
        return solid
    largest = np.asarray(labels) == 1 + int(np.argmax(np.bincount(np.asarray(labels).ravel())[1:]))
    return np.stack([np.asarray(ndimage.binary_fill_holes(plane)) for plane in largest])


def air_limit(volume: Volume) -> float:
    """What is below is air: -300 HU; in MR and PET a tenth of the upper intensities."""
    if volume.modality == "CT":
        return _BODY_HU
    return 0.1 * float(np.percentile(volume.array[:: max(1, volume.array.shape[0] // 32)], 98))


def _turn(angles: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _a_lesion(rng: np.random.Generator, visit: Visit) -> Float[np.ndarray, "3"] | None:
    names = [name for name, mask in visit.lesions.items() if not mask.is_empty]
    if not names:
        return None
    at_mm = visit.lesions[names[int(rng.integers(len(names)))]].centroid_mm
    return visit.geometry.world_to_index(at_mm[None])[0]

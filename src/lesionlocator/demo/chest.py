"""A made-up chest CT: body, ribs, spine, heart, lungs with vessels, and tumours of known size."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionlocator.demo.lesions import lobed
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask, Volume

Plane = Float[np.ndarray, "_ _"]
"""An axial slice, or one row or column that is broadcast to it."""

_AIR, _FAT, _MUSCLE, _BLOOD, _LUNG = -1000.0, -100.0, 55.0, 130.0, -865.0
_SPACING_MM = np.array([2.5, 1.1, 1.1])
_SHAPE = (110, 246, 330)
_RIB_STEP_MM = 27.0
_GOALS = 750
_CAGE_MM = (143.0, 92.0)
"""Half width and half depth of the rib cage."""


@dataclass(frozen=True)
class Tumour:
    """A tumour to draw: where, how large, and which of the many shapes."""

    id: str
    at_mm: tuple[float, float, float]
    radius_mm: float
    shape: int = 0


RIGHT_UPPER = Tumour("1", (-92.0, -22.0, 172.0), 14.0, shape=3)
LEFT_LOWER = Tumour("2", (90.0, 34.0, 128.0), 7.0, shape=11)


def draw_chest(tumours: tuple[Tumour, ...], rng: np.random.Generator) -> tuple[Volume, dict[str, Mask]]:
    """A chest CT (x to the left, y to the back, z up, in mm) and the true mask of each tumour by its id."""
    geometry = _grid()
    hu = np.empty(_SHAPE, np.float32)
    lung = np.empty(_SHAPE, bool)
    y, x = _axis(geometry, 1)[:, None].astype(np.float32), _axis(geometry, 2)[None, :].astype(np.float32)
    for index, z in enumerate(_axis(geometry, 0)):
        hu[index], lung[index] = _plane(x, y, float(z))
    _add_parenchyma(hu, lung, rng)
    for start, end, radius_mm in _vessels(lung, geometry, rng):
        if not _is_pushed_aside(start, end):
            _add_tube(hu, geometry, (start, end), radius_mm, within=lung)
    masks = {tumour.id: _add_tumour(hu, geometry, tumour, lung) for tumour in tumours}
    for index in range(_SHAPE[0]):
        grain = ndimage.gaussian_filter(rng.standard_normal(_SHAPE[1:]), 0.6)
        hu[index] = ndimage.gaussian_filter(hu[index], 0.55) + 32 * grain
    array = np.clip(np.round(hu), -1024, 3071).astype(np.int16)
    return Volume(array, geometry, "CT", "chest"), masks


def _grid() -> Geometry:
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = _SPACING_MM
    affine[:3, 3] = -_SPACING_MM[2] * (_SHAPE[2] - 1) / 2, -_SPACING_MM[1] * (_SHAPE[1] - 1) / 2 + 8, 0.0
    affine[3, 3] = 1.0
    return Geometry(_SHAPE, affine)


def _axis(geometry: Geometry, axis: int) -> Float[np.ndarray, " n"]:
    return geometry.affine[2 - axis, 3] + np.arange(geometry.shape[axis]) * _SPACING_MM[axis]


def _round(x: Plane, y: Plane, half_mm: tuple[float, float], power: float = 2.0) -> Plane:
    """Below one inside an ellipse (rounder than one for higher powers)."""
    if power == 2.0:
        return np.hypot(x / half_mm[0], y / half_mm[1])
    return (np.abs(x / half_mm[0]) ** power + np.abs(y / half_mm[1]) ** power) ** (1 / power)


def _edge(inside_mm: Plane) -> Plane:
    """One inside, zero outside, half on the surface; a millimetre wide, as a voxel would average it."""
    return np.clip(inside_mm + 0.5, 0.0, 1.0)


def _plane(x: Plane, y: Plane, z: float) -> tuple[Plane, Bool[np.ndarray, "h w"]]:
    """HU of the axial slice at height z, and where lung is."""
    shoulder = np.clip((z - 190) / 90, 0, 1)
    body = _round(x, y + 2, (166 + 10 * shoulder, 116 - 8 * shoulder), 2.5)
    narrowing = np.sqrt(1 - (max(0.0, z - 110) / 215) ** 2)
    cage = _round(x, y, (_CAGE_MM[0] * narrowing, _CAGE_MM[1] * (0.35 + 0.65 * narrowing)), 2.3)
    hu = np.full(body.shape, _AIR, np.float32)
    hu = _blend(hu, 10.0, _edge((1 - body) * 130))
    hu = _blend(hu, _FAT, _edge((1 - body) * 130 - 2))
    chest_muscle = (1.07 + 0.16 * shoulder + 0.05 * np.sin(x / 26) ** 2 - cage) * 105
    hu = _blend(hu, _MUSCLE, _edge(np.minimum(chest_muscle, (0.93 - body) * 130)))
    hu = _blend(hu, _FAT, _edge((0.9 - cage) * 110))
    hu = _organs(hu, x, y, z, cage)
    lung = _lung(x, y, z, cage)
    hu = _blend(hu, _LUNG + 0.45 * (y + 40), lung)
    hu = _heart_and_vessels(hu, x, y, z)
    hu = _ribs(hu, x, y, z, cage)
    hu = _spine(hu, x, y, z)
    table = _edge(1.2 - np.abs(y - 130 + (x / 70) ** 2 * 2.5)) * (np.abs(x) < 168)
    return _blend(hu, -250.0, table), (lung > 0.99) & (hu < -600)


def _blend(hu: Plane, other: Plane | float, part: Plane) -> Plane:
    return hu + (other - hu) * part


def _diaphragm_mm(x: Plane, y: Plane) -> Plane:
    """Height of the diaphragm: two domes, the right one higher."""
    side = np.where(x < 0, -1.0, 1.0)
    top = np.where(x < 0, 84.0, 70.0)
    return top - 36 * ((x - 72 * side) / 66) ** 2 - 34 * ((y + 12) / 78) ** 2


def _lung(x: Plane, y: Plane, z: float, cage: Plane) -> Plane:
    apex = max(0.0, z - 178) / 84
    wall = (0.9 - np.sqrt(cage**2 + 0.81 * apex**2)) * 105
    middle = np.minimum((_round(x - 3, y - 2, (30.0, 88.0)) - 1) * 30, (_round(x, y - 62, (27.0, 30.0)) - 1) * 27)
    heart = (_heart(x, y, z) - 1) * 45 - 1.5
    return _edge(np.minimum.reduce([wall, middle, heart, z - _diaphragm_mm(x, y)]))


def _heart(x: Plane, y: Plane, z: float) -> Plane:
    along, across = 0.86 * (x - 22) - 0.5 * (y + 28), 0.5 * (x - 22) + 0.86 * (y + 28)
    return np.sqrt((along / 62) ** 2 + (across / 45) ** 2 + ((z - 92) / 55) ** 2)


def _organs(hu: Plane, x: Plane, y: Plane, z: float, cage: Plane) -> Plane:
    below = _edge(_diaphragm_mm(x, y) - 3 - z) * _edge((0.885 - cage) * 105)
    hu = _blend(hu, 108.0, below * _edge(28.0 - x + 0 * y))
    spleen = _edge((1 - _round(x - 88, y - 38, (40.0, 34.0))) * 36)
    hu = _blend(hu, 118.0, below * spleen)
    stomach = _round(x - 62, y + 32, (46.0, 34.0))
    hu = _blend(hu, 40.0, below * _edge((1 - stomach) * 38))
    return _blend(hu, -960.0, below * _edge((0.86 - stomach) * 38) * _edge(-y - 38))


def _heart_and_vessels(hu: Plane, x: Plane, y: Plane, z: float) -> Plane:
    heart = _heart(x, y, z)
    hu = _blend(hu, 92.0, _edge((1 - heart) * 48))
    hu = _blend(hu, _BLOOD, _edge((0.8 - heart) * 48))
    hu = _blend(hu, 165.0, _edge(12.5 - np.hypot(x - 21, y - 36)) * float(z < 205))
    if 120 < z < 200:
        hu = _blend(hu, 165.0, _edge(14.5 - np.hypot(x + 4 - (z - 120) * 0.05, y + 26 - (z - 120) * 0.1)))
    if 193 < z < 216:
        # The arch: from the front on the right to the back on the left.
        across = np.abs(0.93 * (x - 9) - 0.36 * (y - 8) * -1)
        arch = np.hypot(across, (z - 204) * 1.1)
        hu = _blend(hu, 165.0, _edge(12.0 - arch) * (np.abs(y - 6) < 38))
    for side in (-1, 1):
        hu = _blend(hu, 150.0, _edge(8.0 - np.hypot(np.hypot(x - 33 * side, y - 4), (z - 158) * 0.7)))
        bronchus = np.clip((186 - z) / 34, 0, 1)
        airway = 7.0 - np.hypot(x - 34 * side * bronchus, y - 16 - 5 * bronchus)
        hu = _blend(hu, -985.0, _edge(airway if z > 152 else airway - 99))
    return hu


def _ribs(hu: Plane, x: Plane, y: Plane, z: float, cage: Plane) -> Plane:
    """Rings around the cage that slope down to the front; cartilage near the breastbone."""
    phase = np.mod(z - 0.42 * y + 3 * np.sin(x / 60), _RIB_STEP_MM) - _RIB_STEP_MM / 2
    across = np.sqrt((phase / 6.2) ** 2 + ((cage - 0.947) / 0.034) ** 2)
    bone = np.where(across < 0.62, 210.0, 620.0)
    front = np.clip((-y - 52) / 12, 0, 1) * (np.abs(x) < 92)
    hu = _blend(hu, bone * (1 - front) + 95.0 * front, _edge((1 - across) * 4.5) * (z < 262))
    breastbone = np.maximum(np.abs(x) / 17, np.abs(cage - 0.965) / 0.05) if 90 < z < 235 else np.full_like(cage, 9.0)
    return _blend(hu, np.where(breastbone < 0.75, 140.0, 420.0), _edge((1 - breastbone) * 5) * (y < 0))


def _spine(hu: Plane, x: Plane, y: Plane, z: float) -> Plane:
    level = abs(np.mod(z, _RIB_STEP_MM) - _RIB_STEP_MM / 2)
    body = np.maximum(_round(x, y - 62, (18.5, 16.0), 2.4), _round(x, y - 84, (19.0, 32.0)) * 0.9)
    inner, shell = (190.0, 520.0) if level < 9.5 else (85.0, 95.0)
    hu = _blend(hu, np.where(body < 0.88, inner, shell), _edge((1 - body) * 16))
    arch = np.hypot(x, y - 85)
    hu = _blend(hu, 480.0, _edge(13.0 - arch) * _edge(y - 78.0 + 0 * x))
    if level < 8:
        wings = _round(np.abs(x) - 23, y - 84 - np.abs(x) * 0.1, (16.0, 5.0))
        hu = _blend(hu, 380.0, _edge((1 - wings) * 5))
    hu = _blend(hu, 420.0, _edge((1 - _round(x, y - 100, (3.5, 12.0))) * 4) * float(level < 11))
    return _blend(hu, 30.0, _edge(8.2 - arch))


def _add_parenchyma(hu: Float[np.ndarray, "d h w"], lung: Bool[np.ndarray, "d h w"], rng: np.random.Generator) -> None:
    coarse = ndimage.gaussian_filter(rng.standard_normal(tuple(n // 2 for n in _SHAPE)), (1.0, 1.4, 1.4))
    texture = ndimage.zoom((coarse / coarse.std()).astype(np.float32), 2, order=1)
    for plane, where, grain in zip(hu, lung, texture, strict=False):
        plane[where] += 22 * grain[where]


Segment = tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"], float]


def _vessels(lung: Bool[np.ndarray, "d h w"], geometry: Geometry, rng: np.random.Generator) -> Iterator[Segment]:
    """A tree from each hilum: every place in the lung that needs blood joins the nearest branch on the way home."""
    inside = geometry.index_to_world(np.argwhere(lung[::2, ::4, ::4]) * np.array([2.0, 4.0, 4.0]))
    for side in (-1, 1):
        own = inside[np.sign(inside[:, 0]) == side]
        hilum = np.array([34.0 * side, 6.0, 158.0])
        goals = own[rng.choice(len(own), _GOALS, replace=False)] + rng.uniform(-4, 4, (_GOALS, 3))
        yield from _tree(hilum, goals[np.argsort(np.linalg.norm(goals - hilum, axis=1))])


def _tree(root: Float[np.ndarray, "3"], goals: Float[np.ndarray, "n 3"]) -> Iterator[Segment]:
    nodes, parents, path_mm = [root], [-1], [0.0]
    for goal in goals:
        reach = np.linalg.norm(np.array(nodes) - goal, axis=1)
        parent = int(np.argmin(reach + 0.45 * np.array(path_mm)))
        # A joint on the way lets later branches fork off in the middle, and bends the vessel.
        joint = (nodes[parent] * 0.45 + goal * 0.55) + 0.05 * reach[parent] * np.cos(goal)
        for end in (joint, goal):
            path_mm.append(path_mm[parent] + float(np.linalg.norm(end - nodes[parent])))
            nodes.append(end)
            parents.append(parent)
            parent = len(nodes) - 1
    served = np.ones(len(nodes))
    for index in range(len(nodes) - 1, 0, -1):
        served[parents[index]] += served[index]
    for index in range(1, len(nodes)):
        yield nodes[parents[index]], nodes[index], min(4.2, 0.52 * float(served[index]) ** 0.36)


def _is_pushed_aside(start: Float[np.ndarray, "3"], end: Float[np.ndarray, "3"]) -> bool:
    """Whether a vessel would run where a tumour may grow; there is none, at any visit."""
    along = np.stack([start, (start + end) / 2, end])
    sites = ((tumour.at_mm, 1.65 * tumour.radius_mm) for tumour in (RIGHT_UPPER, LEFT_LOWER))
    return any(np.linalg.norm(along - np.array(at_mm), axis=1).min() < room_mm for at_mm, room_mm in sites)


def _add_tube(
    hu: Float[np.ndarray, "d h w"],
    geometry: Geometry,
    ends: tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]],
    radius_mm: float,
    *,
    within: Bool[np.ndarray, "d h w"],
) -> None:
    covered = geometry.clip(*geometry.around(np.stack(ends), radius_mm + 1.5))
    if covered is None:
        return
    slices = tuple(slice(a, b) for a, b in zip(*covered, strict=True))
    z, y, x = (_axis(geometry, axis)[part] for axis, part in enumerate(slices))
    offset = np.stack(np.broadcast_arrays(x[None, None, :], y[None, :, None], z[:, None, None]), -1) - ends[0]
    along = ends[1] - ends[0]
    share = np.clip(offset @ along / (along @ along), 0, 1)
    distance = np.linalg.norm(offset - share[..., None] * along, axis=-1)
    # A vessel thinner than a slice fills only a part of it.
    part = np.clip((radius_mm - distance) / 1.4 + 0.5, 0, 1) * within[slices]
    hu[slices] += (45 - hu[slices]) * part * (hu[slices] < 45)


def _add_tumour(
    hu: Float[np.ndarray, "d h w"], geometry: Geometry, tumour: Tumour, lung: Bool[np.ndarray, "d h w"]
) -> Mask:
    rng = np.random.default_rng(tumour.shape)
    centre = np.array(tumour.at_mm)
    covered = geometry.clip(*geometry.around(centre[None], 1.6 * tumour.radius_mm + 3))
    slices = tuple(slice(a, b) for a, b in zip(*(covered or ((0, 0, 0), (1, 1, 1))), strict=True))
    z, y, x = (_axis(geometry, axis)[part] for axis, part in enumerate(slices))
    offset = np.stack(np.broadcast_arrays(x[None, None, :], y[None, :, None], z[:, None, None]), -1) - centre
    distance = np.linalg.norm(offset, axis=-1)
    inside_mm = tumour.radius_mm * lobed(offset / (distance[..., None] + 1e-6), rng) - distance
    texture = ndimage.gaussian_filter(rng.standard_normal(distance.shape), (0.8, 2.0, 2.0)) * 70
    core = np.clip(inside_mm / tumour.radius_mm, 0, 1)
    hu[slices] += (42 - 22 * core + texture - hu[slices]) * np.clip(inside_mm / 1.4 + 0.5, 0, 1)
    for direction in rng.standard_normal((9, 3)):
        unit = direction / np.linalg.norm(direction)
        ends = centre + unit * tumour.radius_mm * 0.9, centre + unit * tumour.radius_mm * rng.uniform(1.25, 1.6)
        _add_tube(hu, geometry, ends, 0.75, within=lung)
    full = np.zeros(geometry.shape, bool)
    full[slices] = inside_mm >= 0
    return Mask.from_array(full, dataclasses.replace(geometry))

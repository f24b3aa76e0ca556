"""Bodies with known answers: drawn from formulas, so they can be scanned on any grid and through any map."""

from __future__ import annotations

import itertools

import numpy as np

from lesionlocator.geometry import AffineMap, Geometry, PointMap
from lesionlocator.volume import Modality, Volume

AIR_HU, LUNG_HU, FAT_HU, MUSCLE_HU, LIVER_HU, BONE_HU = -1000.0, -800.0, -100.0, 40.0, 110.0, 600.0


def upright(shape: tuple[int, int, int], spacing_mm: float, centre_mm: tuple[float, float, float]) -> Geometry:
    """A grid with d, h, w along z, y, x."""
    affine = np.zeros((4, 4))
    affine[[0, 1, 2], [2, 1, 0]] = spacing_mm
    affine[3, 3] = 1
    affine[:3, 3] = np.array(centre_mm) - spacing_mm * (np.array(shape[::-1]) - 1) / 2
    return Geometry(shape, affine)


def torso_hu(at_mm: np.ndarray) -> np.ndarray:
    """A trunk around the origin, 260 mm wide, 180 mm deep, along z from -130 mm (hips) to 130 mm (shoulders).

    Fat around muscle, two lungs above, a liver below them, a spine, and forty vessels and nodes, none like another.
    """
    x, y, z = at_mm.T
    width = 1 - 0.0006 * (z + 40) ** 2 / 40

    def ellipsoid(cx: float, cy: float, cz: float, rx: float, ry: float, rz: float) -> np.ndarray:
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 <= 1

    values = np.full(len(at_mm), AIR_HU)
    values[((x / 125) ** 2 + (y / 85) ** 2 <= width) & (np.abs(z) <= 130)] = FAT_HU
    values[((x / 110) ** 2 + (y / 70) ** 2 <= width) & (np.abs(z) <= 130)] = MUSCLE_HU
    values[ellipsoid(-55, -5, 60, 38, 48, 65)] = LUNG_HU
    values[ellipsoid(55, -5, 55, 35, 48, 70)] = LUNG_HU
    values[ellipsoid(-45, -10, -25, 55, 50, 32)] = LIVER_HU
    values[ellipsoid(45, 30, -55, 18, 20, 35)] = LIVER_HU + 60
    values[(x**2 + (y - 55) ** 2 <= 17**2) & (np.abs(z) <= 130)] = BONE_HU
    draw = np.random.default_rng(7)
    for _ in range(40):
        cx, cy, cz = draw.uniform((-90, -55, -120), (90, 50, 120))
        rx, ry, rz = draw.uniform(6, 15, 3)
        near = np.flatnonzero(np.abs(z - cz) <= rz)
        away = ((x[near] - cx) / rx) ** 2 + ((y[near] - cy) / ry) ** 2 + ((z[near] - cz) / rz) ** 2
        values[near[away <= 1]] = draw.choice([FAT_HU, LIVER_HU, 200.0, 350.0])
    return values


def torso(geometry: Geometry, where_from: PointMap | None = None, seed: int = 0) -> Volume:
    """A CT of the trunk with 10 HU of noise; with `where_from`, x shows what is at `where_from(x)` in the formula.

    A voxel is the mean of eight places in it, as a scanner averages over its slice.
    """
    index = np.indices(geometry.shape).reshape(3, -1).T.astype(float)
    values = np.zeros(len(index))
    for part in itertools.product((-0.25, 0.25), repeat=3):
        at_mm = geometry.index_to_world(index + np.array(part))
        values += torso_hu(at_mm if where_from is None else where_from(at_mm)) / 8
    noise = np.random.default_rng(seed).normal(0, 10, len(values))
    return Volume((values + noise).reshape(geometry.shape).astype(np.float32), geometry, "CT", f"torso {seed}")


def turned(degrees: float, shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> AffineMap:
    """A rotation about an oblique axis through the origin, then a shift."""
    axis = np.array([1.0, 2.0, 2.0]) / 3
    angle = np.deg2rad(degrees)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = shift_mm
    return AffineMap(matrix)


def in_ellipsoid(geometry: Geometry, centre_mm: tuple[float, ...], radii_mm: tuple[float, ...]) -> np.ndarray:
    """The voxels whose centres lie in an ellipsoid along the LPS axes."""
    index = np.indices(geometry.shape).reshape(3, -1).T.astype(float)
    scaled = (geometry.index_to_world(index) - np.array(centre_mm)) / np.array(radii_mm)
    return (np.sum(scaled**2, axis=1) <= 1).reshape(geometry.shape)


def painted(
    geometry: Geometry,
    values: dict[float, np.ndarray],
    background: float = FAT_HU,
    modality: Modality = "CT",
    noise: float = 10.0,
) -> Volume:
    """A background with bodies of one value each, later ones over earlier ones, and noise."""
    array = np.full(geometry.shape, background)
    for value, where in values.items():
        array[where] = value
    array = array + np.random.default_rng(3).normal(0, noise, geometry.shape)
    return Volume(array.astype(np.float32), geometry, modality, "painted")


def stored_otherwise(volume: Volume, order: tuple[int, ...], signs: tuple[int, ...]) -> Volume:
    """The same scan with its array axes permuted and flipped."""
    array = volume.array.transpose(order)
    affine = volume.geometry.affine.copy()
    affine[:3, :3] = affine[:3, :3][:, list(order)]
    for axis, sign in enumerate(signs):
        if sign < 0:
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, axis)
    return Volume(array, Geometry(array.shape, affine), volume.modality, volume.name)

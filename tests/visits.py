"""Made-up visits of one patient: a body of fat with balls in it, for stories that a person can check by hand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from lesionlocator.case import Case, Lesion, Timepoint
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Shape
from lesionlocator.volume import Mask, Volume

FAT_HU, LESION_HU, NOISE_HU = -90.0, 60.0, 12.0


@dataclass(frozen=True)
class Ball:
    """A lesion: centre and radius in mm, in the first visit's coordinates."""

    x: float
    y: float
    z: float
    radius: float

    def at(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Ball:
        """The same ball elsewhere."""
        return Ball(self.x + x, self.y + y, self.z + z, self.radius)

    def scaled(self, volume_factor: float) -> Ball:
        """The same ball with another volume."""
        return Ball(self.x, self.y, self.z, self.radius * volume_factor ** (1 / 3))


def grid(z_mm: tuple[float, float] = (-75.0, 75.0), shift_mm: float = 0.0) -> Geometry:
    """1.5 x 1.5 x 2.5 mm, 144 mm wide, from z to z; the table shift moves its world, not the patient in it."""
    depth = round((z_mm[1] - z_mm[0]) / 2.5)
    affine = np.array([[0, 0, 1.5, -71.25], [0, 1.5, 0, -71.25], [2.5, 0, 0, z_mm[0] + 1.25], [0, 0, 0, 1.0]])
    affine[:3, 3] += shift_mm
    return Geometry((depth, 96, 96), affine)


def places_mm(geometry: Geometry, shift_mm: float = 0.0) -> list[np.ndarray]:
    """x, y and z of all voxels: arrays that broadcast to the grid, small where it lies along the axes."""
    index = np.ogrid[tuple(slice(n) for n in geometry.shape)]
    rows = ((row[3], [step * at for step, at in zip(row, index, strict=False) if step]) for row in geometry.affine[:3])
    return [sum(along, start=origin) - shift_mm for origin, along in rows]


def in_ball(ball: Ball, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return (x - ball.x) ** 2 + (y - ball.y) ** 2 + (z - ball.z) ** 2 <= ball.radius**2


def ball_mask(ball: Ball, geometry: Geometry, shift_mm: float = 0.0) -> Mask:
    """The voxels whose centres lie in the ball."""
    return Mask.from_array(in_ball(ball, *places_mm(geometry, shift_mm)), geometry)


def scan(balls: list[Ball], geometry: Geometry, seed: int, shift_mm: float = 0.0) -> Volume:
    """A CT of a body of fat with a spine and these lesions in it, with noise."""
    x, y, z = places_mm(geometry, shift_mm)
    noise = np.random.default_rng(seed).normal(0, NOISE_HU, geometry.shape)
    tissue = np.full(geometry.shape, -1000.0)
    tissue[np.broadcast_to((x / 68) ** 2 + (y / 60) ** 2 <= 1, tissue.shape)] = FAT_HU
    tissue[np.broadcast_to((x**2 + (y - 42) ** 2 <= 100) & (np.abs(z % 30 - 15) > 3), tissue.shape)] = 400.0
    for ball in balls:
        tissue[np.broadcast_to(in_ball(ball, x, y, z), tissue.shape)] = LESION_HU
    return Volume((tissue + noise).astype(np.int16), geometry, "CT", f"visit{seed}")


def visit(number: int, balls: list[Ball], geometry: Geometry | None = None, shift_mm: float = 0.0) -> Timepoint:
    """A visit whose scan is made when it is loaded."""
    geometry = geometry or grid()
    return Timepoint(f"visit{number}", geometry, partial(scan, balls, geometry, number, shift_mm))


def story(first: dict[str, Ball], *later: Timepoint, masks: bool = False) -> Case:
    """A case: the first visit's lesions by id, prompted with tight boxes (or kept masks), and the later visits."""
    baseline = visit(0, list(first.values()))
    truth = {name: ball_mask(ball, baseline.geometry) for name, ball in first.items()}
    lesions = tuple(
        Lesion(name, (Shape(mask),), mask) if masks else Lesion(name, (Box.around(mask),))
        for name, mask in truth.items()
    )
    return Case((baseline.with_lesions(lesions), *later))

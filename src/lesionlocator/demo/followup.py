"""A later visit made from a scan: the patient lies elsewhere and breathes, the lesion grew, the scanner is set anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.spatial.transform import Rotation

from lesionlocator.geometry import AffineMap, Geometry, PointMap, compose
from lesionlocator.resample import resample, warp
from lesionlocator.volume import Mask, Volume


@dataclass(frozen=True)
class Change:
    """What is different at the later visit."""

    growth: float = 1.7
    """Volume of each lesion, times this; below one it shrinks."""
    turned_deg: tuple[float, float, float] = (1.2, -0.8, 3.5)
    """Rotation about the x, y and z axis."""
    moved_mm: tuple[float, float, float] = (11.0, -17.0, 86.0)
    """Shift of the patient together with the table, whose zero is not the same at every visit."""
    breath_mm: float = 7.0
    """How far tissue moves at most because of breathing."""
    spacing_mm: tuple[float, float, float] = (4.0, 0.9, 0.9)
    noise_hu: float = 14.0


@dataclass(frozen=True, eq=False)
class Growth:
    """Follow-up to baseline around one lesion: everything within `inner_mm` is closer by `scale`.

    From there to `outer_mm` the displacement fades as half a cosine, slowly enough to be invertible.
    """

    centre: Float[np.ndarray, "3"]
    inner_mm: float
    outer_mm: float
    scale: float

    def __call__(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        near = np.flatnonzero(np.all(np.abs(at_mm - self.centre) < self.outer_mm, axis=1))
        offset = at_mm[near] - self.centre
        radius = np.linalg.norm(offset, axis=1)
        fade = np.clip((radius - self.inner_mm) / (self.outer_mm - self.inner_mm), 0, 1)
        by_mm = np.minimum(radius, self.inner_mm) * (1 - 1 / self.scale) * (1 + np.cos(np.pi * fade)) / 2
        moved = at_mm.copy()
        moved[near] -= offset * (by_mm / np.maximum(radius, 1e-9))[:, None]
        return moved

    @staticmethod
    def of(lesion: Mask, growth: float) -> Growth:
        scale = growth ** (1 / 3)
        radius = np.linalg.norm(lesion.points_mm - lesion.centroid_mm, axis=1)
        inner = float(np.quantile(radius, 0.98)) * max(scale, 1.0) + 1.0
        return Growth(lesion.centroid_mm, inner, 2.1 * inner, scale)


@dataclass(frozen=True, eq=False)
class Breathing:
    """Two long smooth waves of displacement, small against their length, so nothing folds."""

    wave_per_mm: Float[np.ndarray, "k 3"]
    phase: Float[np.ndarray, " k"]
    by_mm: Float[np.ndarray, "k 3"]

    def __call__(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        # Not `@`: BLAS with several threads is ten times slower than one on millions of rows of three.
        angle = np.einsum("ij,kj->ik", at_mm, self.wave_per_mm) + self.phase
        return at_mm + np.einsum("ik,kj->ij", np.sin(angle), self.by_mm)

    @staticmethod
    def draw(by_mm: float, rng: np.random.Generator) -> Breathing:
        """Mostly along the body, where a breath moves most."""
        length_mm = rng.uniform(220, 300, 2)
        wave = rng.normal((0.3, 0.4, 0.8), 0.15, (2, 3))
        wave *= (2 * np.pi / length_mm / np.linalg.norm(wave, axis=1))[:, None]
        return Breathing(wave, rng.uniform(0, 2 * np.pi, 2), np.array([[0.1, 0.3, 0.75], [-0.15, 0.25, 0.3]]) * by_mm)


def make_followup(
    baseline: Volume,
    lesions: dict[str, Mask],
    change: Change,
    rng: np.random.Generator,
    growth: Mapping[str, float] | None = None,
) -> tuple[Volume, dict[str, Mask]]:
    """The scan of the later visit and the true mask of each lesion in it.

    Args:
        baseline: The scan that is changed.
        lesions: What is in it, by id.
        change: What is different at the later visit.
        rng: For breathing and noise.
        growth: For some lesions another growth than the change's; 1 leaves a lesion's size alone.
    """
    forward = _placement(baseline.geometry, change)
    breathing = Breathing.draw(change.breath_mm, rng)
    factors = {lesion_id: (growth or {}).get(lesion_id, change.growth) for lesion_id in lesions}
    growths = [Growth.of(mask, factors[name]) for name, mask in lesions.items() if factors[name] != 1]
    where_from = compose(forward.inverse(), breathing, *growths)
    grid = _grid(baseline.geometry, forward, np.array(change.spacing_mm))
    array = warp(baseline, grid, where_from, outside=float(baseline.array.min()))
    for index in range(len(array)):
        grain = ndimage.gaussian_filter(rng.standard_normal(array.shape[1:]), 0.7)
        array[index] += grain * (change.noise_hu / 0.4)
    limits = np.iinfo(np.int16)
    array = np.clip(np.round(array), max(limits.min, float(baseline.array.min())), limits.max).astype(np.int16)
    masks = {lesion_id: _warped(mask, grid, where_from) for lesion_id, mask in lesions.items()}
    return Volume(array, grid, baseline.modality, "followup"), masks


def _placement(geometry: Geometry, change: Change) -> AffineMap:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", change.turned_deg, degrees=True).as_matrix()
    turn[:3, 3] = geometry.centre_mm - turn[:3, :3] @ geometry.centre_mm + np.array(change.moved_mm)
    return AffineMap(turn)


def _grid(baseline: Geometry, forward: AffineMap, spacing_mm: Float[np.ndarray, "3"]) -> Geometry:
    """An upright grid where the patient now lies, a little shorter at both ends, as another technician plans it."""
    size_mm = np.ptp(baseline.corners_mm, axis=0)[::-1] - np.array([14.0, 4.0, 4.0])
    shape = np.maximum(1, np.round(size_mm / spacing_mm)).astype(int)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing_mm
    affine[3, 3] = 1.0
    middle = forward(baseline.centre_mm[None])[0]
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2)
    return Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def _warped(mask: Mask, grid: Geometry, where_from: PointMap) -> Mask:
    """A lesion's true outline on the new grid, its edge interpolated so that thick slices leave no steps."""
    soft = Volume(np.pad(mask.array, 1).astype(np.float32), _padded(mask.geometry), "CT")
    fine = resample(soft, soft.geometry, outside=0.0)
    soft = dataclasses.replace(soft, array=ndimage.gaussian_filter(fine, 0.4))
    full = warp(soft, grid, where_from, outside=0.0)
    return Mask.from_array(full >= 0.5, grid)


def _padded(geometry: Geometry) -> Geometry:
    d, h, w = geometry.shape
    return geometry.crop((-1, -1, -1), (d + 1, h + 1, w + 1))

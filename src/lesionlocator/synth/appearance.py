"""How tissue looks to another scanner or protocol: contrast agent, streaks of metal, MR's contrasts, PET's scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from lesionlocator.measure import axial_axis
from lesionlocator.resample import resample
from lesionlocator.synth.patient import control_grid
from lesionlocator.synth.scanner import with_array
from lesionlocator.synth.visit import Changed, Visit
from lesionlocator.volume import Volume

_CURVE_HU = (-20.0, 20.0, 70.0, 120.0, 220.0, 350.0)
"""HU at which the change of contrast is drawn; below the first and above the last nothing changes."""
_BONE_HU = 380.0
_UNPERFUSED = ("body", "lung", "bone", "fat", "air", "soft tissue", "spinal_cord", "mandible")
_METAL_HU = 3000.0
_AIR_HU = -1024.0
_FAR_FROM_LESIONS_MM = 25.0
_WAVES = 24


@dataclass(frozen=True)
class ContrastPhase:
    """Contrast agent arrives or has gone: perfused tissue changes by its HU, known organs each by their own amount.

    The change is read off smoothed intensities, so that the noise stays as it is. Bone keeps its HU.
    """

    curve_hu: tuple[float, ...]
    """How much brighter tissue of -20, 20, 70, 120, 220 and 350 HU becomes."""
    organs_hu: tuple[tuple[str, float], ...]
    """How much brighter single organs become, on top."""
    name: ClassVar[str] = "contrast_phase"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "scanner"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> ContrastPhase | None:
        if visit.source.modality != "CT":
            return None
        tissue, vessels = float(rng.uniform(-25, 35)), float(rng.uniform(-100, 100))
        organs = [name for name in visit.source_organs if name not in _UNPERFUSED]
        amounts = tuple((name, float(rng.uniform(-20, 30))) for name in organs)
        return cls((0.0, 0.15 * tissue, tissue, tissue + 0.2 * vessels, vessels, 0.0), amounts)

    def apply(self, visit: Visit) -> Changed:
        volume = visit.volume
        array = np.asarray(volume.array, np.float32)
        sigma = np.minimum(1.2 / volume.geometry.spacing_mm, 2.0)
        smooth = ndimage.gaussian_filter(array, sigma, mode="nearest")
        added = np.interp(smooth, _CURVE_HU, self.curve_hu, left=0.0, right=0.0).astype(np.float32)
        hard = ndimage.maximum_filter((smooth > _BONE_HU).astype(np.uint8), size=_within(volume, 5.0))
        added *= 1 - ndimage.gaussian_filter(hard.astype(np.float32), sigma, mode="nearest")
        for name, amount in self.organs_hu:
            if name in visit.organs:
                _add_to(added, visit, name, amount)
        return with_array(visit, array + added)


@dataclass(frozen=True)
class MetalStreak:
    """A piece of metal in bone, and the bright and dark streaks that go out from it through its slices."""

    at_mm: tuple[float, float, float]
    radius_mm: float
    streak_hu: float
    """How bright or dark streaks are near the metal."""
    reach_mm: float
    """At this distance they are half as strong."""
    seed: int
    name: ClassVar[str] = "metal_streak"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "scanner"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> MetalStreak | None:
        if visit.source.modality != "CT":
            return None
        grid = control_grid(visit.geometry, 5.0, 0.0)
        hard = np.argwhere(visit.glimpse(grid).array > 300)
        at_mm = grid.index_to_world(hard.astype(float))
        for mask in visit.lesions.values():
            if len(at_mm) and not mask.is_empty:
                away = np.linalg.norm(at_mm - mask.centroid_mm, axis=1)
                at_mm = at_mm[away > _FAR_FROM_LESIONS_MM + np.ptp(mask.geometry.corners_mm, axis=0).max() / 2]
        if len(at_mm) == 0:
            return None
        x, y, z = (float(v) for v in at_mm[int(rng.integers(len(at_mm)))])
        radius, streak, reach = (float(v) for v in rng.uniform((2, 80, 20), (6, 400, 60)))
        return cls((x, y, z), radius, streak, reach, int(rng.integers(2**53)))

    def apply(self, visit: Visit) -> Changed:
        volume = visit.volume
        axis = axial_axis(volume.geometry)
        array = np.array(volume.array, np.float32)
        planes = np.moveaxis(array, axis, 0)
        across, along = (a for a in range(3) if a != axis)
        middle = volume.geometry.world_to_index(np.array([self.at_mm]))[0]
        spacing = volume.geometry.spacing_mm
        first, second = np.indices(planes.shape[1:])
        dy, dx = (first - middle[across]) * spacing[across], (second - middle[along]) * spacing[along]
        distance, angle = np.hypot(dy, dx), np.arctan2(dy, dx)
        rng = np.random.default_rng(self.seed)
        for index, plane in enumerate(planes):
            height_mm = abs(index - middle[axis]) * spacing[axis]
            if height_mm <= 2 * self.radius_mm:
                waves = rng.normal(0, 1, (2, _WAVES))
                streaks = self.streak_hu * _streaks(angle, waves) / (1 + distance / self.reach_mm)
                planes[index] += np.where(plane > -300, streaks, 0.3 * streaks).astype(np.float32)
                planes[index][distance**2 + (height_mm / 2) ** 2 <= self.radius_mm**2] = _METAL_HU
        return with_array(visit, np.maximum(array, min(float(volume.array.min()), _AIR_HU)))


@dataclass(frozen=True)
class BiasField:
    """MR's uneven brightness: a smooth factor over the scan."""

    amplitude: float
    """Standard deviation of its logarithm."""
    length_mm: float
    """Over what distance it changes."""
    seed: int
    name: ClassVar[str] = "bias_field"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "scanner"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> BiasField | None:
        if visit.source.modality != "MR":
            return None
        amplitude, length_mm = (float(v) for v in rng.uniform((0.05, 60.0), (0.25, 200.0)))
        return cls(amplitude, length_mm, int(rng.integers(2**53)))

    def apply(self, visit: Visit) -> Changed:
        grid = control_grid(visit.geometry, self.length_mm / 8, margin_mm=self.length_mm)
        waves = np.random.default_rng(self.seed).standard_normal(grid.shape)
        waves = ndimage.gaussian_filter(waves, self.length_mm / 2 / grid.spacing_mm, mode="wrap")
        waves *= self.amplitude / waves.std()
        factor = np.exp(resample(Volume(waves.astype(np.float32), grid, "MR"), visit.geometry))
        return with_array(visit, np.asarray(visit.volume.array, np.float32) * factor)


@dataclass(frozen=True)
class Protocol:
    """Another MR sequence: every intensity becomes another one, brighter tissue not always the brighter one."""

    curve: tuple[float, ...]
    """What intensities evenly spaced from 0 to the scan's upper end become, as shares of that end."""
    gain: float
    """Another scanner's scale."""
    upper_end: float
    name: ClassVar[str] = "protocol"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "scanner"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Protocol | None:
        if visit.source.modality != "MR":
            return None
        upper_end = float(np.percentile(visit.source.array[:: max(1, len(visit.source.array) // 16)], 99))
        if upper_end <= 0:
            return None
        even = np.linspace(0, 1, 7)[1:]
        if rng.random() < 0.7:
            curve = even ** float(np.exp(rng.normal(0, 0.3)))
        else:
            curve = np.clip(even + rng.normal(0, 0.25, len(even)), 0.1, 1.2)
        return cls((0.0, *(float(v) for v in curve)), float(np.exp(rng.normal(0, 0.5))), upper_end)

    def apply(self, visit: Visit) -> Changed:
        array = np.asarray(visit.volume.array, np.float32)
        share = array / np.float32(self.upper_end)
        curve = np.interp(share, np.linspace(0, 1, len(self.curve)), self.curve)
        beyond = np.maximum(share - 1, 0) + np.minimum(share, 0)
        return with_array(visit, ((curve + beyond) * self.upper_end * self.gain).astype(np.float32))


@dataclass(frozen=True)
class UptakeScale:
    """PET of another calibration, weight or time after injection: every uptake by the same factor."""

    factor: float
    name: ClassVar[str] = "uptake_scale"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "scanner"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> UptakeScale | None:
        return cls(float(np.exp(rng.normal(0, 0.15)))) if visit.source.modality == "PT" else None

    def apply(self, visit: Visit) -> Changed:
        return with_array(visit, np.asarray(visit.volume.array, np.float32) * np.float32(self.factor))


def _streaks(angle: Float[np.ndarray, "h w"], waves: Float[np.ndarray, "2 n"]) -> Float[np.ndarray, "h w"]:
    """A pattern of unit spread around the metal, most of it in fine rays."""
    at = np.linspace(-np.pi, np.pi, 2048)
    orders = np.arange(2, 2 + waves.shape[1])[:, None]
    strength = np.sqrt(orders)
    pattern = (waves[0][:, None] * np.cos(orders * at) + waves[1][:, None] * np.sin(orders * at)) * strength
    rays = pattern.sum(axis=0) / np.sqrt((strength**2).sum())
    return np.interp(angle, at, rays)


def _within(volume: Volume, distance_mm: float) -> tuple[int, ...]:
    return tuple(2 * int(distance_mm / mm) + 1 for mm in volume.geometry.spacing_mm)


def _add_to(added: Float[np.ndarray, "d h w"], visit: Visit, name: str, amount: float) -> None:
    """So many HU to one organ, with a soft border."""
    mask = visit.organs[name]
    covered = visit.geometry.clip(*visit.geometry.around(mask.geometry.corners_mm, 3.0))
    if mask.is_empty or covered is None:
        return
    region = visit.geometry.crop(*covered)
    share = ndimage.gaussian_filter(mask.on(region).astype(np.float32), 1.0)
    added[tuple(slice(a, b) for a, b in zip(*covered, strict=True))] += np.float32(amount) * share

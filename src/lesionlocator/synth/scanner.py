"""How another scanner would have taken the same scan: its slices, its kernel and its noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32, Shaped
from scipy import fft, ndimage

from lesionlocator.geometry import Geometry, index3
from lesionlocator.measure import axial_axis
from lesionlocator.synth.carry import split_voxels
from lesionlocator.synth.visit import Changed, Visit
from lesionlocator.volume import Volume

FWHM = 2 * np.sqrt(2 * np.log(2))
"""Full width at half maximum of a Gaussian of standard deviation 1."""
_THICKNESSES_MM = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
_MOST_SHRUNK = 4.0
_LOOKED_AT = 9


@dataclass(frozen=True)
class Reslice:
    """Other slices: first the slice profile, then the sampling; in the plane only another pixel size.

    The profile is a Gaussian that comes on top of what the source's own slices have averaged. It is applied to slices
    that are sampled finely, so that every voxel is still interpolated once.
    """

    slice_mm: float
    """From slice to slice."""
    profile_mm: float
    """Full width at half maximum of the slice profile."""
    pixel_mm: float
    """From pixel to pixel in the plane."""
    name: ClassVar[str] = "reslice"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "scanner"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Reslice | None:
        axis = axial_axis(visit.geometry)
        own_mm = float(visit.geometry.spacing_mm[axis])
        pixel_mm = float(visit.geometry.spacing_mm[(axis + 1) % 3]) * float(rng.uniform(0.9, 1.25))
        # Few slices would be left of a thin slab.
        extent_mm = own_mm * visit.geometry.shape[axis]
        usual = [
            mm
            for mm in (*_THICKNESSES_MM, 1.5 * own_mm)
            if 0.9 * own_mm <= mm <= min(_MOST_SHRUNK * own_mm, extent_mm / 8)
        ]
        slice_mm = float(rng.choice(usual)) if usual else own_mm
        return cls(slice_mm, slice_mm * float(rng.uniform(0.8, 1.3)), pixel_mm)

    def grid(self, geometry: Geometry) -> Geometry:
        """The slices and pixels that it makes of those of a scan."""
        axis, own = axial_axis(geometry), geometry.spacing_mm
        spacing_mm = np.full(3, self.pixel_mm) * own / own[(axis + 1) % 3]
        spacing_mm[axis] = self.slice_mm
        return geometry.respaced(spacing_mm)

    def apply(self, visit: Visit) -> Changed:
        axis = axial_axis(visit.geometry)
        own = visit.geometry.spacing_mm
        onto = self.grid(visit.geometry)
        # Thin slices as fine as the source's own; an odd number to a slice, so that one of them lies in its middle.
        thin = 2 * int(np.ceil((self.slice_mm / own[axis] - 1) / 2 - 1e-6)) + 1
        parts = index3(np.where(np.arange(3) == axis, thin, 1))
        fine = visit.seen_on(split_voxels(onto, parts)).volume
        sigma = self.profile_mm / FWHM / (self.slice_mm / thin)
        blurred = ndimage.correlate1d(np.asarray(fine.array, np.float32), profile(sigma), axis=axis, mode="nearest")
        middles = tuple(slice(thin // 2, None, thin) if a == axis else slice(None) for a in range(3))
        taken = replace(fine, array=np.ascontiguousarray(blurred[middles]), geometry=onto)
        there = visit.seen_on(onto)
        return Changed.kept(visit, there.edited(volume=taken))


@dataclass(frozen=True)
class Kernel:
    """A softer or sharper reconstruction of a CT, in the plane: edges and noise change alike, as with a real kernel."""

    blur_mm: float
    """Standard deviation of the Gaussian that softens; 0 for a sharp kernel."""
    boost: float
    """How much stronger fine detail becomes; 0 for a soft kernel."""
    detail_mm: float
    """Standard deviation of the Gaussian below which detail is fine."""
    name: ClassVar[str] = "kernel"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "scanner"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Kernel | None:
        if visit.source.modality != "CT":
            return None
        pixel_mm = float(visit.geometry.spacing_mm[(axial_axis(visit.geometry) + 1) % 3])
        soft, blur, boost, detail = rng.random() < 0.5, *rng.uniform((0.4, 0.3, 0.8), (1.0, 1.2, 1.5))
        if soft:
            return cls(float(blur) * pixel_mm, 0.0, pixel_mm)
        return cls(0.0, float(boost), float(detail) * pixel_mm)

    def apply(self, visit: Visit) -> Changed:
        sigma = in_plane(visit.geometry, self.blur_mm)
        array = ndimage.gaussian_filter(np.asarray(visit.volume.array, np.float32), sigma, mode="nearest")
        if self.boost > 0:
            coarse = ndimage.gaussian_filter(array, in_plane(visit.geometry, self.detail_mm), mode="nearest")
            array += np.float32(self.boost) * (array - coarse)
        return with_array(visit, array)

    def transfer(self, per_mm: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """What it makes of the amplitude of a wave in the plane, by spatial frequency."""
        detail = 1 - np.exp(-2 * (np.pi * self.detail_mm * per_mm) ** 2)
        return np.exp(-2 * (np.pi * self.blur_mm * per_mm) ** 2) * (1 + self.boost * detail)


@dataclass(frozen=True)
class Resolution:
    """A scanner with less resolution, alike in all directions, for PET and MR."""

    blur_mm: float
    """Full width at half maximum of the Gaussian."""
    name: ClassVar[str] = "resolution"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "scanner"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Resolution | None:
        if visit.source.modality == "CT":
            return None
        finest_mm = float(visit.geometry.spacing_mm.min())
        return cls(float(rng.uniform(0.6, 1.6)) * finest_mm)

    def apply(self, visit: Visit) -> Changed:
        sigma = self.blur_mm / FWHM / visit.geometry.spacing_mm
        array = ndimage.gaussian_filter(np.asarray(visit.volume.array, np.float32), sigma, mode="nearest")
        return with_array(visit, array)


@dataclass(frozen=True)
class Dose:
    """Less dose in CT: noise is added, with the grain that filtered back-projection gives it.

    Its power in the plane rises with the frequency f, as the ramp filter makes it, and falls off as a Gaussian beyond
    `peak_per_mm` (Riederer, Pelc and Chesler 1978, doi:10.1088/0031-9155/23/3/008); slices that overlap share some.
    """

    added_hu: float
    """Standard deviation in the body."""
    peak_per_mm: float
    """Frequency at which the noise is strongest."""
    slice_mm: float
    """Standard deviation of the Gaussian that joins the noise of neighbouring slices; 0: they are independent."""
    seed: int
    name: ClassVar[str] = "dose"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "scanner"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> Dose | None:
        if visit.source.modality != "CT":
            return None
        ratio, peak, joined = (float(v) for v in rng.uniform((1.1, 0.3, 0.2), (2.2, 0.6, 0.8)))
        axis = axial_axis(visit.geometry)
        highest_per_mm = 0.5 / float(visit.geometry.spacing_mm[(axis + 1) % 3])
        return cls(
            added_hu=float(np.clip(noise_sd(visit.source) * np.sqrt(ratio**2 - 1), 2.0, 60.0)),
            peak_per_mm=peak * highest_per_mm,
            slice_mm=joined * float(visit.geometry.spacing_mm[axis]),
            seed=int(rng.integers(2**53)),
        )

    def apply(self, visit: Visit) -> Changed:
        array = np.asarray(visit.volume.array, np.float32)
        return with_array(visit, array + self.noise(visit.geometry) * strength(array, visit.geometry))

    def noise(self, geometry: Geometry) -> Float32[np.ndarray, "d h w"]:
        """The noise alone, on a grid."""
        axis = axial_axis(geometry)
        spacing = np.delete(geometry.spacing_mm, axis)
        planes = np.moveaxis(np.empty(geometry.shape, np.float32), axis, 0)
        rng = np.random.default_rng(self.seed)
        shape = planes.shape[1:]
        frequency = np.hypot(fft.fftfreq(shape[0], spacing[0])[:, None], fft.rfftfreq(shape[1], spacing[1]))
        amplitude = np.sqrt(self.power(frequency))
        amplitude /= _root_mean_square(amplitude, shape[1])
        for plane in planes:
            waves = fft.rfft2(rng.standard_normal(shape, np.float32))
            plane[...] = fft.irfft2(waves * amplitude.astype(np.float32), s=shape)
        sigma = self.slice_mm / geometry.spacing_mm[axis]
        if sigma > 0.05 and len(planes) > 1:
            planes[...] = ndimage.gaussian_filter1d(planes, sigma, axis=0, mode="wrap") / _kept_by_gaussian(
                sigma, len(planes)
            )
        planes *= np.float32(self.added_hu)
        return np.moveaxis(planes, 0, axis)

    def power(self, per_mm: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """The shape of its power in the plane, by spatial frequency."""
        return per_mm * np.exp(-0.5 * (per_mm / self.peak_per_mm) ** 2)


@dataclass(frozen=True)
class MrNoise:
    """Noise of an MR magnitude image: the length of a vector whose two parts are both noisy, never below zero.

    Gudbjartsson and Patz 1995, doi:10.1002/mrm.1910340618.
    """

    sd: float
    """Standard deviation of either part, in the scan's unit."""
    seed: int
    name: ClassVar[str] = "mr_noise"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "scanner"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> MrNoise | None:
        if visit.source.modality != "MR":
            return None
        bright = float(np.percentile(visit.source.array[:: max(1, len(visit.source.array) // 16)], 95))
        if bright <= 0:
            return None
        return cls(float(rng.uniform(0.005, 0.04)) * bright, int(rng.integers(2**53)))

    def apply(self, visit: Visit) -> Changed:
        rng = np.random.default_rng(self.seed)
        array = np.asarray(visit.volume.array, np.float32)
        real, imaginary = (np.float32(self.sd) * rng.standard_normal(array.shape, np.float32) for _ in range(2))
        noisy = np.hypot(array + real, imaginary)
        # Blanked surroundings stay blank, as in the source.
        return with_array(visit, np.where(array == 0, array, noisy))


@dataclass(frozen=True)
class CountNoise:
    """PET with fewer counts: noise that grows with the root of the uptake, as coarse as the scanner's resolution."""

    at_one_suv: float
    """Standard deviation where the uptake is 1."""
    grain_mm: float
    """Full width at half maximum of the grain."""
    seed: int
    name: ClassVar[str] = "count_noise"
    of: ClassVar[Literal["lesion", "patient", "scanner"]] = "scanner"

    @classmethod
    def draw(cls, rng: np.random.Generator, visit: Visit, lesion_ids: tuple[str, ...] = ()) -> CountNoise | None:
        if visit.source.modality != "PT":
            return None
        return cls(float(rng.uniform(0.03, 0.2)), float(rng.uniform(4.0, 7.0)), int(rng.integers(2**53)))

    def apply(self, visit: Visit) -> Changed:
        array = np.asarray(visit.volume.array, np.float32)
        sigma = self.grain_mm / FWHM / visit.geometry.spacing_mm
        white = np.random.default_rng(self.seed).standard_normal(array.shape, np.float32)
        kept = np.prod([_kept_by_gaussian(s, n) for s, n in zip(sigma, array.shape, strict=True)])
        grain = ndimage.gaussian_filter(white, sigma, mode="wrap") / np.float32(kept)
        uptake = np.maximum(ndimage.gaussian_filter(array, sigma, mode="nearest"), 0)
        return with_array(visit, np.maximum(array + np.float32(self.at_one_suv) * np.sqrt(uptake) * grain, 0))


def with_array(visit: Visit, array: Shaped[np.ndarray, "d h w"]) -> Changed:
    """The visit with other voxels and everything else as it was."""
    return Changed.kept(visit, visit.edited(volume=replace(visit.volume, array=array)))


def in_plane(geometry: Geometry, sigma_mm: float) -> Float[np.ndarray, "3"]:
    """A width in the axial plane, in voxels of each axis; none across the slices."""
    sigma = sigma_mm / geometry.spacing_mm
    sigma[axial_axis(geometry)] = 0.0
    return sigma


def strength(hu: Float32[np.ndarray, "d h w"], geometry: Geometry) -> Float[np.ndarray, "d h w"]:
    """How strong noise is, as a share of that inside the body: rays through air are hardly weakened."""
    coarse = tuple(slice(None, None, max(1, int(4 / mm))) for mm in geometry.spacing_mm)
    steps_mm = geometry.spacing_mm * [part.step for part in coarse]
    thick = ndimage.gaussian_filter((hu[coarse] > -300).astype(np.float32), 20 / steps_mm, mode="nearest")
    return _enlarged(0.4 + 0.6 * thick, coarse, hu.shape)


def noise_sd(volume: Volume) -> float:
    """The scan's noise: spread in small patches of the quietest tissue, from a few slices in the middle."""
    axis = axial_axis(volume.geometry)
    middle = max(0, volume.array.shape[axis] // 2 - _LOOKED_AT // 2)
    planes = np.moveaxis(volume.array, axis, 0)[middle : middle + _LOOKED_AT].astype(np.float32)
    mean = ndimage.uniform_filter(planes, (1, 5, 5))
    variance = np.maximum(ndimage.uniform_filter(planes**2, (1, 5, 5)) - mean**2, 0)
    tissue = mean > (-200 if volume.modality == "CT" else 0)
    if not tissue.any():
        return 0.0
    return 1.1 * float(np.sqrt(np.percentile(variance[tissue], 25)))


def profile(sigma: float) -> Float[np.ndarray, " n"]:
    """Weights of a Gaussian whose standard deviation is `sigma` voxels, in three voxels where it is narrow."""
    if sigma < 0.65:
        return np.array([sigma**2 / 2, 1 - sigma**2, sigma**2 / 2])
    reach = int(np.ceil(4 * sigma)) + 1
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return weights / weights.sum()


def _root_mean_square(amplitude: Float[np.ndarray, "h w"], width: int) -> float:
    """Over all frequencies of a real image, of which a half is stored."""
    weights = np.full(amplitude.shape[1], 2.0)
    weights[0] = 1.0
    if width % 2 == 0:
        weights[-1] = 1.0
    return float(np.sqrt((amplitude**2 * weights).sum() / (amplitude.shape[0] * width)))


def _kept_by_gaussian(sigma: float, count: int) -> float:
    """What is left of white noise's standard deviation after a Gaussian along one axis, ends joined."""
    if sigma < 1e-6:
        return 1.0
    impulse = np.zeros(count)
    impulse[count // 2] = 1.0
    return float(np.sqrt((ndimage.gaussian_filter1d(impulse, sigma, mode="wrap") ** 2).sum()))


def _enlarged(coarse: Float[np.ndarray, "d h w"], steps: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Values at every so many voxels, linearly in between."""
    for axis, step in enumerate(steps):
        at = np.arange(shape[axis]) / (step.step or 1)
        low = np.minimum(at.astype(int), coarse.shape[axis] - 1)
        high = np.minimum(low + 1, coarse.shape[axis] - 1)
        share = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        coarse = np.take(coarse, low, axis) * (1 - share) + np.take(coarse, high, axis) * share
    return coarse

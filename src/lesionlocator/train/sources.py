"""Where regions come from: painted lesions in scans without tumours, and lesions that readers outlined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from lesionlocator.geometry import Geometry
from lesionlocator.resample import resample
from lesionlocator.synth.lattice import smooth_noise
from lesionlocator.synth.paint import PaintedRegion, RegionSettings, draw_region
from lesionlocator.synth.scene import Background, Backgrounds
from lesionlocator.train.data import Region
from lesionlocator.volume import Mask, Modality, Volume

_MARGIN = 1.2
_BENT = 96
_FEWEST = 8


@dataclass(frozen=True, eq=False)
class Painted:
    """Painted lesions; easy ones first."""

    backgrounds: Backgrounds
    settings: RegionSettings = RegionSettings()

    def __call__(self, rng: np.random.Generator, difficulty: float) -> Region:
        settings = replace(self.settings, difficulty=0.15 + 0.85 * difficulty * self.settings.difficulty)
        return as_region(draw_region(rng, self.backgrounds, settings))


@dataclass(frozen=True, eq=False)
class Outlined:
    """A lesion that somebody outlined, in its scan."""

    scan: Volume
    mask: Mask
    kind: str
    patient: str


@dataclass(frozen=True, eq=False)
class Real:
    """Outlined lesions: a kind the more often, the more patients have it (by the root), its patients equally often.

    Some are bent smoothly, scan and outline alike, so that few patients give many shapes.
    """

    lesions: Sequence[Outlined]
    bent: float = 0.6

    def __call__(self, rng: np.random.Generator, difficulty: float) -> Region:
        region = around(self.choose(rng))
        return bend(rng, region) if rng.random() < self.bent else region

    def choose(self, rng: np.random.Generator) -> Outlined:
        """One of the lesions."""
        patients: dict[str, set[str]] = {}
        for lesion in self.lesions:
            patients.setdefault(lesion.kind, set()).add(lesion.patient)
        kinds = sorted(patients)
        weights = np.sqrt([len(patients[kind]) for kind in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        patient = _one(rng, sorted(patients[kind]))
        own = [lesion for lesion in self.lesions if (lesion.kind, lesion.patient) == (kind, patient)]
        return own[int(rng.integers(len(own)))]


def bend(rng: np.random.Generator, region: Region) -> Region:
    """The region as if the tissue had been pushed about smoothly, by up to about a tenth of the lesion's size."""
    scan, truth = region.scan, region.truth.astype(np.float32)
    coarser = np.maximum(1.0, np.array(scan.geometry.shape) / _BENT)
    if np.any(coarser > 1):
        onto = scan.geometry.respaced(scan.geometry.spacing_mm * coarser)
        scan = replace(scan, array=resample(scan, onto), geometry=onto)
        truth = resample(Volume(truth, region.scan.geometry, "CT"), onto)
    inside = np.argwhere(truth > 0.5)
    if len(inside) < _FEWEST:
        return region
    size = inside.max(axis=0) - inside.min(axis=0) + 1
    at = np.indices(truth.shape, np.float32)
    # As many waves as make two to four across the lesion.
    waves = rng.uniform(1.0, 2.0) * float(np.mean(np.array(truth.shape) / size))
    amount = rng.uniform(0.02, 0.1)
    for axis in range(3):
        at[axis] += np.float32(amount * size[axis] / 2) * smooth_noise(rng, truth.shape, waves)
    moved = ndimage.map_coordinates(scan.array, at, order=1, mode="nearest")
    bent = ndimage.map_coordinates(truth, at, order=1, mode="constant") > 0.5
    if not bent.any():
        return region
    return replace(region, scan=replace(scan, array=moved), truth=bent)


def around(lesion: Outlined) -> Region:
    """The part of a scan round a lesion that views of it may need."""
    geometry = lesion.scan.geometry
    size = np.array(lesion.mask.array.shape)
    start = np.array(lesion.mask.geometry.offset_in(geometry) or (0, 0, 0))
    reach_mm = _MARGIN * float((size * geometry.spacing_mm).max()) + 10
    reach = np.ceil(reach_mm / geometry.spacing_mm).astype(int)
    low, high = np.maximum(start - reach, 0), np.minimum(start + size + reach, geometry.shape)
    d0, h0, w0 = (int(v) for v in low)
    d1, h1, w1 = (int(v) for v in high)
    part = lesion.scan.crop((d0, h0, w0), (d1, h1, w1))
    return Region(part, lesion.mask.on(part.geometry), lesion.kind)


def as_region(painted: PaintedRegion) -> Region:
    """A painted region; what lies beyond the end of the file becomes unknown, and either reading may be the truth."""
    # A painted lesion is as round as it is in voxels, so that a cube round a click is one there too.
    even_mm = float(np.prod(painted.spacing_mm)) ** (1 / 3)
    d, h, w = painted.image.shape
    geometry = Geometry((d, h, w), np.diag([even_mm, even_mm, even_mm, 1.0]))
    image = painted.image if painted.valid.all() else np.where(painted.valid, painted.image, np.float32(np.nan))
    modalities: dict[str, Modality] = {"CT": "CT", "MR": "MR", "PT": "PT"}
    scan = Volume(image, geometry, modalities[painted.modality])
    if painted.core is None or not painted.kind.startswith("ring"):
        return Region(scan, painted.mask, painted.kind)
    rim = painted.mask & ~painted.core
    # Of a ring that the end of the file cuts, the core may be all that is left: then there is one reading only.
    if not rim.any():
        return Region(scan, painted.mask, painted.kind)
    return Region(scan, rim, "ring_without_core", painted.core)


def as_background(scan: Volume, organs: np.ndarray | None = None) -> Background:
    """A scan without tumours to paint in."""
    d, h, w = (float(v) for v in scan.geometry.spacing_mm)
    return Background.from_array(scan.array, (d, h, w), scan.modality, organs)


def _one(rng: np.random.Generator, names: list[str]) -> str:
    return names[int(rng.integers(len(names)))]

"""Where regions come from: painted lesions in scans without tumours, and lesions that readers outlined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lesionlocator.geometry import Geometry
from lesionlocator.synth.paint import PaintedRegion, RegionSettings, draw_region
from lesionlocator.synth.scene import Background, Backgrounds
from lesionlocator.train.data import Region
from lesionlocator.volume import Mask, Modality, Volume

_MARGIN = 1.2


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
    """Outlined lesions; every kind as often as the others, and each patient as often as the others of its kind."""

    lesions: Sequence[Outlined]

    def __call__(self, rng: np.random.Generator, difficulty: float) -> Region:
        groups = [lesion.kind for lesion in self.lesions]
        kind = _one(rng, sorted(set(groups)))
        patient = _one(rng, sorted({lesion.patient for lesion in self.lesions if lesion.kind == kind}))
        own = [lesion for lesion in self.lesions if (lesion.kind, lesion.patient) == (kind, patient)]
        return around(own[int(rng.integers(len(own)))])


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

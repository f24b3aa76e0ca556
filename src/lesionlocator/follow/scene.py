"""Two aligned scans and the lesions of the first: what a lesion looks like, and where it comes to lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionlocator.geometry import AffineMap, Alignment, Geometry
from lesionlocator.resample import resample, warp
from lesionlocator.volume import Mask, Volume

_CLEAR = 6.0
"""A lesion with a contrast of so many spreads is clear of noise without more smoothing."""
_FAINT_VOXELS = 0.9


@dataclass(frozen=True)
class Rules:
    """What counts as a sighting. Lengths in mm, shares of the carried-over lesion's volume."""

    inside_share: float = 0.5
    """A lesion with less of it than this inside the follow-up scan is outside."""
    tolerance_mm: float = 4.0
    """How far off an alignment may be: what does not come this near the carried-over mask is another thing."""
    reach_mm: tuple[float, float] = (4.0, 12.0)
    """Each border of a lesion may have moved out by a quarter of its diameter, within these limits."""
    merge_mm: tuple[float, float] = (6.0, 20.0)
    """Lesions may have grown together over half of a diameter each, within these limits."""
    present_share: float = 0.02
    """Less than this that looks like the lesion is nothing."""
    part_share: float = 0.10
    """The smallest part of a split, as a share of all its parts."""
    stands_out: float = 1.0
    """A baseline contrast below this many spreads of the surroundings cannot be recognised again."""


@dataclass(frozen=True)
class Look:
    """How a lesion differs from its surroundings in the baseline scan, in that scan's intensities."""

    inside: float
    inside_spread: float
    around: float
    around_spread: float

    @property
    def contrast(self) -> float:
        return self.inside - self.around

    @property
    def spreads(self) -> float:
        """The contrast in spreads of the surroundings."""
        return abs(self.contrast) / max(self.around_spread, 1e-6)

    def stands_out(self, spreads: float) -> bool:
        return abs(self.contrast) > max(spreads * self.around_spread, 1e-6)


@dataclass(frozen=True, eq=False)
class Scene:
    """Two aligned scans and the lesions of the baseline, whose masks are on the baseline's grid."""

    baseline: Volume
    followup: Volume
    alignment: Alignment
    lesions: Sequence[Mask]
    rules: Rules = field(default_factory=Rules)


@dataclass(frozen=True, eq=False)
class Sought:
    """One lesion that is looked for: its mask in the scene's baseline, its look there, and its mask carried over."""

    scene: Scene
    mask: Mask
    look: Look
    carried: Mask

    @property
    def decisive(self) -> bool:
        """Whether it could be told again from what lies around it."""
        return self.of_one_kind and self.look.stands_out(self.scene.rules.stands_out)

    @property
    def of_one_kind(self) -> bool:
        """Whether both scans' brightness can be compared."""
        return self.scene.baseline.modality == self.scene.followup.modality

    def shifted(self, by_mm: Float[np.ndarray, "3"]) -> Sought:
        """The same lesion with an alignment that takes it further by so much."""
        if not by_mm.any():
            return self
        scene = replace(self.scene, alignment=self.scene.alignment.then(_shift(by_mm)))
        return replace(self, scene=scene, carried=carry(self.mask, scene))

    def on(self, grid: Geometry) -> tuple[Float[np.ndarray, "d h w"], Float[np.ndarray, "d h w"]]:
        """The follow-up, and the baseline as it lies there, on one grid."""
        before = warp(self.scene.baseline, grid, self.scene.alignment.backward)
        return finite(resample(self.scene.followup, grid)), finite(before)


def seek(scene: Scene) -> list[Sought]:
    """Every lesion of a scene, ready to be looked for."""
    carried = [carry(mask, scene) for mask in scene.lesions]
    looks = [
        look_of(scene.baseline, mask, [other for other in scene.lesions if other is not mask]) for mask in scene.lesions
    ]
    return [Sought(scene, *each) for each in zip(scene.lesions, looks, carried, strict=True)]


def place_on(mask: Mask, grid: Geometry) -> Bool[np.ndarray, "d h w"]:
    """A mask on any grid, by the nearest voxel; quickly nothing where the two do not meet."""
    if mask.is_empty or grid.clip(*grid.around(mask.geometry.corners_mm)) is None:
        return np.zeros(grid.shape, bool)
    return mask.placed(grid).on(grid)


def alike(array: Float[np.ndarray, "d h w"], around: float, inside: float, spread: float) -> Bool[np.ndarray, "d h w"]:
    """Voxels on the lesion's side of half-way between it and its surroundings, and not far beyond it."""
    contrast = inside - around
    sign = 1.0 if contrast >= 0 else -1.0
    beyond = sign * (array - inside)
    return (sign * (array - (around + inside) / 2) > 0) & (beyond < max(abs(contrast), 4 * spread))


def smoothed(array: Float[np.ndarray, "d h w"], grid: Geometry, one: Sought) -> Float[np.ndarray, "d h w"]:
    """Without the specks that noise makes, which would pass for parts of the lesion and join it with its neighbours.

    Half a voxel or 0.7 mm of smoothing keeps a lesion of a few voxels; one that hardly stands out from its
    surroundings needs more, up to a sixth of its diameter. Not on MR, where what hardly stands out by the spread around
    it is mostly a rim in mixed tissue, which more smoothing washes out (docs/decisions/0024-places-together.md).
    """
    sigma = np.minimum(0.7, 0.7 / grid.spacing_mm)
    if one.look.spreads < _CLEAR and one.scene.followup.modality != "MR":
        sigma = np.maximum(sigma, np.minimum(_FAINT_VOXELS, one.mask.equivalent_diameter_mm / 6 / grid.spacing_mm))
    return ndimage.gaussian_filter(array, sigma)


def gain_of(
    modality: str,
    before: Float[np.ndarray, "d h w"],
    now: Float[np.ndarray, "d h w"],
    tissue: Bool[np.ndarray, "d h w"],
) -> float:
    """MR has no unit: the follow-up's scale against the baseline's, from the tissue around. 1 for CT and PET."""
    if modality != "MR":
        return 1.0
    known = tissue & (before > 0) & (now > 0)
    if np.count_nonzero(known) < 20:
        return 1.0
    return float(np.clip(np.median(now[known]) / np.median(before[known]), 0.1, 10.0))


def carry(mask: Mask, scene: Scene) -> Mask:
    """The mask in the follow-up; a lesion too small for the follow-up's voxels becomes the one at its middle."""
    onto = scene.followup.geometry
    moved = mask.warped(onto, scene.alignment)
    if not moved.is_empty or mask.is_empty:
        return moved
    middle = scene.alignment.forward(mask.deepest_mm[None])
    if not onto.contains(middle)[0]:
        return moved
    start, stop = onto.clip(*onto.around(middle)) or ((0, 0, 0), (1, 1, 1))
    region = onto.crop(start, stop)
    return Mask(np.ones(region.shape, bool), region)


def share_inside(mask: Mask, scene: Scene) -> float:
    """How much of a baseline lesion lies inside the follow-up's grid; 0 for an empty mask."""
    if mask.is_empty:
        return 0.0
    return float(np.mean(scene.followup.geometry.contains(scene.alignment.forward(mask.points_mm))))


def look_of(volume: Volume, mask: Mask, others: Sequence[Mask] = ()) -> Look:
    """Medians and robust spreads in a lesion and in the shell 2 to 8 mm around it, other lesions left out."""
    region, inside = surroundings(volume.geometry, mask, 8.0)
    values = finite(resample(volume, region))
    distance = ndimage.distance_transform_edt(~inside, sampling=region.spacing_mm)
    shell = (distance > min(2.0, float(region.spacing_mm.max()))) & (distance <= 8.0 + float(region.spacing_mm.max()))
    for other in others:
        shell &= ~place_on(other, region)
    if not shell.any():
        shell = ~inside if not inside.all() else inside
    return Look(*_median_and_spread(values[inside]), *_median_and_spread(values[shell]))


def surroundings(geometry: Geometry, mask: Mask, margin_mm: float) -> tuple[Geometry, Bool[np.ndarray, "d h w"]]:
    """The part of a grid around a mask that lies on its lattice, and the mask in it."""
    covered = geometry.clip(*geometry.around(mask.geometry.corners_mm, margin_mm)) or ((0, 0, 0), (1, 1, 1))
    region = geometry.crop(*covered)
    return region, mask.on(region)


def finite(array: Float[np.ndarray, "d h w"]) -> Float[np.ndarray, "d h w"]:
    """The same array with nothing in it that is no number."""
    return np.nan_to_num(array, copy=False)


def _median_and_spread(values: Float[np.ndarray, " n"]) -> tuple[float, float]:
    median = float(np.median(values))
    return median, 1.4826 * float(np.median(np.abs(values - median)))


def _shift(by_mm: Float[np.ndarray, "3"]) -> Alignment:
    return Alignment.from_affine(AffineMap.shift(by_mm))

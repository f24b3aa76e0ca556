"""Where a lesion of one scan is in the next: what at its carried-over place still looks like it, in how many parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionlocator.resample import resample, warp
from lesionlocator.scene import Look, Scene, carry, finite, look_of, share_inside, surroundings
from lesionlocator.volume import Mask

_WORKING_SIDE = 96
"""Most voxels along an axis of the region in which a lesion is looked for; larger ones are seen more coarsely."""
_EVERYWHERE = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, eq=False)
class Sighting:
    """What was found of one lesion at its carried-over place in the follow-up scan.

    `carried` is its mask through the alignment; `inside` the share of the lesion that lies in the follow-up's grid;
    `parts` what looks like it there, largest first (grids of their own, nearest the follow-up's), and `around` what
    they are connected with further out, by which lesions that have merged are known. `decisive` is False where the
    baseline lesion does not stand out from its surroundings, so that finding nothing means nothing.
    `likeness` (0 to 1) is how much of the baseline's contrast is left.
    """

    carried: Mask
    inside: float
    parts: tuple[Mask, ...] = ()
    around: Mask | None = None
    decisive: bool = False
    likeness: float = 0.0


def locate(scene: Scene) -> list[Sighting]:
    """One sighting for every lesion of the baseline, in their order.

    Looks for voxels on the lesion's side of the half-way intensity between lesion and surroundings, near the
    carried-over mask, that were not there already (in the aligned baseline) as something else. Parts are shared out:
    one that lies more on another lesion's place is left to that one.
    """
    carried = [carry(mask, scene) for mask in scene.lesions]
    return [_look_again(index, carried, scene) for index in range(len(scene.lesions))]


def _look_again(index: int, carried: list[Mask], scene: Scene) -> Sighting:
    rules, mask = scene.rules, scene.lesions[index]
    inside = share_inside(mask, scene)
    if inside < rules.inside_share or carried[index].is_empty:
        return Sighting(carried[index], inside)
    look = look_of(scene.baseline, mask, [other for i, other in enumerate(scene.lesions) if i != index])
    decisive = look.stands_out(rules.stands_out) and scene.baseline.modality == scene.followup.modality
    if not decisive:
        return Sighting(carried[index], inside)
    region = _Region(index, carried, scene)
    found, likeness = region.lesion_like(look)
    parts = region.parts(found)
    return Sighting(carried[index], inside, tuple(parts), region.connected(found, parts), True, likeness)


class _Region:
    """The follow-up around one carried-over lesion, with the aligned baseline and the other lesions on its grid."""

    def __init__(self, index: int, carried: list[Mask], scene: Scene) -> None:
        self.rules, self.scene = scene.rules, scene
        diameter_mm = carried[index].equivalent_diameter_mm
        self.reach_mm = float(np.clip(diameter_mm / 4, *self.rules.reach_mm))
        self.merge_mm = float(np.clip(diameter_mm / 2, *self.rules.merge_mm))
        native, _ = surroundings(scene.followup.geometry, carried[index], self.merge_mm + 6.0)
        coarsest = np.maximum(native.spacing_mm, native.spacing_mm * np.array(native.shape) / _WORKING_SIDE)
        self.grid = native if np.allclose(coarsest, native.spacing_mm) else native.respaced(coarsest)
        self.followup = finite(resample(scene.followup, self.grid))
        self.baseline = finite(warp(scene.baseline, self.grid, scene.alignment.backward))
        self.places = [mask.placed(self.grid).on(self.grid) for mask in carried]
        self.index = index
        if not self.places[index].any():
            start, stop = self.grid.clip(*self.grid.around(carried[index].deepest_mm[None])) or ((0, 0, 0), (1, 1, 1))
            self.places[index][tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
        self.distance = np.asarray(ndimage.distance_transform_edt(~self.places[index], sampling=self.grid.spacing_mm))

    def lesion_like(self, look: Look) -> tuple[Bool[np.ndarray, "d h w"], float]:
        """Voxels around that look like the lesion and were not something else before; and the contrast left."""
        gain = self._gain()
        any_lesion = np.logical_or.reduce(self.places)
        shell = (self.distance > self.rules.tolerance_mm) & (self.distance <= self.merge_mm + 6.0) & ~any_lesion
        around = float(np.median(self.followup[shell])) if shell.any() else gain * look.around
        level = gain * look.inside
        if (level - around) * look.contrast <= 0:
            around = gain * look.around
        smooth_now = self._smoothed(self.followup)
        alike = self._alike(smooth_now, around, level, gain * look.inside_spread)
        before = self._alike(self._smoothed(self.baseline), look.around, look.inside, look.inside_spread)
        # A voxel of slack on what was there before: alignments are not exact at the border of a vessel or a rib.
        explained = ndimage.binary_dilation(before & ~ndimage.binary_dilation(any_lesion, _EVERYWHERE)) & ~any_lesion
        found = alike & ~explained & (self.distance <= self.merge_mm)
        near = found & (self.distance <= self.rules.tolerance_mm)
        left = float(np.median(smooth_now[near])) - around if near.any() else 0.0
        return found, float(np.clip(left / (level - around), 0.0, 1.0)) if level != around else 0.0

    def parts(self, found: Bool[np.ndarray, "d h w"]) -> list[Mask]:
        """Connected parts that come near this lesion's place and belong to no other, largest first."""
        labels, count = ndimage.label(found & (self.distance <= self.reach_mm), _EVERYWHERE)
        own = int(self.places[self.index].sum())
        smallest = max(2.0 if own > 8 else 1.0, self.rules.present_share * own)
        kept = [
            part
            for part in (labels == label for label in range(1, count + 1))
            if part.sum() >= smallest and self._is_ours(part)
        ]
        kept.sort(key=lambda part: -int(part.sum()))
        total = sum(int(part.sum()) for part in kept)
        return [Mask.from_array(part, self.grid) for part in kept if part.sum() >= self.rules.part_share * total]

    def connected(self, found: Bool[np.ndarray, "d h w"], parts: list[Mask]) -> Mask | None:
        """What is found in one piece with the parts, beyond the reach of the lesion's own growth too."""
        if not parts:
            return None
        labels, _ = ndimage.label(found, _EVERYWHERE)
        labels = np.asarray(labels)
        ours = np.unique(np.concatenate([labels[part.on(self.grid)] for part in parts]))
        return Mask.from_array(np.isin(labels, ours[ours > 0]), self.grid)

    def _is_ours(self, part: Bool[np.ndarray, "d h w"]) -> bool:
        nearest = float(self.distance[part].min())
        if nearest > self.rules.tolerance_mm:
            return False
        ours = int(np.count_nonzero(part & self.places[self.index]))
        others = [int(np.count_nonzero(part & place)) for i, place in enumerate(self.places) if i != self.index]
        # A part that covers a good share of both places belongs to both: they have merged.
        return ours >= max(others, default=0) or ours >= 0.3 * int(self.places[self.index].sum())

    def _gain(self) -> float:
        """MR has no unit: the follow-up's scale against the baseline's, from the tissue around. 1 for CT and PET."""
        if self.scene.followup.modality != "MR":
            return 1.0
        tissue = (self.distance > self.rules.tolerance_mm) & (self.baseline > 0) & (self.followup > 0)
        if np.count_nonzero(tissue) < 20:
            return 1.0
        return float(np.clip(np.median(self.followup[tissue]) / np.median(self.baseline[tissue]), 0.1, 10.0))

    def _smoothed(self, array: Float[np.ndarray, "d h w"]) -> Float[np.ndarray, "d h w"]:
        # Noise makes specks; half a voxel or 0.7 mm of smoothing removes them and keeps a lesion of a few voxels.
        return ndimage.gaussian_filter(array, np.minimum(0.7, 0.7 / self.grid.spacing_mm))

    @staticmethod
    def _alike(
        array: Float[np.ndarray, "d h w"], around: float, inside: float, spread: float
    ) -> Bool[np.ndarray, "d h w"]:
        contrast = inside - around
        sign = 1.0 if contrast >= 0 else -1.0
        beyond = sign * (array - inside)
        return (sign * (array - (around + inside) / 2) > 0) & (beyond < max(abs(contrast), 4 * spread))

"""Lesions looked for again: what is seen of each in the follow-up scan, at its place and in how many parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionlocator.align import align_quality
from lesionlocator.follow.remains import Remains, remains_of
from lesionlocator.follow.scene import (
    Look,
    Scene,
    Sought,
    alike,
    gain_of,
    place_on,
    seek,
    share_inside,
    smoothed,
    surroundings,
)  # fmt: skip
from lesionlocator.follow.settle import Settled, settle
from lesionlocator.volume import Mask

_WORKING_SIDE = 96
"""Most voxels along an axis of the region in which a lesion is looked for; larger ones are seen more coarsely."""
_EVERYWHERE = np.ones((3, 3, 3), bool)
_NONE = np.zeros((1, 1, 1), bool)
_AROUND_MM = 10.0
SMALL, ALIGNED = 16, 0.45
"""A lesion of fewer voxels is gone only where both scans are at least so alike around its place."""
_OWN_SHARE = 0.3
"""A part that covers so much of a lesion's place is that lesion's, whoever else it belongs to: they have merged."""


@dataclass(frozen=True, eq=False)
class Sighting:
    """What was found of one lesion at its place in the follow-up scan.

    `carried` is its mask through the alignment, moved to where all lesions together say that it is; `inside` the share
    of the lesion that lies in the follow-up's grid; `parts` what looks like it there, largest first (grids of their
    own, nearest the follow-up's), and `around` what they are connected with further out, by which lesions that have
    merged are known. `decisive` is False where the baseline lesion does not stand out from its surroundings, so that
    finding nothing means nothing. `likeness` (0 to 1) is how much of the baseline's contrast is left. `settled` is how
    its place was decided; `strayed_mm` how far from there it was found, if nothing was at the place itself.
    `agreement` (0 to 1) is how alike both scans are around the place; `stands_out` the lesion's contrast in the
    baseline, in spreads of its surroundings, `contrast` the same with its sign in the scan's unit.
    """

    carried: Mask
    inside: float
    parts: tuple[Mask, ...] = ()
    around: Mask | None = None
    decisive: bool = False
    likeness: float = 0.0
    settled: Settled | None = None
    strayed_mm: float = 0.0
    agreement: float = 0.0
    stands_out: float = 0.0
    contrast: float = 0.0
    remains: Remains | None = None


def locate(scene: Scene) -> list[Sighting]:
    """One sighting for every lesion of the baseline, in their order. See `locate_all`."""
    return locate_all([scene])[0]


def locate_all(scenes: Sequence[Scene]) -> list[list[Sighting]]:
    """One sighting for every lesion of every scene; the scenes have one follow-up, and are judged together.

    The places are settled first, for all lesions at once (`settle.py`). Then at each place: voxels on the lesion's
    side of the half-way intensity between lesion and surroundings, near the carried-over mask, that were not there
    already (in the aligned baseline) as something else. Parts are shared out: one that lies more on another lesion's
    place, or that another lesion claimed, is left to that one. A lesion of which nothing or a rim is seen at its
    place, but which claimed a spot near by that is no other lesion's, is looked for there.
    """
    sought = [one for scene in scenes for one in seek(scene)]
    settled = settle(sought)
    placed = [one.shifted(place.shift_mm) for one, place in zip(sought, settled, strict=True)]
    seen = [_look_again(index, placed, settled) for index in range(len(placed))]
    for index, place in enumerate(settled):
        if place.claim is None or not _is_beside(place.claim.mask, seen[index]):
            continue
        if _is_taken(place.claim.mask, index, seen):
            continue
        there = placed[index].shifted(place.claim.centre_mm - placed[index].carried.centroid_mm)
        again = _look_again(index, [*placed[:index], there, *placed[index + 1 :]], settled)
        if again.parts:
            seen[index] = replace(again, strayed_mm=place.apart_mm)
    found = iter(seen)
    return [[next(found) for _ in scene.lesions] for scene in scenes]


def _is_beside(spot: Mask, seen: Sighting) -> bool:
    """Whether a claimed spot was missed at the place: nothing is seen there, or only a rim of the spot."""
    if not seen.decisive:
        return False
    covered = sum(int(place_on(part, spot.geometry)[spot.array].sum()) for part in seen.parts)
    return covered < 0.5 * spot.voxels and all(place_on(spot, part.geometry)[part.array].any() for part in seen.parts)


def _is_taken(spot: Mask, index: int, seen: Sequence[Sighting]) -> bool:
    return any(
        place_on(part, spot.geometry)[spot.array].any()
        for i, one in enumerate(seen)
        if i != index
        for part in one.parts
    )


def _look_again(index: int, placed: Sequence[Sought], settled: Sequence[Settled]) -> Sighting:
    one = placed[index]
    blank = Sighting(
        one.carried,
        share_inside(one.mask, one.scene),
        settled=settled[index],
        agreement=_agreement(one),
        stands_out=one.look.spreads,
        contrast=one.look.contrast,
    )
    if blank.inside < one.scene.rules.inside_share or one.carried.is_empty or not one.of_one_kind:
        return blank
    region = _Region(index, placed, settled)
    blank = replace(blank, remains=region.remains())
    if not one.decisive:
        # Among tissues of many kinds its own brightness says little.
        return blank
    found, likeness = region.lesion_like(one.look)
    parts = region.parts(found)
    if not parts and one.carried.voxels < SMALL and blank.agreement < ALIGNED:
        # A few voxels are not missed where the scans hardly meet.
        return blank
    around = region.connected(found, parts)
    return replace(blank, parts=tuple(parts), around=around, decisive=True, likeness=likeness)


def _agreement(one: Sought) -> float:
    """How alike both scans are around the lesion."""
    radius_mm = one.mask.equivalent_diameter_mm / 2 + _AROUND_MM
    return align_quality(one.scene.baseline, one.scene.followup, one.scene.alignment, one.mask.centroid_mm, radius_mm)


class _Region:
    """The follow-up around one lesion's place, with the aligned baseline and the other lesions on its grid."""

    def __init__(self, index: int, placed: Sequence[Sought], settled: Sequence[Settled]) -> None:
        one = placed[index]
        self.one, self.rules, self.scene = one, one.scene.rules, one.scene
        diameter_mm = one.carried.equivalent_diameter_mm
        self.reach_mm = float(np.clip(diameter_mm / 4, *self.rules.reach_mm))
        self.merge_mm = float(np.clip(diameter_mm / 2, *self.rules.merge_mm))
        native, _ = surroundings(one.scene.followup.geometry, one.carried, self.merge_mm + 6.0)
        coarsest = np.maximum(native.spacing_mm, native.spacing_mm * np.array(native.shape) / _WORKING_SIDE)
        self.grid = native if np.allclose(coarsest, native.spacing_mm) else native.respaced(coarsest)
        self.followup, self.baseline = one.on(self.grid)
        self.places = [place_on(other.carried, self.grid) for other in placed]
        self.index = index
        if not self.places[index].any():
            start, stop = self.grid.clip(*self.grid.around(one.carried.deepest_mm[None])) or ((0, 0, 0), (1, 1, 1))
            self.places[index][tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
        claims = [None if place.claim is None else place.claim.centre_mm for place in settled]
        self.claimed = [None if at is None or not self.grid.contains(at[None])[0] else at for at in claims]
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
        smooth_now = smoothed(self.followup, self.grid, self.one)
        now = alike(smooth_now, around, level, gain * look.inside_spread)
        before = alike(smoothed(self.baseline, self.grid, self.one), look.around, look.inside, look.inside_spread)
        # A voxel of slack on what was there before: alignments are not exact at the border of a vessel or a rib.
        explained = ndimage.binary_dilation(before & ~ndimage.binary_dilation(any_lesion, _EVERYWHERE)) & ~any_lesion
        found = now & ~explained & (self.distance <= self.merge_mm)
        near = found & (self.distance <= self.rules.tolerance_mm)
        left = float(np.median(smooth_now[near])) - around if near.any() else 0.0
        return found, float(np.clip(left / (level - around), 0.0, 1.0)) if level != around else 0.0

    def remains(self) -> Remains | None:
        """What is left at the place."""
        others = np.logical_or.reduce([place for i, place in enumerate(self.places) if i != self.index] or [_NONE])
        before, place = self._gain() * self.baseline, self.places[self.index]
        return remains_of(before, self.followup, place, others & ~place, self.grid.spacing_mm)

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
        if ours >= _OWN_SHARE * int(self.places[self.index].sum()):
            return True
        others = [int(np.count_nonzero(part & place)) for i, place in enumerate(self.places) if i != self.index]
        return ours >= max(others, default=0) and not self._is_claimed(part)

    def _is_claimed(self, part: Bool[np.ndarray, "d h w"]) -> bool:
        """Whether a part is another lesion's, and not this one's."""
        owners = [i for i, at_mm in enumerate(self.claimed) if at_mm is not None and self._holds(part, at_mm)]
        return bool(owners) and self.index not in owners

    def _holds(self, part: Bool[np.ndarray, "d h w"], at_mm: Float[np.ndarray, "3"]) -> bool:
        index = np.round(self.grid.world_to_index(at_mm[None])[0]).astype(int)
        return bool(part[tuple(np.clip(index, 0, np.array(part.shape) - 1))])

    def _gain(self) -> float:
        tissue = self.distance > self.rules.tolerance_mm
        return gain_of(self.scene.followup.modality, self.baseline, self.followup, tissue)

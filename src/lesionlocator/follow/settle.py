"""Where all lesions of a patient went beyond what an alignment says: decided for all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from lesionlocator.follow.scene import Sought, alike, gain_of, place_on, smoothed, surroundings
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask

REACH_MM = 16.0
"""How far off an alignment may be and still be mended."""
_ROOM_MM = 6.0
"""Around the reach, so that what lies at its end is seen whole."""
_SIDE = 56
"""Most voxels along an axis of the region that is searched."""
_SIZES = (0.12, 8.0)
"""What is taken for the lesion again may have this share of its volume, and this many times it."""
_TOGETHER_MM = 45.0
"""Lesions further apart than this hardly move together."""
_SAME_MM = 2.5
"""Two displacements that differ by this are one."""
_LIKELY_MM = 12.0
"""A shift of all of them by as much is not likely to begin with."""
_MORE = 0.8
"""So many more lesions have to be explained by a shift before the alignment is left."""
_APART_MM, _TIMES, _DIMMER = 4.0, np.log(2.5), 0.4
"""One unit of what a claim costs: distance from the expected place, change of volume, share of the contrast lost."""
_ABSENT = 6.0
"""What it costs to claim nothing."""
_BYSTANDER = 0.5
"""What else looks like a lesion and was there before moves with the tissue too, but is not outlined by a reader."""


@dataclass(frozen=True, eq=False)
class Spot:
    """Something in the follow-up that looks like a lesion: where, how large, how much of the contrast it has."""

    centre_mm: Float[np.ndarray, "3"]
    volume_ml: float
    share: float
    mask: Mask


@dataclass(frozen=True, eq=False)
class Settled:
    """Where one lesion is, as judged together with all others.

    `shift_mm` is added to where the alignment carries it: what its neighbours agree on. `claim` is the spot that is
    this lesion's and no other's, if there is one; `apart_mm` how far it lies from the shifted place. `margin` is what
    the next best reading would cost more (in units of `_APART_MM` and so on, squared and halved), at most `_ABSENT`.
    """

    shift_mm: Float[np.ndarray, "3"]
    claim: Spot | None
    apart_mm: float
    margin: float

    @property
    def sureness(self) -> float:
        """The margin from 0 to 1; 0 without a claim."""
        return self.margin / _ABSENT if self.claim is not None else 0.0


def settle(sought: Sequence[Sought]) -> list[Settled]:
    """The places of all lesions that are looked for in one scan, in their order.

    Everything that looks like a lesion near one of them is a spot. A common shift is the one that brings most lesions
    (and other things like them that were there before) of a neighbourhood onto spots of their size; it is believed
    only when it explains clearly more of them than no shift. Then each lesion, and each of those other things, claims
    one spot or none, all at the least total cost: no spot is claimed twice, and neighbours are not swapped.
    """
    seen = [_around(index, sought) for index in range(len(sought))]
    spots = _merged([spot for mine, _ in seen for spot in mine])
    bystanders = _merged([spot for _, others in seen for spot in others])
    still = np.zeros(3)
    if not spots:
        return [Settled(still, None, 0.0, 0.0) for _ in sought]
    table = _Table(sought, bystanders, spots)
    shifts = np.stack([table.common_shift(index) for index in range(table.tracks)])
    costs = table.costs(shifts)
    claims = _claims(costs)
    found: list[Settled] = []
    for index in range(len(sought)):
        claimed = claims.get(index)
        if claimed is None:
            found.append(Settled(shifts[index], None, 0.0, float(max(0.0, costs[index].min() - _ABSENT))))
            continue
        apart = float(np.linalg.norm(table.moved_mm[index, claimed] - shifts[index]))
        found.append(Settled(shifts[index], spots[claimed], apart, _margin(costs, index, claimed)))
    return found


class _Table:
    """Every lesion and bystander against every spot."""

    def __init__(self, sought: Sequence[Sought], bystanders: Sequence[Spot], spots: Sequence[Spot]) -> None:
        self.tracks = len(sought) + len(bystanders)
        self.lesions = len(sought)
        there = [_middle(one) for one in sought]
        self.at_mm = np.stack([*there, *(one.centre_mm for one in bystanders)])
        volumes = np.array([*(one.mask.volume_ml for one in sought), *(one.volume_ml for one in bystanders)])
        shares = np.array([*(1.0 for _ in sought), *(one.share for one in bystanders)])
        self.weight = np.array([1.0] * self.lesions + [_BYSTANDER] * len(bystanders))
        self.moved_mm = np.stack([spot.centre_mm for spot in spots])[None] - self.at_mm[:, None]
        ratio = np.array([spot.volume_ml for spot in spots])[None] / np.maximum(volumes, 1e-6)[:, None]
        self.growth = np.log(np.maximum(ratio, 1e-6))
        self.dimmer = np.array([spot.share for spot in spots])[None] - shares[:, None]
        near = np.linalg.norm(self.moved_mm, axis=2) <= REACH_MM + 2 * _APART_MM
        self.possible = near & (ratio >= _SIZES[0]) & (ratio <= _SIZES[1])

    def common_shift(self, index: int) -> Float[np.ndarray, "3"]:
        """The displacement that most of the neighbourhood of one lesion shows; nought when none is clearly better."""
        near = self.weight * np.exp(-np.sum((self.at_mm - self.at_mm[index]) ** 2, axis=1) / (2 * _TOGETHER_MM**2))
        part = np.flatnonzero((near > 0.1) & self.possible.any(axis=1))
        part = part[np.argsort(-near[part], kind="stable")[:16]]
        still = np.zeros(3)
        if not len(part):
            return still
        moved, possible, near = self.moved_mm[part], self.possible[part], near[part]
        like = np.where(possible, np.exp(-(self.growth[part] ** 2) / (2 * _TIMES**2)), 0.0)
        tries = np.concatenate([still[None], moved[possible]])
        tries = tries[np.linalg.norm(tries, axis=1) <= REACH_MM]
        close = np.exp(-_squared(moved[None], tries[:, None, None]) / (2 * _SAME_MM**2))
        explained = ((like[None] * close).max(axis=2) * near).sum(axis=1)
        explained = explained * np.exp(-np.sum(tries**2, axis=1) / (2 * _LIKELY_MM**2))
        best = int(np.argmax(explained))
        if explained[best] < explained[0] + _MORE:
            return still
        return self._averaged(tries[best], moved, like, near)

    @staticmethod
    def _averaged(shift: np.ndarray, moved: np.ndarray, like: np.ndarray, near: np.ndarray) -> np.ndarray:
        for _ in range(4):
            weight = like * np.exp(-_squared(moved, shift) / (2 * _SAME_MM**2)) * near[:, None]
            shift = (weight[..., None] * moved).sum(axis=(0, 1)) / max(float(weight.sum()), 1e-9)
        return shift

    def costs(self, shifts: Float[np.ndarray, "tracks 3"]) -> Float[np.ndarray, "tracks spots"]:
        """What each claim costs; infinite where it is out of the question."""
        apart = _squared(self.moved_mm, shifts[:, None]) / _APART_MM**2
        cost = (apart + (self.growth / _TIMES) ** 2 + (self.dimmer / _DIMMER) ** 2) / 2
        return np.where(self.possible, cost, np.inf)


def _claims(costs: Float[np.ndarray, "tracks spots"]) -> dict[int, int]:
    """Track -> its spot, at the least total cost; claiming nothing costs `_ABSENT`."""
    tracks, spots = costs.shape
    square = np.full((tracks, spots + tracks), 1e6)
    square[:, :spots] = np.where(np.isfinite(costs), costs, 1e6)
    square[np.arange(tracks), spots + np.arange(tracks)] = _ABSENT
    rows, columns = linear_sum_assignment(square)
    return {int(row): int(column) for row, column in zip(rows, columns, strict=True) if column < spots}


def _margin(costs: Float[np.ndarray, "tracks spots"], index: int, claimed: int) -> float:
    """What it would cost more if this lesion claimed another spot or none, or if another one claimed its."""
    own = float(costs[index, claimed])
    others = np.delete(costs[index], claimed)
    rivals = np.delete(costs[:, claimed], index)
    least = [_ABSENT, *(float(values.min()) for values in (others, rivals) if len(values))]
    return float(np.clip(min(least) - own, 0.0, _ABSENT))


def _around(index: int, sought: Sequence[Sought]) -> tuple[list[Spot], list[Spot]]:
    """Spots around one lesion in the follow-up, and what looked like them in the baseline and is no lesion."""
    one = sought[index]
    if one.carried.is_empty or not one.decisive:
        return [], []
    native, _ = surroundings(one.scene.followup.geometry, one.carried, REACH_MM + _ROOM_MM)
    coarsest = np.maximum(native.spacing_mm, native.spacing_mm * np.array(native.shape) / _SIDE)
    finest = np.maximum(coarsest, min(3.0, one.carried.equivalent_diameter_mm / 6))
    grid = native if np.allclose(finest, native.spacing_mm) else native.respaced(finest)
    now, before = one.on(grid)
    places = np.logical_or.reduce([place_on(other.carried, grid) for other in sought])
    tissue = ~ndimage.binary_dilation(places, iterations=2)
    gain = gain_of(one.scene.followup.modality, before, now, tissue)
    look = one.look
    spots = _spots(now, grid, (gain * look.around, gain * look.inside, gain * look.inside_spread), one)
    known = _spots(before, grid, (look.around, look.inside, look.inside_spread), one)
    return spots, [spot for spot in known if not (spot.mask.on(grid) & places).any()]


def _spots(
    array: Float[np.ndarray, "d h w"], grid: Geometry, look: tuple[float, float, float], one: Sought
) -> list[Spot]:
    """Connected parts on the lesion's side of half-way that lie wholly in the grid and have about its size."""
    around, inside, spread = look
    smooth = smoothed(array, grid, one)
    labels, count = ndimage.label(alike(smooth, around, inside, spread))
    if not count:
        return []
    labels = np.asarray(labels)
    sizes_ml = np.bincount(labels.ravel(), minlength=count + 1) * grid.voxel_ml
    volume_ml = one.mask.volume_ml
    fitting = (sizes_ml >= _SIZES[0] * volume_ml) & (sizes_ml <= _SIZES[1] * volume_ml)
    fitting[_at_the_border(labels, one, grid)] = False
    fitting[0] = False
    found: list[Spot] = []
    boxes = ndimage.find_objects(labels)
    for label in np.flatnonzero(fitting):
        part = labels == label
        share = float((np.median(smooth[boxes[label - 1]][part[boxes[label - 1]]]) - around) / (inside - around))
        mask = Mask.from_array(part, grid)
        found.append(Spot(mask.centroid_mm, float(sizes_ml[label]), share, mask))
    return found


def _at_the_border(labels: np.ndarray, one: Sought, grid: Geometry) -> np.ndarray:
    """Labels that are cut by a side of the grid which is not a side of the scan."""
    start, shape = one.scene.followup.geometry.world_to_index(grid.corners_mm), one.scene.followup.geometry.shape
    low, high = start.min(axis=0), start.max(axis=0)
    cut: list[np.ndarray] = []
    for axis in range(3):
        side = np.moveaxis(labels, axis, 0)
        if low[axis] > 0.5:
            cut.append(side[0].ravel())
        if high[axis] < shape[axis] - 1.5:
            cut.append(side[-1].ravel())
    return np.unique(np.concatenate(cut)) if cut else np.zeros(0, int)


def _merged(spots: Sequence[Spot]) -> list[Spot]:
    """Each thing once: what was seen from several lesions is one spot."""
    kept: list[Spot] = []
    for spot in spots:
        if all(not _one_thing(spot, other) for other in kept):
            kept.append(spot)
    return kept


def _one_thing(one: Spot, other: Spot) -> bool:
    apart = float(np.linalg.norm(one.centre_mm - other.centre_mm))
    smaller = min(one.mask.equivalent_diameter_mm, other.mask.equivalent_diameter_mm)
    return apart < max(1.5, 0.3 * smaller)


def _middle(one: Sought) -> Float[np.ndarray, "3"]:
    if not one.carried.is_empty:
        return one.carried.centroid_mm
    return one.scene.alignment.forward(one.mask.centroid_mm[None])[0]


def _squared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.sum((one - other) ** 2, axis=-1)

"""Lesions carried from one scan to the next by the published tracker, all of them with one registration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Integer

from lesionlocator.geometry import Index3
from lesionlocator.network.gradicon import RegistrationNetwork
from lesionlocator.network.tracker import REGISTRATION_SIZE
from lesionlocator.published.ensemble import Ensemble, Flip, Look, passes
from lesionlocator.published.prompts import Painted
from lesionlocator.published.regrid import Region, Span, nearest_index
from lesionlocator.published.scan import PlannedScan, small, small_mask
from lesionlocator.published.windows import Gathered, gaussian, window, windows_for
from lesionlocator.volume import Mask

_SAME_LENGTH = 20
"""Scans whose slices differ by no more than this many are taken to cover the same part of the body."""
_NEAR = 2.0
"""A lesion that falls between the registration's voxels is looked for this many voxels around."""
_IN_ONE_WINDOW = 0.9
"""A lesion with less of it than this in the window round its middle is looked at in several (the published program
looks at the one, and cuts the rest off)."""
_BACKGROUND = -1.0
"""The lead where the tracker did not look, as the published program has it."""

Spot = tuple[Index3, Bool[np.ndarray, "_ _ _"]]


@dataclass(frozen=True, eq=False)
class Followed:
    """What the tracker says of one lesion: its outline (empty: it sees nothing), or that its place is not covered."""

    mask: Mask | None
    carried: Mask | None = None


def follow_all(
    baseline: PlannedScan, followup: PlannedScan, masks: Sequence[Mask], ensemble: Ensemble
) -> list[Followed]:
    """One answer for each outline of the baseline, in their order."""
    size = REGISTRATION_SIZE[0]
    first, second = covered(baseline, followup)
    depth = (first[1] - first[0], *baseline.shape[1:])
    spots: dict[int, Spot] = {}
    for number, mask in enumerate(masks):
        found = _cut(baseline.mask(mask), first)
        if found is not None:
            spots[number] = small_mask(found, (depth[0], depth[1], depth[2]), size)
    if not spots:
        return [Followed(None) for _ in masks]
    pair = small(baseline.flattened(size), first, size), small(followup.flattened(size), second, size)
    looks: dict[int, list[_Look]] = {number: [] for number in spots}
    for fold, flip in passes(ensemble):
        index = nearest_places(_registration(ensemble, fold), pair, flip, ensemble)
        for number, spot in carry_all(spots, index).items():
            looks[number].append(_Look(fold, flip, _on_followup(spot, followup.shape, second)))
    return _answers([looks.get(number, []) for number in range(len(masks))], followup, second, ensemble)


def covered(baseline: PlannedScan, followup: PlannedScan) -> tuple[Span, Span]:
    """The slices of both scans that show the same part of the body.

    All of them, unless one scan is over 20 slices longer: then the shorter one is slid along it, and the place where
    they differ least (mean squared, first on a tie) is taken. The differences at all places come from one product.
    """
    depths = baseline.shape[0], followup.shape[0]
    spans = (0, depths[0]), (0, depths[1])
    if abs(depths[0] - depths[1]) <= _SAME_LENGTH:
        return spans
    size = REGISTRATION_SIZE[0]
    long, short = sorted((baseline, followup), key=lambda scan: -scan.shape[0])
    offset = best_offset(long.flattened(size), short.flattened(size))
    span = offset, offset + short.shape[0]
    return (span, spans[1]) if long is baseline else (spans[0], span)


def best_offset(long: Float32[np.ndarray, "m h w"], short: Float32[np.ndarray, "n h w"]) -> int:
    """Where the shorter stack of slices differs least from the longer one; every place is tried, the last one too."""
    a, b = long.reshape(len(long), -1), short.reshape(len(short), -1)
    product = (a @ b.T).astype(np.float64)
    power = np.concatenate([[0], np.cumsum((a.astype(np.float64) ** 2).sum(axis=1))])
    places = range(len(long) - len(short) + 1)
    rest = np.arange(len(short))
    errors = [power[o + len(short)] - power[o] - 2 * product[o + rest, rest].sum() for o in places]
    return int(np.argmin(errors))


def nearest_places(
    network: RegistrationNetwork, pair: tuple[np.ndarray, np.ndarray], flip: Flip, ensemble: Ensemble
) -> Float32[np.ndarray, "3 n n n"]:
    """For each voxel of the follow-up its place in the baseline, in voxels of the registration's grid.

    Mirrored, both scans are, and the map is mirrored back.
    """
    size = pair[0].shape[0]
    with torch.inference_mode():
        both = [
            torch.from_numpy(np.ascontiguousarray(np.flip(scan, flip)))[None, None].to(ensemble.device) for scan in pair
        ]
        at = network(both[0], both[1]).on_grid((size, size, size))[0]
        if flip:
            at = at.flip([axis + 1 for axis in flip])
            for axis in flip:
                at[axis] = 1 - at[axis]
        return (at * (size - 1)).cpu().numpy()


def carry_all(spots: dict[int, Spot], at: Float32[np.ndarray, "3 n n n"]) -> dict[int, Spot]:
    """All outlines carried over by one map, nearest neighbour; those of which nothing arrives are left out.

    One too small to be hit arrives at the voxel that comes from nearest to it, if that is within two voxels.
    """
    size = at.shape[1]
    where = np.rint(at).astype(np.int32)
    inside = np.all((where >= 0) & (where < size), axis=0)
    flat = np.where(inside, (where[0] * size + where[1]) * size + where[2], size**3)
    moved: dict[int, Spot] = {}
    for numbers in _apart(spots):
        labels = np.zeros(size**3 + 1, np.int32)
        grid = labels[:-1].reshape(size, size, size)
        for label, number in enumerate(numbers, start=1):
            start, array = spots[number]
            grid[tuple(slice(a, a + n) for a, n in zip(start, array.shape, strict=True))][array] = label
        moved |= _read(labels[flat], numbers)
    for number in set(spots) - set(moved):
        if (spot := _nearest(spots[number], at)) is not None:
            moved[number] = spot
    return moved


@dataclass(frozen=True, eq=False)
class _Look:
    """One pass at one lesion: by which fold, in which mirror, and its carried-over outline in the follow-up."""

    fold: int
    flip: Flip
    prompt: Painted


def _answers(looks: list[list[_Look]], followup: PlannedScan, span: Span, ensemble: Ensemble) -> list[Followed]:
    windows = [[_windows(look, followup, span, ensemble.plans.patch) for look in lesion] for lesion in looks]
    followup.keep([one for lesion in windows for regions in lesion for one in regions] or [_nowhere()])
    found: list[Followed] = []
    for lesion, regions in zip(looks, windows, strict=True):
        found.append(_answer(lesion, regions, followup, ensemble) if lesion else Followed(None))
    return found


def _answer(lesion: list[_Look], regions: list[list[Region]], followup: PlannedScan, ensemble: Ensemble) -> Followed:
    gathered = Gathered([one for several in regions for one in several], half=False)
    weight = gaussian(ensemble.plans.patch)
    even = np.ones_like(weight)
    by_fold = {
        fold: [(look, r) for look, r in zip(lesion, regions, strict=True) if look.fold == fold]
        for fold in ensemble.folds
    }
    for fold, looks in by_fold.items():
        placed = [(look, one, len(several) > 1) for look, several in looks for one in several]
        asked = (Look(followup.region(one), look.prompt.on(one), look.flip) for look, one, _ in placed)
        for logits, (_, one, overlap) in zip(ensemble.logits(fold, asked), placed, strict=True):
            gathered.add(one, logits, weight if overlap else even)
    return Followed(followup.outlined(gathered.lead(_BACKGROUND), gathered.start, _BACKGROUND))


def _nowhere() -> Region:
    return (0, 1), (0, 1), (0, 1)


def _windows(look: _Look, followup: PlannedScan, span: Span, patch: Index3) -> list[Region]:
    """The window round the middle of a carried-over outline, or several where too much of it lies beyond that one."""
    shape = (span[1] - span[0], *followup.shape[1:])
    start = (look.prompt.start[0] - span[0], *look.prompt.start[1:])
    prompt = Painted((start[0], start[1], start[2]), look.prompt.array)
    found = [_middle_window(prompt, shape, patch, look.flip)]
    if prompt.on(found[0]).sum() < _IN_ONE_WINDOW * prompt.array.sum():
        found = windows_for(prompt, (shape[0], shape[1], shape[2]), patch)
    return [((d[0] + span[0], d[1] + span[0]), h, w) for d, h, w in found]


def _middle_window(prompt: Painted, shape: Sequence[int], patch: Index3, flip: Flip) -> Region:
    count = prompt.array.sum()
    starts: list[int] = []
    for axis in range(3):
        along = prompt.array.sum(axis=tuple(other for other in range(3) if other != axis), dtype=np.int64)
        middle = float(along @ np.arange(len(along)) / count) + prompt.start[axis]
        if axis in flip:
            # As seen in the mirror, then mirrored back: an even window has no middle voxel.
            mirrored = int(np.rint(np.float32(shape[axis] - 1 - middle))) - patch[axis] // 2
            starts.append(shape[axis] - mirrored - patch[axis])
        else:
            starts.append(int(np.rint(np.float32(middle))) - patch[axis] // 2)
    return window(starts, shape, patch)


def _on_followup(spot: Spot, shape: Index3, span: Span) -> Painted:
    """A carried-over outline of the registration's grid on the follow-up's resampled grid, nearest voxels."""
    start, array = spot
    sizes = (span[1] - span[0], *shape[1:])
    picked: list[np.ndarray] = []
    first: list[int] = []
    for a, n, new, shift in zip(start, array.shape, sizes, (span[0], 0, 0), strict=True):
        index = nearest_index(REGISTRATION_SIZE[0], new) - a
        hit = np.flatnonzero((index >= 0) & (index < n))
        if not len(hit):
            hit = np.array([min(int((a + n / 2) * new / REGISTRATION_SIZE[0]), new - 1)])
        picked.append(np.clip(index[hit], 0, n - 1))
        first.append(int(hit[0]) + shift)
    return Painted((first[0], first[1], first[2]), array[np.ix_(*picked)])


def _cut(found: Spot | None, span: Span) -> Spot | None:
    """The part of an outline between two slices, counted from the first."""
    if found is None:
        return None
    (d, h, w), array = found
    low, high = max(d, span[0]), min(d + array.shape[0], span[1])
    if high <= low or not array[low - d : high - d].any():
        return None
    return (low - span[0], h, w), array[low - d : high - d]


def _apart(spots: dict[int, Spot]) -> list[list[int]]:
    """The lesions in groups in which no two boxes overlap, so that each group fits in one label map."""
    groups: list[list[int]] = []
    for number, spot in spots.items():
        room = next((group for group in groups if not any(_meet(spot, spots[other]) for other in group)), None)
        if room is None:
            groups.append([number])
        else:
            room.append(number)
    return groups


def _meet(one: Spot, other: Spot) -> bool:
    return all(
        a < b + m and b < a + n for a, n, b, m in zip(one[0], one[1].shape, other[0], other[1].shape, strict=True)
    )


def _read(labels: Integer[np.ndarray, "n n n"], numbers: list[int]) -> dict[int, Spot]:
    from scipy import ndimage

    found: dict[int, Spot] = {}
    for label, slices in enumerate(ndimage.find_objects(labels, len(numbers)), start=1):
        if slices is not None:
            d, h, w = (int(one.start) for one in slices)
            found[numbers[label - 1]] = (d, h, w), labels[slices] == label
    return found


def _nearest(spot: Spot, at: Float32[np.ndarray, "3 n n n"]) -> Spot | None:
    start, array = spot
    middle = np.argwhere(array).mean(axis=0) + start
    distance = ((at - middle[:, None, None, None]) ** 2).sum(axis=0)
    index = np.unravel_index(int(np.argmin(distance)), distance.shape)
    if distance[index] > _NEAR**2:
        return None
    d, h, w = (int(v) for v in index)
    return (d, h, w), np.ones((1, 1, 1), bool)


def _registration(ensemble: Ensemble, fold: int) -> RegistrationNetwork:
    network = ensemble.network(fold)[1]
    if network is None:
        raise TypeError("an ensemble without a registration network cannot follow")
    return network

"""A second, small alignment around one lesion, by its surroundings alone: its own change leads nobody astray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import fft, ndimage

from lesionlocator.align.agreement import NOISE
from lesionlocator.align.view import to_grey
from lesionlocator.geometry import AffineMap, Alignment, Geometry, compose
from lesionlocator.resample import resample, warp
from lesionlocator.volume import Mask, Volume

FINEST_MM, COARSEST_MM = 1.5, 3.0
_AROUND_MM = 22.0
"""How much of the surroundings, beyond the lesion, takes part on each side."""
_RIM_MM = 4.0
"""Left out around the lesion: what a lesion grows into changes most."""
_BLOCKS = 3
"""Along each axis. What changed in one block of the 27 has one vote."""
_CLEARLY = 0.05
"""By so much the surroundings must agree better before the alignment is left."""
_APART_MM = 5.0
_BLUR = 0.7


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A place in the follow-up where the lesion may be, and how well the surroundings agree there (-1 to 1)."""

    place_mm: Float[np.ndarray, "3"]
    shift_mm: Float[np.ndarray, "3"]
    """Added to a place of the baseline before the alignment is asked."""
    agreement: float


@dataclass(frozen=True, eq=False)
class Nearby:
    """What was found around one lesion.

    `alignment` holds near the lesion only: the one that was given, moved by the first hypothesis' shift. `hypotheses`
    are best first, the chosen one in front; of two or more, one is the place that the given alignment says. None when
    the surroundings say nothing (too little in both scans), and then the alignment is the given one.
    """

    alignment: Alignment
    hypotheses: tuple[Hypothesis, ...]


def refine_near(
    baseline: Volume,
    followup: Volume,
    alignment: Alignment,
    lesion: Mask | Float[np.ndarray, "3"],
    reach_mm: float = 10.0,
    count: int = 3,
) -> Nearby:
    """Looks for the surroundings of a lesion within some millimetres of where an alignment says they went.

    The neighbourhood is cut into 27 blocks, each is compared by normalised cross-correlation at every shift within
    reach (by Fourier transform, Padfield 2012, doi 10.1109/TIP.2011.2181402), and the blocks' mean decides, so that
    a change in one of them moves nothing. The lesion itself and a rim around it take no part.

    Args:
        baseline: The scan in which the lesion is known.
        followup: The scan in which it is looked for.
        alignment: From baseline to follow-up, right to within `reach_mm` here.
        lesion: Its mask in the baseline, or its place in mm if there is no mask (5 mm around it are left out).
        reach_mm: The longest shift along each axis.
        count: The most hypotheses.
    """
    place_mm, radius_mm = _size(lesion)
    here = _grid(baseline, followup, place_mm, radius_mm + _RIM_MM + _AROUND_MM + reach_mm)
    steps = max(1, round(reach_mm / float(here.spacing_mm[0])))
    at_mm = here.index_to_world(np.indices(here.shape).reshape(3, -1).T.astype(float))
    both = baseline.geometry.contains(at_mm) & followup.geometry.contains(alignment.forward(at_mm))
    known = both.reshape(here.shape)
    taking_part = known & ~_left_out(lesion, here, at_mm)
    inner = np.zeros(here.shape, bool)
    inner[(slice(steps, -steps),) * 3] = True
    taking_part &= inner
    if taking_part.sum() < 0.25 * inner.sum():
        return Nearby(alignment, ())
    first = _prepared(resample(baseline, here), known, baseline)
    second = _prepared(warp(followup, here, alignment.forward), known, followup)
    scores = _scores(first, second, taking_part, steps)
    found = [
        Hypothesis(alignment.forward((place_mm + shift)[None])[0], shift, score)
        for shift, score in _peaks(scores, here, steps, count)
    ]
    shift = found[0].shift_mm
    if not shift.any():
        return Nearby(alignment, tuple(found))
    forward = compose(AffineMap.shift(shift), alignment.forward)
    backward = compose(alignment.backward, AffineMap.shift(-shift))
    return Nearby(Alignment(forward, backward, f"{alignment.method}, refined", alignment.warnings), tuple(found))


def _size(lesion: Mask | np.ndarray) -> tuple[np.ndarray, float]:
    if not isinstance(lesion, Mask):
        return np.asarray(lesion, float), 5.0
    centre = lesion.centroid_mm
    return centre, float(min(40.0, np.linalg.norm(lesion.points_mm - centre, axis=1).max()))


def _grid(baseline: Volume, followup: Volume, centre_mm: np.ndarray, half_mm: float) -> Geometry:
    own_mm = [float(np.cbrt(volume.geometry.voxel_ml * 1000)) for volume in (baseline, followup)]
    # A large lesion gets larger voxels: the work stays the same.
    spacing_mm = float(np.clip(max(*own_mm, half_mm / 28), FINEST_MM, COARSEST_MM))
    size = fft.next_fast_len(2 * round(half_mm / spacing_mm) + 1, real=True)
    affine = np.zeros((4, 4))
    affine[[0, 1, 2], [2, 1, 0]] = spacing_mm
    affine[:3, 3] = centre_mm - spacing_mm * (size - 1) / 2
    affine[3, 3] = 1
    return Geometry((size, size, size), affine)


def _left_out(lesion: Mask | np.ndarray, grid: Geometry, at_mm: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, "d h w"]:
    if isinstance(lesion, Mask):
        index = np.floor(grid.world_to_index(lesion.points_mm) + 0.5).astype(int)
        core = np.zeros(grid.shape, bool)
        core[tuple(index[np.all((index >= 0) & (index < grid.shape), axis=1)].T)] = True
        reach_mm = _RIM_MM
    else:
        core = (np.linalg.norm(at_mm - lesion, axis=1) <= grid.spacing_mm[0]).reshape(grid.shape)
        reach_mm = 5.0
    return ndimage.binary_dilation(core, iterations=max(1, round(reach_mm / float(grid.spacing_mm[0]))))


def _prepared(array: np.ndarray, known: np.ndarray, volume: Volume) -> Float[np.ndarray, "d h w"]:
    values = np.nan_to_num(array, posinf=0.0, neginf=0.0)
    smooth = ndimage.gaussian_filter(to_grey(values, known, volume.modality).astype(np.float32), _BLUR)
    return np.where(known, smooth, 0.0).astype(np.float32)


def _scores(first: np.ndarray, second: np.ndarray, part: np.ndarray, steps: int) -> Float[np.ndarray, "a a a"]:
    """Mean correlation of the blocks for each shift from -steps to steps; a block counts by its share of voxels."""
    shown, shown_squared = fft.rfftn(second), fft.rfftn(second**2)

    def together(weights: np.ndarray, other: np.ndarray) -> np.ndarray:
        whole = fft.irfftn(np.conj(fft.rfftn(weights)) * other, s=first.shape)
        return np.roll(whole, steps, (0, 1, 2))[(slice(0, 2 * steps + 1),) * 3]

    total, weight = np.zeros((2 * steps + 1,) * 3), 0.0
    edges = np.linspace(steps, first.shape[0] - steps, _BLOCKS + 1).astype(int)
    for block in np.ndindex(_BLOCKS, _BLOCKS, _BLOCKS):
        where = np.zeros(first.shape, np.float32)
        cut = tuple(slice(edges[b], edges[b + 1]) for b in block)
        where[cut] = part[cut]
        count = float(where.sum())
        if count < 0.2 * where[cut].size:
            continue
        mean = float((first * where).sum()) / count
        centred = (first - mean) * where
        spread_first = float((centred**2).sum()) / count
        spread_second = np.maximum(together(where, shown_squared) / count - (together(where, shown) / count) ** 2, 0)
        shared = together(centred, shown) / count
        total += count * shared / np.sqrt((spread_first + NOISE**2 / 4) * (spread_second + NOISE**2 / 4))
        weight += count
    return total / max(weight, 1.0)


def _peaks(
    scores: Float[np.ndarray, "a a a"], grid: Geometry, steps: int, count: int
) -> list[tuple[Float[np.ndarray, "3"], float]]:
    """Shifts in mm with their scores: the winner first, then the others by score, staying put always among them."""
    stay = (np.zeros(3), float(scores[steps, steps, steps]))
    apart = 2 * max(1, round(_APART_MM / float(grid.spacing_mm[0]))) + 1
    tops = np.argwhere(scores == ndimage.maximum_filter(scores, apart, mode="nearest"))
    # A top at the border of the reach goes on rising beyond it: that is no answer.
    tops = tops[np.all((tops > 0) & (tops < 2 * steps), axis=1)]
    order = np.argsort(-scores[tuple(tops.T)], kind="stable")[: max(1, count - 1)]
    moved = [(grid.affine[:3, :3] @ (_between(scores, top) - steps), float(scores[tuple(top)])) for top in tops[order]]
    ranked = sorted([stay, *moved], key=lambda pair: -pair[1])
    if ranked[0][1] < stay[1] + _CLEARLY:
        ranked = [stay, *(pair for pair in ranked if pair is not stay)]
    return ranked[: max(count, 1)]


def _between(scores: np.ndarray, top: np.ndarray) -> Float[np.ndarray, "3"]:
    """The top of the parabola through a voxel and its neighbours, along each axis."""
    found = top.astype(float)
    for axis in range(3):
        step = np.eye(3, dtype=int)[axis]
        below, here, above = (float(scores[tuple(top + n * step)]) for n in (-1, 0, 1))
        bend = below - 2 * here + above
        if bend < 0:
            found[axis] += float(np.clip((below - above) / (2 * bend), -0.5, 0.5))
    return found

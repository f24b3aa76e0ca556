"""How a lesion's brightness differs from what lies round it, and where the two divide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.optimize import isotonic_regression
from scipy.special import expit

from lesionlocator.geometry import Geometry
from lesionlocator.volume import bounds

_LEVELS = 48
_BLUR_LEVELS = 1.5
_FLOOR = 0.01
_LIMIT = 2.5
"""Odds that brightness alone can give or take."""


@dataclass(frozen=True)
class Rules:
    """How much shape, brightness and neighbours count, in log odds. One set for every kind of scan and lesion."""

    softness: float = 0.08
    """Distance from the ellipsoid, in radii, over which the odds change by one."""
    middle: float = 0.25
    """Odds that shape alone gives to the middle of a box: low, so that a ring can leave its core out."""
    middle_pet: float = 2.0
    """The same on PET, where a cold core belongs to the lesion."""
    neighbours: float = 2.0
    """Odds that neighbours of one opinion give."""
    beyond: float = 1.05
    """An outline stays within the box grown by this factor."""
    rounds: int = 8


@dataclass(frozen=True, eq=False)
class Prior:
    """What is believed before looking: log odds, where the lesion may be, and whose brightness counts (`asked`)."""

    odds: Float[np.ndarray, "d h w"]
    allowed: Bool[np.ndarray, "d h w"]
    asked: Bool[np.ndarray, "d h w"]


def separation(inside: Float[np.ndarray, " n"], outside: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """How much brighter, and how much darker, the one is than the other: one-sided Kolmogorov-Smirnov distances."""
    cuts = np.quantile(np.concatenate([inside, outside]), np.linspace(0.02, 0.98, 49))
    share = [np.searchsorted(np.sort(values), cuts, side="right") / len(values) for values in (inside, outside)]
    difference = share[1] - share[0]
    return max(0.0, float(difference.max())), max(0.0, float(-difference.min()))


def settle(
    bright: Float[np.ndarray, "d h w"],
    prior: Prior,
    start: Float[np.ndarray, "d h w"],
    grid: Geometry,
    rules: Rules,
) -> Float[np.ndarray, "d h w"]:
    """The belief, 0 to 1, that a voxel belongs to a lesion brighter than its surroundings (`bright` is 0 to 1).

    Estimates the brightness inside and outside from the belief, then the belief from brightness, shape and neighbours,
    in turns (mean field of a Potts model; Krähenbühl and Koltun 2011, arXiv:1210.5644, and GrabCut, Rother et al. 2004,
    doi:10.1145/1015706.1015720, with a soft shape).
    """
    levels = np.minimum((bright * _LEVELS).astype(int), _LEVELS - 1)
    sigma = float(grid.spacing_mm.min()) / grid.spacing_mm
    belief = np.where(prior.allowed, start, 0.0)
    for _ in range(rules.rounds):
        odds = prior.odds + _evidence(bright, levels, belief, prior.asked)
        for _ in range(2):
            agreement = 2 * ndimage.gaussian_filter(belief, sigma, truncate=3.0) - 1
            belief = np.where(prior.allowed, expit(odds + rules.neighbours * agreement), 0.0)
    return belief


def tightness(belief: Float[np.ndarray, "d h w"], in_box: Bool[np.ndarray, "d h w"]) -> float:
    """Overlap (intersection over union) of the box and the tight box of what was found, fragments left out."""
    found = bounds(main_parts(belief >= 0.5))
    if found is None:
        return 0.0
    tight = np.zeros(belief.shape, bool)
    tight[tuple(slice(a, b) for a, b in zip(*found, strict=True))] = True
    return float(np.count_nonzero(tight & in_box) / np.count_nonzero(tight | in_box))


def border_step(bright: Float[np.ndarray, "d h w"], belief: Float[np.ndarray, "d h w"], grid: Geometry) -> float:
    """How far brightness falls across the border, in standard deviations; negative when it rises."""
    inside = belief >= 0.5
    if inside.all() or not inside.any():
        return 0.0
    width_mm = 2.0 * float(np.sort(grid.spacing_mm)[1])
    within, beyond = (_nearer(part, width_mm, grid) for part in (inside, ~inside))
    scatter = np.sqrt((bright[within].var() + bright[beyond].var()) / 2 + 1e-4)
    return float((bright[within].mean() - bright[beyond].mean()) / scatter)


def main_parts(array: Bool[np.ndarray, "d h w"], share: float = 0.1) -> Bool[np.ndarray, "d h w"]:
    """Without the parts (26-connected) that are smaller than a share of the largest."""
    labels, number = ndimage.label(array, np.ones((3, 3, 3)))
    if number < 2:
        return array
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= share * sizes.max())[labels] & array


def _nearer(part: Bool[np.ndarray, "d h w"], width_mm: float, grid: Geometry) -> Bool[np.ndarray, "d h w"]:
    depth_mm = np.asarray(ndimage.distance_transform_edt(part, sampling=grid.spacing_mm))
    return part & (depth_mm <= width_mm)


def _evidence(
    bright: Float[np.ndarray, "d h w"],
    levels: Int[np.ndarray, "d h w"],
    inside: Float[np.ndarray, "d h w"],
    asked: Bool[np.ndarray, "d h w"],
) -> Float[np.ndarray, "d h w"]:
    """Log odds of brightness, halfway between two readings of it.

    The ratio of the two histograms finds a lesion that is only a little brighter, but takes half-bright border voxels
    for lesion; the distance from the midpoint of the two means puts the border of a clear lesion where it is.
    """
    weights = [np.where(asked, share, 0.0) for share in (inside, 1 - inside)]
    return (_by_histogram(levels, weights) + _by_midpoint(bright, weights)) / 2


def _by_histogram(levels: Int[np.ndarray, "d h w"], weights: list[np.ndarray]) -> Float[np.ndarray, "d h w"]:
    """Never falling: what is brighter than lesion is lesion."""
    counts = [np.bincount(levels.ravel(), weight.ravel(), _LEVELS) for weight in weights]
    shares = [ndimage.gaussian_filter1d(count, _BLUR_LEVELS, mode="constant") for count in counts]
    shares = [share / max(share.sum(), 1e-9) for share in shares]
    ratio = np.log((shares[0] + _FLOOR / _LEVELS) / (shares[1] + _FLOOR / _LEVELS))
    rising = isotonic_regression(ratio, weights=shares[0] + shares[1] + 1e-4).x
    return np.clip(rising, -_LIMIT, _LIMIT)[levels]


def _by_midpoint(bright: Float[np.ndarray, "d h w"], weights: list[np.ndarray]) -> Float[np.ndarray, "d h w"]:
    """Two classes of one spread, as in Chan and Vese 2001 (doi:10.1109/83.902291)."""
    totals = [max(float(weight.sum()), 1e-9) for weight in weights]
    inside, outside = (float((bright * weight).sum()) / total for weight, total in zip(weights, totals, strict=True))
    spread = (weights[0] * (bright - inside) ** 2 + weights[1] * (bright - outside) ** 2).sum() / sum(totals)
    if inside <= outside:
        return np.zeros(bright.shape)
    return np.clip((bright - (inside + outside) / 2) * (inside - outside) / (spread + 1e-4), -_LIMIT, _LIMIT)

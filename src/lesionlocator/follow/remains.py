"""What is left of a lesion at its place in a later scan, read off both scans without outlining anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

_SHELL_MM = (2.0, 10.0)
"""What a lesion is compared with lies so far from its border."""
_FEWEST = 8
_MUCH = 4.5
"""So many times more than its surroundings a place may have changed; more says no more."""
_CLEAR = 4.0
"""A lesion that stands out by so many spreads of what its surroundings changed by is well seen."""


@dataclass(frozen=True)
class Remains:
    """How the place of a lesion has changed beside its surroundings, which have changed too.

    `lost` is the share of its contrast that went: 0 for nothing, 1 for all of it. `pattern` (about 0 to 1) is how much
    of what stood out there, voxel by voxel, still does, less where it was hard to see. `changed` is how much more the
    place changed than its surroundings: the logarithm of the ratio.
    """

    lost: float
    pattern: float
    changed: float


def remains_of(
    before: Float[np.ndarray, "d h w"],
    now: Float[np.ndarray, "d h w"],
    inside: Bool[np.ndarray, "d h w"],
    others: Bool[np.ndarray, "d h w"],
    spacing_mm: Float[np.ndarray, "3"],
) -> Remains | None:
    """What is left of a lesion at its place; None where there is too little around to compare with.

    Args:
        before: The earlier scan, as it lies in the later one, on its scale.
        now: The later scan on the same grid.
        inside: The lesion's place.
        others: The places of other lesions, which are not counted.
        spacing_mm: Of the grid.
    """
    distance = np.asarray(ndimage.distance_transform_edt(~inside, sampling=spacing_mm))
    shell = (distance > _SHELL_MM[0]) & (distance <= _SHELL_MM[1]) & ~others
    radius_mm = float(np.cbrt(np.count_nonzero(inside) * np.prod(spacing_mm) * 3 / (4 * np.pi)))
    near = ~inside & (distance <= max(4.0, 0.6 * radius_mm) + 2.0) & ~others
    if not inside.any() or np.count_nonzero(shell) < _FEWEST or np.count_nonzero(near) < _FEWEST:
        return None
    before, now = (ndimage.gaussian_filter(array, np.minimum(0.7, 0.7 / spacing_mm)) for array in (before, now))
    change = now - before
    usual = float(np.median(change[shell]))
    spread = 1.4826 * float(np.median(np.abs(change[shell] - usual)))
    contrast = float(np.median(before[inside]) - np.median(before[shell]))
    lost = (usual - float(np.median(change[inside]))) / contrast if contrast else 0.0
    width = max(0.6 * radius_mm, 1.5) / spacing_mm
    stood_out, stands_out = (_above(array, inside, near, width) for array in (before, now))
    energy = float(np.mean(stood_out**2))
    left = float(np.mean(stands_out * stood_out)) / energy if energy else 0.0
    clear = float(np.tanh(np.sqrt(energy) / max(spread, 1e-6) / _CLEAR))
    ratio = float(np.median(np.abs(change[inside] - usual))) / max(
        float(np.median(np.abs(change[shell] - usual))), 1e-6
    )
    return Remains(
        lost=float(np.clip(lost, -0.5, 1.2)),
        pattern=float(np.clip(left, -1.0, 1.5)) * clear,
        changed=float(np.log(np.clip(ratio, 0.05, _MUCH))),
    )


def _above(
    array: Float[np.ndarray, "d h w"],
    inside: Bool[np.ndarray, "d h w"],
    near: Bool[np.ndarray, "d h w"],
    width: Float[np.ndarray, "3"],
) -> Float[np.ndarray, " n"]:
    """What is inside, less what the tissue near by would be there: its mean, weighted by distance."""
    weights = near.astype(float)
    summed = ndimage.gaussian_filter(array * weights, width)
    counted = ndimage.gaussian_filter(weights, width)
    usual = np.where(counted > 1e-6, summed / np.maximum(counted, 1e-6), np.median(array[near]))
    return (array - usual)[inside]

"""Peak uptake of a lesion in PET: the highest mean in a ball of one millilitre whose centre is in the lesion.

Reference: Wahl et al. 2009, PERCIST 1.0, doi:10.2967/jnumed.108.057307.
"""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float

from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask, Volume

RADIUS_MM = (3000 / (4 * np.pi)) ** (1 / 3)
_FINE = 5


def measure_peak(volume: Volume, mask: Mask) -> float | None:
    """The peak in the scan's unit; None where no such ball lies wholly in numbers."""
    from scipy import ndimage

    covered = volume.geometry.clip(*volume.geometry.around(mask.geometry.corners_mm, RADIUS_MM + 1))
    if covered is None or mask.is_empty:
        return None
    part = volume.crop(*covered)
    known = np.isfinite(part.array)
    ball = _ball(part.geometry)
    sums = ndimage.convolve(np.where(known, part.array, 0.0).astype(np.float64), ball, mode="constant")
    shares = ndimage.convolve(known.astype(np.float64), ball, mode="constant")
    inside = mask.on(part.geometry) & (shares > 0.999)
    return float(sums[inside].max()) if inside.any() else None


def _ball(geometry: Geometry) -> Float[np.ndarray, "_ _ _"]:
    """How much of each voxel round the centre is in the ball, together 1."""
    reach = np.ceil(RADIUS_MM / geometry.spacing_mm + 0.5).astype(int)
    axes = [np.arange(-count, count + 1, dtype=float) for count in reach]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    fine = (np.arange(_FINE) + 0.5) / _FINE - 0.5
    weights = np.zeros(grid.shape[:3])
    for offset in itertools.product(fine, repeat=3):
        at_mm = np.einsum("ij,...j->...i", geometry.affine[:3, :3], grid + np.array(offset))
        weights += np.sum(at_mm**2, axis=-1) <= RADIUS_MM**2
    return weights / weights.sum()

"""How well two scans agree once aligned: local correlation, blind to contrast and brightness."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from lesionlocator.align.view import View
from lesionlocator.geometry import Alignment, PointMap
from lesionlocator.resample import sample
from lesionlocator.volume import Volume

NOISE = 0.02
"""Grey values (of 0 to 1) that differ less than this are taken for equal: 30 HU in CT."""


def likeness(baseline: View, followup: View, forward: PointMap) -> float:
    """Mean local correlation over the body that both show (-1 to 1), times the root of the share that both show.

    0 when nothing is shown by both.
    """
    at, index, both = _brought_together(baseline, followup, forward)
    if not both.any():
        return 0.0
    moved = np.zeros(baseline.array.shape, np.float32)
    moved[tuple(at.T)] = ndimage.map_coordinates(followup.array, index, order=1, mode="nearest", output=np.float32)
    local = local_correlation(baseline.array, moved, both)
    return float(local[both].mean()) * float(np.sqrt(_share(both, baseline, followup)))


def share_shown(baseline: View, followup: View, forward: PointMap) -> float:
    """How much of the smaller body lies in the other scan's body, from 0 to 1."""
    *_, both = _brought_together(baseline, followup, forward)
    return _share(both, baseline, followup)


def _brought_together(
    baseline: View, followup: View, forward: PointMap
) -> tuple[Int[np.ndarray, "n 3"], Float[np.ndarray, "3 n"], Bool[np.ndarray, "d h w"]]:
    """The baseline's body voxels, where they lie in the follow-up's grid, and which voxels are body in both."""
    at = np.argwhere(baseline.body)
    index = followup.geometry.world_to_index(forward(baseline.geometry.index_to_world(at.astype(float)))).T
    nearest = np.floor(index + 0.5).astype(int)
    inside = np.all((nearest >= 0) & (nearest < np.array(followup.body.shape)[:, None]), axis=0)
    both = np.zeros(baseline.body.shape, bool)
    both[tuple(at[inside].T)] = followup.body[tuple(nearest[:, inside])]
    return at, index, both


def _share(both: np.ndarray, baseline: View, followup: View) -> float:
    return min(1.0, float(both.sum()) / min(int(baseline.body.sum()), int(followup.body.sum())))


def local_correlation(
    first: Float[np.ndarray, "d h w"], second: Float[np.ndarray, "d h w"], where: np.ndarray
) -> Float[np.ndarray, "d h w"]:
    """Correlation in the 5 x 5 x 5 voxels around each voxel, counting only voxels of `where`."""
    weight = where.astype(np.float32)
    count = np.maximum(ndimage.uniform_filter(weight, 5), 1e-3)

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(values * weight, 5) / count

    mean_first, mean_second = mean(first), mean(second)
    shared = mean(first * second) - mean_first * mean_second
    spread = (mean(first**2) - mean_first**2 + NOISE**2) * (mean(second**2) - mean_second**2 + NOISE**2)
    return shared / np.sqrt(np.maximum(spread, NOISE**4))


def align_quality(
    baseline: Volume, followup: Volume, alignment: Alignment, at_mm: Float[np.ndarray, "3"], radius_mm: float
) -> float:
    """How well both scans agree in the ball around a place of the baseline: their correlation there, from 0 to 1.

    0 when less than half of the ball lies inside both scans, or when one of them shows nothing but one value there.
    """
    axis = np.linspace(-radius_mm, radius_mm, 11)
    cube = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    here = at_mm + cube[np.linalg.norm(cube, axis=1) <= radius_mm]
    there = alignment.forward(here)
    both = baseline.geometry.contains(here) & followup.geometry.contains(there)
    if both.mean() < 0.5:
        return 0.0
    values = np.stack([sample(baseline, here[both]), sample(followup, there[both])]).astype(float)
    values -= values.mean(axis=1, keepdims=True)
    power = float(np.sqrt(np.prod((values**2).sum(axis=1))))
    return float(np.clip((values[0] * values[1]).sum() / power, 0, 1)) if power > 0 else 0.0

"""Resampling as the published plans ask for it: one matrix along each axis, so that any part can be had alone.

Trilinear and spline interpolation are linear and separable: value = weights @ samples along each axis. A matrix has a
row for each new voxel, so a region needs its rows only, and two resamplings after each other are one product.
`resample` cannot serve here: it works in millimetres and low-passes, the published program does neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Rows = Float[np.ndarray, "_ _"]
"""(new, old) weights."""
Span = tuple[int, int]
Region = tuple[Span, Span, Span]
Method = Literal["torch", "skimage"]

_NOTHING = 1e-7
_ROUNDING = 1e-6
_ANISOTROPIC = 3.0


@dataclass(frozen=True)
class Regrid:
    """How one kind of values is resampled: by which library's rules, with which order of spline.

    `separate_z` is what the plans say of resampling the axis of thick slices by itself, by the nearest slice: always,
    never, or (None) where slices are over three times as thick as pixels are wide.
    """

    method: Method
    order: int = 1
    separate_z: bool | None = False

    def rows(self, axis: int, old: int, new: int, spacings: Sequence[Sequence[float]]) -> Rows:
        """The matrix along an axis, for volumes that had and get these spacings."""
        if axis == self.thick_axis(spacings):
            return nearest_rows(old, new)
        return linear_rows(old, new) if self.order == 1 else _spline_rows(old, new, self.order)

    @property
    def clips(self) -> bool:
        """Whether values that overshoot the range of the input are cut off."""
        return self.method == "skimage" and self.order > 1

    def covers(self, share: Float[np.ndarray, "_ _ _"]) -> Bool[np.ndarray, "_ _ _"]:
        """Which voxels a label takes, of which it covers this share; exactly half is enough for scikit-image's way."""
        return share >= 0.5 - _ROUNDING if self.method == "skimage" else share > 0.5

    def thick_axis(self, spacings: Sequence[Sequence[float]]) -> int | None:
        """The axis that is resampled by itself, if one is."""
        if self.separate_z is False:
            return None
        for spacing in spacings:
            if self.separate_z or max(spacing) / min(spacing) > _ANISOTROPIC:
                thick = np.flatnonzero(np.isclose(max(spacing) / np.array(spacing), 1))
                return int(thick[0]) if len(thick) == 1 else None
        return None


def new_shape(old: Sequence[int], old_spacing: Sequence[float], spacing: Sequence[float]) -> tuple[int, int, int]:
    """How many voxels of `spacing` replace the old ones, rounded."""
    d, h, w = (int(np.round(a / b * n)) for a, b, n in zip(old_spacing, spacing, old, strict=True))
    return max(1, d), max(1, h), max(1, w)


@lru_cache(maxsize=64)
def linear_rows(old: int, new: int) -> Rows:
    """Linear interpolation between voxel centres, the border repeated (corners not aligned, no low-pass)."""
    # In float32, as torch computes it: which two voxels a new one lies between depends on that.
    scale = np.float32(old) / np.float32(new)
    at = np.maximum(scale * (np.arange(new, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    low = np.minimum(at.astype(int), old - 1)
    share = at - low.astype(np.float32)
    rows = np.zeros((new, old), np.float32)
    rows[np.arange(new), low] += 1 - share
    rows[np.arange(new), np.minimum(low + 1, old - 1)] += share
    return rows


def nearest_rows(old: int, new: int) -> Rows:
    """The voxel whose centre is nearest."""
    rows = np.zeros((new, old), np.float32)
    rows[np.arange(new), nearest_index(old, new)] = 1
    return rows


@lru_cache(maxsize=64)
def nearest_index(old: int, new: int) -> Int[np.ndarray, " new"]:
    """For every new voxel the old one that it lies in."""
    scale = np.float32(old) / np.float32(new)
    at = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * scale
    return np.minimum(at.astype(np.int64), old - 1)


@lru_cache(maxsize=64)
def _spline_rows(old: int, new: int, order: int) -> Rows:
    """What scikit-image's `resize` does along one axis, read off what it makes of single voxels."""
    from skimage.transform import resize

    if old == new:
        return np.eye(old, dtype=np.float32)
    rows = resize(np.eye(old), (new, old), order=order, mode="edge", anti_aliasing=False, clip=False)
    return np.where(np.abs(rows) < _NOTHING, 0, rows).astype(np.float32)


def used(rows: Rows) -> Span:
    """The first old voxel that these rows need, and the one after the last."""
    columns = np.flatnonzero(rows.any(axis=0))
    return int(columns[0]), int(columns[-1]) + 1


def supported(rows: Rows, span: Span) -> Span:
    """The new voxels that need no old one outside `span`; (0, 0) where there are none."""
    outside = rows[:, : span[0]].any(axis=1) | rows[:, span[1] :].any(axis=1)
    inside = np.flatnonzero(~outside)
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)


def touching(rows: Rows, span: Span) -> Span:
    """The new voxels that need an old one inside `span`; (0, 0) where there are none."""
    inside = np.flatnonzero(rows[:, span[0] : span[1]].any(axis=1))
    return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)


def apply(rows: Sequence[Rows], array: Shaped[np.ndarray, "_ _ _"]) -> Float[np.ndarray, "_ _ _"]:
    """The array resampled along its three axes, float32; the axis that shrinks most goes first."""
    out = np.asarray(array, np.float32)
    for axis in sorted(range(3), key=lambda axis: rows[axis].shape[0] / rows[axis].shape[1]):
        out = _along(rows[axis], out, axis)
    return np.ascontiguousarray(out)


def _along(rows: Rows, array: Float[np.ndarray, "_ _ _"], axis: int) -> Float[np.ndarray, "_ _ _"]:
    if axis == 0:
        return (rows @ array.reshape(array.shape[0], -1)).reshape(-1, *array.shape[1:])
    return np.matmul(rows, array) if axis == 1 else np.matmul(array, rows.T)

"""Prompts as the published models see them: a filled box, a ball, or an outline, on the resampled grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32

from lesionlocator.geometry import Index3
from lesionlocator.prompt import Box, Click, Prompt, Shape
from lesionlocator.published.regrid import Region
from lesionlocator.published.scan import PlannedScan

PromptKind = Literal["box", "point"]
BALL_RADIUS = 5


@dataclass(frozen=True, eq=False)
class Painted:
    """One lesion's prompt channel: `array` is its tight crop, which starts at `start` of the resampled grid."""

    start: Index3
    array: Bool[np.ndarray, "d h w"]

    @property
    def stop(self) -> Index3:
        d, h, w = (a + n for a, n in zip(self.start, self.array.shape, strict=True))
        return d, h, w

    def on(self, region: Region) -> Float32[np.ndarray, "d h w"]:
        """The channel in a region."""
        full = np.zeros([b - a for a, b in region], np.float32)
        low = [max(a, s) for (a, _), s in zip(region, self.start, strict=True)]
        high = [min(b, e) for (_, b), e in zip(region, self.stop, strict=True)]
        if all(b > a for a, b in zip(low, high, strict=True)):
            into = tuple(slice(i - a, j - a) for i, j, (a, _) in zip(low, high, region, strict=True))
            out_of = tuple(slice(i - s, j - s) for i, j, s in zip(low, high, self.start, strict=True))
            full[into] = self.array[out_of]
        return full


def paint_box(box: Box, scan: PlannedScan) -> Painted | None:
    """A box, in voxels of the scan, scaled and then one voxel larger on each side; None when it misses the crop."""
    corners = scan.volume.geometry.world_to_index(box.points_mm) + 0.5
    # A face lies on a voxel's border to the rounding error of its way through millimetres.
    ends = np.round(np.stack([corners.min(axis=0), corners.max(axis=0)]), 4)
    low, high = scan.to_planned(ends)
    size = np.array(scan.shape)
    start = np.clip(np.floor(np.round(low, 6)) - 1, 0, size)
    stop = np.clip(np.ceil(np.round(high, 6)) + 1, 0, size)
    if np.any(np.floor(low) >= size) or np.any(np.ceil(high) <= 0):
        return None
    return _filled(start, stop)


def paint_click(click: Click, scan: PlannedScan) -> Painted | None:
    """A ball of radius 5 round a click; None when it misses the crop."""
    index = np.round(scan.volume.geometry.world_to_index(click.points_mm), 4)
    return _ball(np.round(np.round(scan.to_planned(index)[0], 6)), scan.shape)


def paint_mask(shape: Shape, scan: PlannedScan, kind: PromptKind) -> Painted | None:
    """The box, or the ball at the centroid, of an outline in the resampled grid; None when it misses the crop."""
    found = scan.mask(shape.mask)
    if found is None:
        return None
    start, array = found
    if kind == "point":
        return _ball(np.round(np.argwhere(array).mean(axis=0) + start), scan.shape)
    stop = np.array(start) + array.shape
    return _filled(np.maximum(np.array(start) - 1, 0), np.minimum(stop + 1, np.array(scan.shape)))


def paint(prompts: Sequence[Prompt], scan: PlannedScan, kind: PromptKind) -> Painted | None:
    """Everything that says where one lesion is, in one channel; None when nothing of it lies in the crop."""
    found: list[Painted | None] = []
    for prompt in prompts:
        if isinstance(prompt, Shape):
            found.append(paint_mask(prompt, scan, kind))
        elif isinstance(prompt, Box) and kind == "box":
            found.append(paint_box(prompt, scan))
        elif isinstance(prompt, Click) and kind == "point":
            found.append(paint_click(prompt, scan))
    return _joined([one for one in found if one is not None])


def _filled(start: Float[np.ndarray, "3"] | np.ndarray, stop: Float[np.ndarray, "3"] | np.ndarray) -> Painted | None:
    if np.any(stop <= start):
        return None
    d, h, w = (int(v) for v in start)
    return Painted((d, h, w), np.ones(tuple((stop - start).astype(int)), bool))


def _ball(at: Float[np.ndarray, "3"], size: Index3) -> Painted | None:
    axes = np.ogrid[tuple(slice(-BALL_RADIUS, BALL_RADIUS + 1) for _ in range(3))]
    ball = axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2 <= (BALL_RADIUS + 0.5) ** 2
    low = at.astype(int) - BALL_RADIUS
    start, stop = np.maximum(low, 0), np.minimum(low + 2 * BALL_RADIUS + 1, size)
    if np.any(stop <= start):
        return None
    part = ball[tuple(slice(a - s, b - s) for a, b, s in zip(start, stop, low, strict=True))]
    d, h, w = (int(v) for v in start)
    return Painted((d, h, w), part) if part.any() else None


def _joined(parts: list[Painted]) -> Painted | None:
    if len(parts) <= 1:
        return parts[0] if parts else None
    start = np.min([part.start for part in parts], axis=0)
    stop = np.max([part.stop for part in parts], axis=0)
    region = tuple((int(a), int(b)) for a, b in zip(start, stop, strict=True))
    d, h, w = region
    array = np.maximum.reduce([part.on((d, h, w)) for part in parts]) > 0
    return Painted((d[0], h[0], w[0]), array)

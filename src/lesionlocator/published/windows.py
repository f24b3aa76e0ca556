"""Where the network looks: one window round a prompt, or overlapping, weighted ones over a large one."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float16, Float32, Shaped

from lesionlocator.geometry import Index3
from lesionlocator.published.prompts import Painted
from lesionlocator.published.regrid import Region

STEP = 0.5


def windows_for(painted: Painted, shape: Index3, patch: Index3, step: float = STEP) -> list[Region]:
    """The windows of size `patch` for one prompt on a grid of `shape`; they reach beyond a smaller grid."""
    first, last = painted.start, tuple(stop - 1 for stop in painted.stop)
    if all(b - a < size for a, b, size in zip(first, last, patch, strict=True)):
        starts = [int((a + b - size) / 2) for a, b, size in zip(first, last, patch, strict=True)]
        return [window(starts, shape, patch)]
    grid = [_steps(size, n, step) for size, n in zip(patch, shape, strict=True)]
    return [
        window(starts, shape, patch)
        for starts in itertools.product(*grid)
        if all(s < stop and s + size > a for s, size, a, stop in zip(starts, patch, first, painted.stop, strict=True))
        and painted.on(window(starts, shape, patch)).any()
    ]


def window(start: Sequence[int], shape: Sequence[int], patch: Sequence[int]) -> Region:
    """The window moved inside the grid, or centred over it where the grid is smaller."""
    moved = [
        min(max(s, 0), n - size) if n >= size else -((size - n) // 2)
        for s, n, size in zip(start, shape, patch, strict=True)
    ]
    d, h, w = ((int(s), int(s) + int(size)) for s, size in zip(moved, patch, strict=True))
    return d, h, w


@lru_cache(maxsize=4)
def gaussian(patch: Index3) -> Float16[np.ndarray, "d h w"]:
    """The weight of a window's voxels: 10 in its middle, nowhere zero, in half precision as the published program's."""
    from scipy import ndimage

    impulse = np.zeros(patch)
    impulse[tuple(size // 2 for size in patch)] = 1
    weights = ndimage.gaussian_filter(impulse, [size / 8 for size in patch], mode="constant")
    weights = (weights / weights.max() * 10).astype(np.float16)
    weights[weights == 0] = weights[weights > 0].min()
    return weights


def _steps(patch: int, size: int, step: float) -> list[int]:
    if size <= patch:
        return [0]
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    return [int(np.round((size - patch) / (count - 1) * i)) for i in range(count)]


class Gathered:
    """Logits gathered from windows: weighted sums and the weights that they came with.

    With `half`, sums are kept in half precision as the published segmentation keeps them, which shows where a logit is
    near zero or a weight is small; without, in single precision.
    """

    def __init__(self, regions: Sequence[Region], *, half: bool) -> None:
        start = [min(region[axis][0] for region in regions) for axis in range(3)]
        stop = [max(region[axis][1] for region in regions) for axis in range(3)]
        self.start: Index3 = (start[0], start[1], start[2])
        kind = np.float16 if half else np.float32
        shape = [b - a for a, b in zip(start, stop, strict=True)]
        self._sum, self._weight = np.zeros((2, *shape), kind), np.zeros(shape, kind)

    def add(self, region: Region, logits: Float32[np.ndarray, "2 d h w"], weight: Shaped[np.ndarray, "d h w"]) -> None:
        part = (slice(None), *(slice(a - s, b - s) for (a, b), s in zip(region, self.start, strict=True)))
        self._sum[part] = self._sum[part] + logits * weight.astype(np.float32)
        self._weight[part[1:]] += weight

    def lead(self, elsewhere: float) -> Float32[np.ndarray, "d h w"]:
        """How far the lesion's mean logit leads the background's; `elsewhere` where no window reached."""
        seen = self._weight > 0
        mean = np.divide(self._sum, self._weight, where=seen, out=np.zeros_like(self._sum)).astype(np.float32)
        return np.where(seen, mean[1] - mean[0], np.float32(elsewhere))

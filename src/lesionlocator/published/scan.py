"""A scan made ready for a published model: cropped, normalised and resampled, only where that is needed, and once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Shaped

from lesionlocator.geometry import Geometry, Index3
from lesionlocator.published.plans import Plans
from lesionlocator.published.regrid import (
    Region,
    Rows,
    Span,
    apply,
    linear_rows,
    nearest_index,
    new_shape,
    supported,
    touching,
    used,
)
from lesionlocator.volume import Mask, Volume

_SLAB_VOXELS = 16_000_000
_KEPT_VOXELS = 400_000_000
"""A resampled region of up to this many voxels (1.6 GB) is kept for all lesions; above, each window is made anew."""


class PlannedScan:
    """A scan in the grid of a model's plans, the "resampled" grid: all indices here are along its d, h, w."""

    def __init__(self, volume: Volume, plans: Plans) -> None:
        self.volume, self.plans = volume, plans
        self._kept: tuple[Region, Float[np.ndarray, "d h w"]] | None = None

    @cached_property
    def crop(self) -> tuple[Index3, Index3]:
        """Start and stop of the voxels that are not zero; the whole scan when all are."""
        spans = [_nonzero(self.volume.array, axis) for axis in range(3)]
        if any(span is None for span in spans):
            return (0, 0, 0), self.volume.geometry.shape
        (d0, d1), (h0, h1), (w0, w1) = (span or (0, 0) for span in spans)
        return (d0, h0, w0), (d1, h1, w1)

    @cached_property
    def cropped(self) -> Index3:
        """The shape of the crop."""
        start, stop = self.crop
        return stop[0] - start[0], stop[1] - start[1], stop[2] - start[2]

    @cached_property
    def shape(self) -> Index3:
        """The shape of the resampled grid."""
        return new_shape(self.cropped, self._spacing_mm, self.plans.spacing_mm)

    @cached_property
    def scan_rows(self) -> tuple[Rows, Rows, Rows]:
        return self._rows("scan")

    @cached_property
    def mask_rows(self) -> tuple[Rows, Rows, Rows]:
        return self._rows("mask")

    @cached_property
    def logit_rows(self) -> tuple[Rows, Rows, Rows]:
        """From the resampled grid back to the crop."""
        return self._rows("logits")

    def to_planned(self, index: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Native indices scaled to the resampled grid, as the published program scales prompts: 0 stays 0."""
        return (index - np.array(self.crop[0])) * (np.array(self.shape) / np.array(self.cropped))

    def keep(self, regions: Sequence[Region]) -> None:
        """Makes one region of the scan for all these windows, if that is no more work than one for each."""
        inside = [self._inside(region) for region in regions]
        union = tuple((min(r[a][0] for r in inside), max(r[a][1] for r in inside)) for a in range(3))
        size = _voxels(union)
        if self._kept is not None and _within(union, self._kept[0]):
            return
        if len(regions) > 1 and size <= min(sum(_voxels(r) for r in inside), _KEPT_VOXELS):
            self._kept = (_region(union), self._made(_region(union)))

    def region(self, region: Region) -> Float[np.ndarray, "d h w"]:
        """The normalised, resampled scan in a region, zero beyond the scan."""
        inside = self._inside(region)
        if self._kept is not None and _within(inside, self._kept[0]):
            found = self._kept[1][
                tuple(slice(a - k, b - k) for (a, b), (k, _) in zip(inside, self._kept[0], strict=True))
            ]
        else:
            found = self._made(inside)
        if inside == region:
            return found
        full = np.zeros([b - a for a, b in region], np.float32)
        full[tuple(slice(i - a, j - a) for (i, j), (a, _) in zip(inside, region, strict=True))] = found
        return full

    def flattened(self, size: int) -> Float[np.ndarray, "d n n"]:
        """All slices of the resampled scan, each shrunk to size x size, as the registration looks at them."""
        if self._flat is None or self._flat.shape[1] != size:
            self._flat = self._flattened(size)
        return self._flat

    _flat: Float[np.ndarray, "d n n"] | None = None

    def mask(self, mask: Mask) -> tuple[Index3, Bool[np.ndarray, "_ _ _"]] | None:
        """A lesion's outline in the resampled grid: where its tight crop starts, and the crop; None when it is empty.

        A lesion that vanishes by the published rule (a voxel counts where half of it is covered) is the voxels
        that its own voxels fall into.
        """
        found = self._native(mask)
        if found is None:
            return None
        start, array = found
        stop = [a + n for a, n in zip(start, array.shape, strict=True)]
        spans = [touching(rows, (a, b)) for rows, a, b in zip(self.mask_rows, start, stop, strict=True)]
        if all(b > a for a, b in spans):
            rows = [r[a:b, i:j] for r, (a, b), i, j in zip(self.mask_rows, spans, start, stop, strict=True)]
            tight = _tight(self.plans.regrid_mask.covers(apply(rows, array)), [a for a, _ in spans])
            if tight is not None:
                return tight
        at = np.minimum(
            (np.argwhere(array) + start + 0.5) * np.array(self.shape) / np.array(self.cropped), np.array(self.shape) - 1
        )
        index = at.astype(int)
        low, high = index.min(axis=0), index.max(axis=0)
        few = np.zeros(high - low + 1, bool)
        few[tuple((index - low).T)] = True
        return _tight(few, low.tolist())

    def outlined(self, lead: Float[np.ndarray, "d h w"], start: Index3, outside: float | None) -> Mask:
        """The outline where the lesion's logit leads the background's by more than nothing, on the scan's own grid.

        `lead` starts at `start` of the resampled grid. Beyond it the lead is `outside`; None leaves out every voxel
        that would look beyond it.
        """
        low = np.maximum(start, 0)
        high = np.minimum(np.array(start) + lead.shape, self.shape)
        kept = lead[tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))]
        reach = supported if outside is None else touching
        level = outside or 0.0
        spans = [reach(rows, (int(a), int(b))) for rows, a, b in zip(self.logit_rows, low, high, strict=True)]
        if any(b <= a for a, b in spans):
            return Mask.empty(self.volume.geometry)
        rows = [r[a:b, i:j] for r, (a, b), i, j in zip(self.logit_rows, spans, low, high, strict=True)]
        ahead = apply(rows, kept - np.float32(level)) + np.float32(level) > 0
        first = tuple(a + c for (a, _), c in zip(spans, self.crop[0], strict=True))
        last = tuple(b + c for (_, b), c in zip(spans, self.crop[0], strict=True))
        return Mask.from_array(ahead, self._geometry.crop((first[0], first[1], first[2]), (last[0], last[1], last[2])))

    @property
    def _geometry(self) -> Geometry:
        return self.volume.geometry

    @cached_property
    def _spacing_mm(self) -> tuple[float, ...]:
        return tuple(float(mm) for mm in self._geometry.spacing_mm)

    def _rows(self, what: str) -> tuple[Rows, Rows, Rows]:
        regrid = {"scan": self.plans.regrid_scan, "mask": self.plans.regrid_mask, "logits": self.plans.regrid_logits}[
            what
        ]
        old, new = (self.shape, self.cropped) if what == "logits" else (self.cropped, self.shape)
        spacings = (self._spacing_mm, self.plans.spacing_mm)
        if what == "logits":
            spacings = spacings[::-1]
        d, h, w = (regrid.rows(axis, old[axis], new[axis], spacings) for axis in range(3))
        return d, h, w

    def _inside(self, region: Region) -> Region:
        return _region(tuple((max(a, 0), min(b, n)) for (a, b), n in zip(region, self.shape, strict=True)))

    def _made(self, region: Region) -> Float[np.ndarray, "d h w"]:
        rows = [r[a:b] for r, (a, b) in zip(self.scan_rows, region, strict=True)]
        spans = [used(r) for r in rows]
        rows = [r[:, a:b] for r, (a, b) in zip(rows, spans, strict=True)]
        values = self._normalised(_region(tuple(spans)))
        found = apply(rows, values)
        return np.clip(found, *self._range(region), out=found) if self.plans.regrid_scan.clips else found

    def _normalised(self, region: Region) -> Float[np.ndarray, "d h w"]:
        """Clipped and z-scored values of a part of the crop. What is no number becomes the lowest value."""
        part = self.volume.array[tuple(slice(a + c, b + c) for (a, b), c in zip(region, self.crop[0], strict=True))]
        return self._as_planned(part)

    def _as_planned(self, part: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        values = np.clip(np.asarray(part, np.float32), *np.array(self.plans.clip, np.float32))
        values -= np.float32(self.plans.mean)
        values /= np.float32(self.plans.deviation)
        low = (self.plans.clip[0] - self.plans.mean) / self.plans.deviation
        return np.nan_to_num(values, copy=False, nan=low) if part.dtype.kind == "f" else values

    def _range(self, region: Region) -> Float[np.ndarray, "2 _ _ _"]:
        """The lowest and the highest value in a region: of the whole crop, or of each thick slice by itself."""
        axis = self._thick_axis
        if axis is None:
            return self._ranges
        return self._ranges.take(nearest_index(self.cropped[axis], self.shape[axis])[slice(*region[axis])], axis + 1)

    @cached_property
    def _ranges(self) -> Float[np.ndarray, "2 _ _ _"]:
        start, stop = self.crop
        part = self.volume.array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
        over = tuple(axis for axis in range(3) if axis != self._thick_axis)
        # What is no number counts as the lowest value: it makes the least one, and never the greatest.
        ends = part.min(axis=over, keepdims=True), np.fmax.reduce(part, axis=over, keepdims=True)
        return self._as_planned(np.stack(ends))

    @property
    def _thick_axis(self) -> int | None:
        return self.plans.regrid_scan.thick_axis((self._spacing_mm, self.plans.spacing_mm))

    def _flattened(self, size: int) -> Float[np.ndarray, "d n n"]:
        if self.plans.regrid_scan.clips:
            return self._flattened_as_made(size)
        shrink = [linear_rows(self.shape[axis], size) @ self.scan_rows[axis] for axis in (1, 2)]
        depth, height, width = self.cropped
        flat = np.empty((depth, size, size), np.float32)
        step = max(1, _SLAB_VOXELS // (height * width))
        for first in range(0, depth, step):
            last = min(first + step, depth)
            slab = self._normalised(((first, last), (0, height), (0, width)))
            flat[first:last] = np.matmul(np.matmul(shrink[0], slab), shrink[1].T)
        return apply((self.scan_rows[0], np.eye(size, dtype=np.float32), np.eye(size, dtype=np.float32)), flat)

    def _flattened_as_made(self, size: int) -> Float[np.ndarray, "d n n"]:
        # What is cut off between the two resamplings keeps them from being one product.
        depth, height, width = self.shape
        shrink = [linear_rows(self.shape[axis], size) for axis in (1, 2)]
        flat = np.empty((depth, size, size), np.float32)
        step = max(1, _SLAB_VOXELS // (height * width))
        for first in range(0, depth, step):
            last = min(first + step, depth)
            slab = self._made(((first, last), (0, height), (0, width)))
            flat[first:last] = np.matmul(np.matmul(shrink[0], slab), shrink[1].T)
        return flat

    def _native(self, mask: Mask) -> tuple[Index3, Bool[np.ndarray, "_ _ _"]] | None:
        """A mask as the part of it that lies in the crop, and where that starts in the crop."""
        start, stop = self.crop
        placed = mask.placed(self._geometry)
        part = placed.geometry.offset_in(self._geometry)
        if placed.is_empty or part is None:
            return None
        low = np.maximum(part, start)
        high = np.minimum(np.array(part) + placed.array.shape, stop)
        if np.any(high <= low):
            return None
        array = placed.array[tuple(slice(a - p, b - p) for a, b, p in zip(low, high, part, strict=True))]
        return _tight(array, [int(a - c) for a, c in zip(low, start, strict=True)])


def small(flat: Float[np.ndarray, "d n n"], span: Span, size: int) -> Float[np.ndarray, "n n n"]:
    """The slices of a span of a flattened scan, shrunk to size along d too."""
    rows = linear_rows(span[1] - span[0], size)
    return (rows @ flat[span[0] : span[1]].reshape(span[1] - span[0], -1)).reshape(size, size, size)


def small_mask(
    found: tuple[Index3, Bool[np.ndarray, "_ _ _"]], shape: Index3, size: int
) -> tuple[Index3, Bool[np.ndarray, "_ _ _"]]:
    """A mask of a grid of `shape` on the registration's grid: the nearest voxels, or the one at its middle."""
    start, array = found
    picked: list[np.ndarray] = []
    first: list[int] = []
    for a, n, old in zip(start, array.shape, shape, strict=True):
        index = nearest_index(old, size) - a
        hit = np.flatnonzero((index >= 0) & (index < n))
        picked.append(index[hit])
        first.append(int(hit[0]) if len(hit) else 0)
    tight = _tight(array[np.ix_(*picked)], first) if all(len(p) for p in picked) else None
    if tight is not None:
        return tight
    middle = (np.argwhere(array).mean(axis=0) + start + 0.5) * size / np.array(shape)
    d, h, w = (int(v) for v in np.clip(middle, 0, size - 1))
    return (d, h, w), np.ones((1, 1, 1), bool)


def _tight(array: Bool[np.ndarray, "_ _ _"], start: Sequence[int]) -> tuple[Index3, Bool[np.ndarray, "_ _ _"]] | None:
    from lesionlocator.volume import bounds

    found = bounds(array)
    if found is None:
        return None
    low, high = found
    d, h, w = (int(a + s) for a, s in zip(low, start, strict=True))
    return (d, h, w), array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]


def _nonzero(array: Shaped[np.ndarray, "d h w"], axis: int) -> Span | None:
    """First and last slice along an axis that is not all zero, looked for from both ends."""
    slices = np.moveaxis(array, axis, 0)
    first = next((i for i in range(len(slices)) if slices[i].any()), None)
    if first is None:
        return None
    last = next(i for i in reversed(range(len(slices))) if slices[i].any())
    return first, last + 1


def _region(spans: tuple[Span, ...]) -> Region:
    d, h, w = spans
    return d, h, w


def _voxels(spans: Sequence[Span]) -> int:
    return int(np.prod([max(0, b - a) for a, b in spans]))


def _within(inner: Sequence[Span], outer: Sequence[Span]) -> bool:
    return all(c <= a and b <= d for (a, b), (c, d) in zip(inner, outer, strict=True))

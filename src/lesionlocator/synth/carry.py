"""Scans and outlines carried through a point map: every voxel is interpolated once, and not at all where it rests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import ndimage

from lesionlocator.geometry import Geometry, Index3, PointMap, index3
from lesionlocator.volume import Mask, Volume

_NODE_MM = 4.0
"""Distance of the nodes at which a map is asked; between them it is linear where that is exact enough."""
_TOLERANCE = 0.1
"""Voxels by which that may be off; where it is more, the map is asked at every voxel."""
_AT_REST = 1e-4
"""Voxels. What moves less keeps its own value."""
_SLAB = 1_000_000
"""Voxels that are looked up at once."""
_SPLINE_REACH = 12
"""Voxels beyond which a cubic spline does not know of its neighbours any more (to 1e-6)."""

_FACE_POINTS = np.array([p for p in itertools.product(np.linspace(0, 1, 9), repeat=3) if {0.0, 1.0} & set(p)])


def carry_volume(source: Volume, onto: Geometry, to_source: PointMap | None, order: Literal[1, 3] = 3) -> Volume:
    """The scan as `onto` sees it: x shows the source at `to_source(x)` (None: nothing moves).

    Whole steps on one lattice move voxels as they are. Beyond the source lies its lowest value. Intensities keep to
    the source's range and to its kind of number.
    """
    start = onto.offset_in(source.geometry) if to_source is None else None
    if start is not None:
        return replace(source, array=_cut(source.array, start, onto.shape), geometry=onto)
    lookup = _Lookup(source.geometry, onto, to_source)
    part = source.geometry.clip(*lookup.reach(_SPLINE_REACH))
    fill = source.array.min()
    if part is None:
        return replace(source, array=np.full(onto.shape, fill, source.array.dtype), geometry=onto)
    whole_numbers = source.array.dtype.kind in "iub"
    out = np.empty(onto.shape, source.array.dtype if whole_numbers else np.float32)
    crop = source.crop(*part)
    plain = np.asarray(crop.array)
    knots = ndimage.spline_filter(plain, order, output=np.float32, mode="nearest") if order > 1 else plain
    low, high = plain.min(), plain.max()
    corner = np.array(part[0])
    for rows, index in lookup.slabs():
        values = _at(index - corner[:, None, None, None], knots, plain, order)
        values = np.clip(values, low, high)
        values[_beyond(index, source.geometry.shape)] = fill
        out[rows] = np.rint(values) if whole_numbers else values
    return replace(source, array=out, geometry=onto)


def carry_mask(
    mask: Mask, onto: Geometry, from_source: PointMap, to_source: PointMap | None, *, roughly: bool = False
) -> Mask:
    """The outline on the lattice of `onto`, also beyond its edges.

    It has as many voxels as its volume asks for under the map, at least one: those that it fills most. `roughly` asks
    the map at nodes only, also where it bends.
    """
    if mask.is_empty:
        return Mask.empty(onto)
    if to_source is None and mask.geometry.offset_in(onto) is not None:
        return mask
    span = np.array(mask.array.shape)
    at_mm = from_source(mask.geometry.index_to_world(_FACE_POINTS * span - 0.5))
    gap_mm = float((span * mask.geometry.spacing_mm).max()) / 8
    region = onto.crop(*onto.around(at_mm, gap_mm + 2 * float(onto.spacing_mm.max())))
    return _most_filled(_filled_share(mask, region, to_source, roughly), region)


def _filled_share(
    mask: Mask, region: Geometry, to_source: PointMap | None, roughly: bool
) -> Float[np.ndarray, "d h w"]:
    """How much of each voxel of the region the outline fills, with voxels larger than its own seen in parts."""
    d, h, w = mask.array.shape
    around = mask.geometry.crop((-2, -2, -2), (d + 2, h + 2, w + 2))
    padded = np.pad(mask.array, 2).astype(np.float32)
    parts = index3(np.maximum(1, np.ceil(region.spacing_mm / around.spacing_mm - 0.25)))
    fine = split_voxels(region, parts)
    share = np.zeros(fine.shape, np.float32)
    for rows, index in _Lookup(around, fine, to_source, roughly).slabs():
        share[rows] = _at(index, padded, padded, 1)
    return mean_of_parts(share, parts)


def split_voxels(geometry: Geometry, parts: Index3) -> Geometry:
    """The same extent with every voxel cut into so many along each axis."""
    affine = geometry.affine.copy()
    affine[:3, :3] /= np.array(parts)
    first = (1 / np.array(parts) - 1) / 2
    affine[:3, 3] = geometry.index_to_world(first[None])[0]
    return Geometry(index3(np.array(geometry.shape) * np.array(parts)), affine, geometry.frame)


def mean_of_parts(array: Float[np.ndarray, "D H W"], parts: Index3) -> Float[np.ndarray, "d h w"]:
    """The mean over the parts into which every voxel was cut."""
    if parts == (1, 1, 1):
        return array
    d, h, w = (n // p for n, p in zip(array.shape, parts, strict=True))
    return array.reshape(d, parts[0], h, parts[1], w, parts[2]).mean(axis=(1, 3, 5))


def _most_filled(share: Float[np.ndarray, "d h w"], region: Geometry) -> Mask:
    wanted = max(1, round(float(share.sum(dtype=np.float64))))
    flat = share.ravel()
    touched = np.flatnonzero(flat > 0)
    if len(touched) == 0:
        return Mask.empty(region)
    # Voxels that are filled alike are taken here and there, on all sides of the lesion, and the same on any computer.
    scattered = (touched * 2654435761) % 2**32
    order = np.lexsort((scattered, -np.rint(flat[touched] * 1e4)))
    chosen = np.zeros(flat.shape, bool)
    chosen[touched[order[:wanted]]] = True
    return Mask.from_array(chosen.reshape(share.shape), region)


@dataclass(frozen=True, eq=False)
class _Lookup:
    """For every voxel of a grid, the index in the source that it shows."""

    source: Geometry
    onto: Geometry
    to_source: PointMap | None
    roughly: bool = False

    def exactly(self, index: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        at_mm = self.onto.index_to_world(index)
        return self.source.world_to_index(at_mm if self.to_source is None else self.to_source(at_mm))

    @cached_property
    def stride(self) -> Int[np.ndarray, "3"]:
        return np.clip(np.round(_NODE_MM / self.onto.spacing_mm), 1, 8).astype(int)

    @cached_property
    def nodes(self) -> Float[np.ndarray, "3 d h w"]:
        counts = [(n - 1) // s + 2 for n, s in zip(self.onto.shape, self.stride, strict=True)]
        index = np.indices(counts).reshape(3, -1).T * self.stride.astype(float)
        return self.exactly(index).T.reshape(3, *counts)

    @cached_property
    def curved(self) -> Bool[np.ndarray, "d h w"]:
        """The cells between nodes in which linear interpolation is not good enough."""
        bend = np.zeros(self.nodes.shape[1:])
        for axis in range(1, 4):
            if self.nodes.shape[axis] > 2 and self.stride[axis - 1] > 1:
                second = np.abs(np.diff(self.nodes, 2, axis=axis)).max(axis=0) / 8
                pad = [(1, 1) if a == axis - 1 else (0, 0) for a in range(3)]
                bend += np.pad(second, pad, mode="edge")
        cells = np.asarray(ndimage.maximum_filter(bend, 3, mode="nearest")) > _TOLERANCE
        return cells[:-1, :-1, :-1]

    def reach(self, margin: int) -> tuple[Index3, Index3]:
        """The range of the source that is looked at."""
        flat = self.nodes.reshape(3, -1)
        return index3(np.floor(flat.min(axis=1)) - margin), index3(np.ceil(flat.max(axis=1)) + margin + 1)

    def slabs(self) -> Iterator[tuple[slice, Float[np.ndarray, "3 d h w"]]]:
        """Row ranges, each with the source index of its voxels."""
        depth, height, width = self.onto.shape
        rows = max(1, _SLAB // (height * width))
        for first in range(0, depth, rows):
            here = slice(first, min(first + rows, depth))
            between = self.nodes
            for axis, along in enumerate((np.arange(here.start, here.stop), np.arange(height), np.arange(width))):
                between = _between(between, axis + 1, along, int(self.stride[axis]))
            yield here, between if self.roughly else self._corrected(between, here)

    def _corrected(self, index: Float[np.ndarray, "3 d h w"], here: slice) -> Float[np.ndarray, "3 d h w"]:
        cells = [np.arange(n) // s for n, s in zip((here.stop, *self.onto.shape[1:]), self.stride, strict=True)]
        cells[0] = cells[0][here.start :]
        if not self.curved[np.unique(cells[0])].any():
            return index
        voxels = np.argwhere(self.curved[np.ix_(*cells)])
        index[:, *voxels.T] = self.exactly(voxels + np.array([here.start, 0.0, 0.0])).T
        return index


def _between(nodes: Float[np.ndarray, "3 d h w"], axis: int, along: np.ndarray, stride: int) -> np.ndarray:
    if stride == 1:
        return np.take(nodes, along, axis=axis)
    cell = along // stride
    share = ((along % stride) / stride).reshape([-1 if a == axis else 1 for a in range(4)])
    first = np.take(nodes, cell, axis=axis)
    return first + share * (np.take(nodes, cell + 1, axis=axis) - first)


def _at(
    index: Float[np.ndarray, "3 d h w"], knots: np.ndarray, plain: np.ndarray, order: int
) -> Float[np.ndarray, "d h w"]:
    """Interpolated values; the voxel's own where the index is that of a voxel."""
    nearest = np.rint(index)
    moving = (np.abs(index - nearest) > _AT_REST).any(axis=0)
    if moving.all():
        return ndimage.map_coordinates(knots, index, order=order, mode="nearest", output=np.float32, prefilter=False)
    limits = np.array(plain.shape)[:, None, None, None] - 1
    values = plain[tuple(np.clip(nearest, 0, limits).astype(np.intp))].astype(np.float32)
    if moving.any():
        values[moving] = ndimage.map_coordinates(
            knots, index[:, moving], order=order, mode="nearest", output=np.float32, prefilter=False
        )
    return values


def _beyond(index: Float[np.ndarray, "3 d h w"], shape: Index3) -> Bool[np.ndarray, "d h w"]:
    limits = np.array(shape)[:, None, None, None] - 0.5
    return np.any((index < -0.5 - _AT_REST) | (index > limits + _AT_REST), axis=0, keepdims=True)[0]


def _cut(array: Shaped[np.ndarray, "d h w"], start: Index3, shape: Index3) -> Shaped[np.ndarray, "D H W"]:
    """The part of an array from `start`, with its lowest value where there is nothing."""
    ends = [(a, a + n) for a, n in zip(start, shape, strict=True)]
    inner = tuple(slice(max(a, 0), max(min(b, n), 0)) for (a, b), n in zip(ends, array.shape, strict=True))
    if all(a >= 0 and b <= n for (a, b), n in zip(ends, array.shape, strict=True)):
        return array[inner]
    out = np.full(shape, array.min(), array.dtype)
    part = array[inner]
    if part.size:
        out[
            tuple(slice(s.start - a, s.start - a + n) for s, (a, _), n in zip(inner, ends, part.shape, strict=True))
        ] = part
    return out

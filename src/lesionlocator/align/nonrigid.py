"""Smooth deformation between two views: every displacement tried, the agreeable ones kept, invertible by construction.

Discrete search with a coupled convex smoothness term: Heinrich et al., WBIR 2014, doi 10.1007/978-3-319-08554-8_6. Each
round's answer is smoothed and taken as a velocity, whose flow is followed forwards and backwards.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from lesionlocator.align.agreement import NOISE
from lesionlocator.align.field import FieldMap, Steps, first_then, flow, on_grid, to_field
from lesionlocator.align.view import View
from lesionlocator.geometry import AffineMap, Geometry

_NEXT_TO = np.array([(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)])
"""A voxel and its six neighbours; like every list of offsets here, backwards it is its own negative."""
_LEAST_CURVATURE = 0.02
"""A correlation that bends less than this (per squared voxel) has no top to climb."""
_FAINT = 0.02
"""Trust that a place needs, to move on its own account when nothing near it may say more."""
_MARGIN_VOXELS = 6
_PADDING_MM, _MOST_PADDING = 24.0, 8
"""Space around the shared part, so that what is pushed over its border still finds the way back."""
_WINDOW = 5
"""Voxels along a side of the cube in which grey values are compared."""
_POOLED = 1.5
"""Neighbours that are asked before a place answers (standard deviation in places): one window alone is often wrong."""


@dataclass(frozen=True)
class Round:
    """One step: on voxels `factor` times coarser, up to `reach` voxels each way, smoothed by `stiffness_mm`.

    A reach of 0 does not try displacements but climbs: the correlation's slope and curvature say where its top is, to a
    fraction of a voxel.
    """

    factor: int
    reach: int
    stiffness_mm: float


ROUNDS = (
    Round(4, 2, 24.0),
    Round(2, 2, 18.0),
    Round(2, 1, 14.0),
    Round(1, 2, 12.0),
    Round(1, 0, 14.0),
    Round(1, 0, 14.0),
)
_PULLS = (0.003, 0.01, 0.03, 0.1, 0.3)
"""How strongly a place is drawn to what its neighbourhood does, rising, per squared voxel of difference."""
_SHARPNESS = 60.0
"""A displacement that correlates better by 1/60 outweighs another by e."""


@dataclass(frozen=True, eq=False)
class _State:
    """The deformation so far and its inverse, in voxels of `grid`."""

    there: Steps
    back: Steps
    grid: Geometry

    def on(self, grid: Geometry) -> _State:
        return _State(on_grid(self.there, self.grid, grid), on_grid(self.back, self.grid, grid), grid)

    def then_moved(self, velocity: Steps) -> _State:
        return _State(first_then(flow(velocity), self.there), first_then(self.back, flow(-velocity)), self.grid)


def deform(baseline: View, followup: View, start: AffineMap) -> tuple[FieldMap, FieldMap] | None:
    """A deformation of the baseline's space to be applied before `start`, and its inverse.

    None when the baseline shows nothing of the follow-up.
    """
    shared = _shared_part(baseline, followup, start)
    if shared is None:
        return None
    fixed = shared.padded(min(_MOST_PADDING, round(_PADDING_MM / shared.spacing_mm)))
    state: _State | None = None
    for step in ROUNDS:
        here, there = fixed.coarser(step.factor), followup.coarser(step.factor)
        if min(here.geometry.shape) < 3:
            continue
        if state is None:
            still = np.zeros((3, *here.geometry.shape), np.float32)
            state = _State(still, still, here.geometry)
        state = state.on(here.geometry)
        state = state.then_moved(_velocity(here, _carried(here, there, start, state), step))
    if state is None:
        return None
    return to_field(state.there, state.grid), to_field(state.back, state.grid)


def _shared_part(baseline: View, followup: View, start: AffineMap) -> View | None:
    """What of the baseline lies near the follow-up, with a margin."""
    reach_mm = _MARGIN_VOXELS * baseline.spacing_mm
    low, high = baseline.geometry.around(start.inverse()(followup.geometry.corners_mm), reach_mm)
    covered = baseline.geometry.clip(low, high)
    return None if covered is None else baseline.crop(*covered)


def _carried(here: View, there: View, start: AffineMap, state: _State) -> View:
    """The follow-up as the deformation so far shows it on the baseline's grid."""
    matrix = np.linalg.solve(there.geometry.affine, start.matrix @ here.geometry.affine)
    index = np.indices(here.geometry.shape, dtype=np.float32) + state.there
    index = np.einsum("ij,jdhw->idhw", matrix[:3, :3], index) + matrix[:3, 3, None, None, None]
    array = ndimage.map_coordinates(there.array, index, order=1, mode="nearest", output=np.float32)
    seen, body = (
        ndimage.map_coordinates(mask.astype(np.float32), index, order=1, mode="grid-constant", output=np.float32) > 0.5
        for mask in (there.seen, there.body)
    )
    return View(array, body, seen, here.geometry)


def _velocity(fixed: View, moved: View, step: Round) -> Steps:
    """What brings `moved` to `fixed`, from looking both ways."""
    stride = 2 if min(fixed.geometry.shape) >= 12 else 1
    offsets = _NEXT_TO if step.reach == 0 else _all_within(step.reach)
    choose = _uphill if step.reach == 0 else _smoothest
    onward, returning = _correlations(fixed, moved, offsets, stride)
    sigma = step.stiffness_mm / fixed.spacing_mm / stride
    forth = choose(onward, offsets, _trust(fixed, moved, stride), sigma)
    back = choose(returning, offsets, _trust(moved, fixed, stride), sigma)
    return _spread((forth - back) / 2, stride, fixed.geometry.shape)


def _all_within(reach: int) -> np.ndarray:
    return np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))


def _spread(coarse: Steps, stride: int, shape: tuple[int, int, int]) -> Float[np.ndarray, "3 D H W"]:
    """From every `stride`-th voxel to all of them."""
    if stride == 1:
        return coarse
    scale = np.full(3, 1 / stride)
    full = [
        ndimage.affine_transform(part, scale, output_shape=shape, order=1, mode="nearest", output=np.float32)
        for part in coarse
    ]
    return np.stack([ndimage.gaussian_filter(part, stride / 2, mode="nearest") for part in full])


def _correlations(
    fixed: View, moved: View, offsets: np.ndarray, stride: int
) -> tuple[Float[np.ndarray, "o d h w"], Float[np.ndarray, "o d h w"]]:
    """Local correlation of fixed at x with moved at x + offset, and of moved at x with fixed at x + offset."""
    reach = int(offsets.max())
    first, second = _local(fixed, reach), _local(moved, reach)
    shape = fixed.geometry.shape
    thin = tuple(-(-n // stride) for n in shape)
    onward, returning = (np.empty((2, len(offsets), *thin), np.float32) for _ in range(2))
    for number, offset in enumerate(offsets):
        shifted = second.shifted(offset)
        share = np.minimum(first.share, shifted.share)
        product = ndimage.uniform_filter(first.rest * shifted.rest, _WINDOW, mode="constant")
        local = np.stack([product / (np.maximum(share, 0.1) * first.spread * shifted.spread), share])
        onward[:, number] = local[_window(shape, reach, np.zeros(3, int), stride)]
        returning[:, len(offsets) - 1 - number] = local[_window(shape, reach, -offset, stride)]
    return _where_known(*onward), _where_known(*returning)


def _where_known(correlation: Float[np.ndarray, "o d h w"], share: Float[np.ndarray, "o d h w"]) -> np.ndarray:
    """Where a window leaves a scan, its answer gives way to what the other displacements answer on average."""
    usual = (correlation * share).sum(axis=0) / np.maximum(share.sum(axis=0), 1e-3)
    return share * correlation + (1 - share) * usual


@dataclass(frozen=True, eq=False)
class _Local:
    """Grey values less their local mean (0 where unseen), their local spread, and how much of the window is seen."""

    rest: Float[np.ndarray, "d h w"]
    spread: Float[np.ndarray, "d h w"]
    share: Float[np.ndarray, "d h w"]

    def shifted(self, offset: np.ndarray) -> _Local:
        by = tuple(-int(o) for o in offset)
        return _Local(*(np.roll(part, by, axis=(0, 1, 2)) for part in (self.rest, self.spread, self.share)))


def _local(view: View, pad: int) -> _Local:
    seen = np.pad(view.seen, pad).astype(np.float32)
    array = np.pad(view.array, pad) * seen
    share = ndimage.uniform_filter(seen, _WINDOW, mode="constant")
    known = np.maximum(share, 0.1)
    rest = (array - ndimage.uniform_filter(array, _WINDOW, mode="constant") / known) * seen
    spread = np.sqrt(ndimage.uniform_filter(rest**2, _WINDOW, mode="constant") / known + NOISE**2)
    return _Local(rest, spread, share)


def _window(shape: tuple[int, int, int], pad: int, shift: np.ndarray, stride: int) -> tuple[slice, ...]:
    inner = tuple(slice(pad + int(s), pad + int(s) + n, stride) for n, s in zip(shape, shift, strict=True))
    return (slice(None), *inner)


def _trust(fixed: View, moved: View, stride: int) -> Float[np.ndarray, "d h w"]:
    """How much a place may say: little where nothing is to be seen or where one of the scans ends."""
    both = ndimage.uniform_filter((fixed.body & moved.seen).astype(np.float32), _WINDOW)
    structure = 1 - NOISE**2 / _local(fixed, 0).spread ** 2
    return (both**2 * structure)[::stride, ::stride, ::stride] + 1e-4


def _smoothest(
    correlation: Float[np.ndarray, "o d h w"], offsets: np.ndarray, trust: Float[np.ndarray, "d h w"], sigma: float
) -> Steps:
    """Displacements that correlate well and agree with their neighbours, in voxels."""
    shape = correlation.shape[1:]
    near = ndimage.gaussian_filter(trust, _POOLED, mode="nearest")
    pooled = [ndimage.gaussian_filter(part * trust, _POOLED, mode="nearest") / near for part in correlation]
    likely = np.reshape(pooled, (len(offsets), -1)) * np.float32(_SHARPNESS)
    steps = np.zeros((3, *shape), np.float32)
    around = np.maximum(ndimage.gaussian_filter(trust, sigma, mode="nearest"), 1e-6)
    moves = offsets.astype(np.float32)
    for pull in _PULLS:
        flat = steps.reshape(3, -1)
        distance = (moves**2).sum(axis=1)[:, None] - 2 * moves @ flat + (flat**2).sum(axis=0)
        weight = likely - pull * _SHARPNESS * distance
        weight = np.exp(weight - weight.max(axis=0))
        wanted = (moves.T @ weight / weight.sum(axis=0)).reshape(3, *shape)
        steps = np.stack([ndimage.gaussian_filter(part * trust, sigma, mode="nearest") / around for part in wanted])
    return steps.astype(np.float32)


def _uphill(
    correlation: Float[np.ndarray, "o d h w"], offsets: np.ndarray, trust: Float[np.ndarray, "d h w"], sigma: float
) -> Steps:
    """The top of a parabola through each place and its neighbours along each axis, in voxels, at most one.

    Slope and curvature are smoothed before they are divided, so that places which know their answer (a border across
    the axis) lend it to those which do not.
    """
    here = correlation[len(offsets) // 2]
    # A lesion that grew or went does not look like itself; its surroundings decide, so that it is not pulled back.
    trust = trust * np.clip(here, 0, 1) ** 2

    def smooth(values: Float[np.ndarray, "d h w"]) -> Float[np.ndarray, "d h w"]:
        return ndimage.gaussian_filter(values, sigma, mode="nearest")

    least = _LEAST_CURVATURE * (smooth(trust) + _FAINT)
    steps = np.empty((3, *trust.shape), np.float32)
    for axis in range(3):
        before, after = correlation[axis], correlation[6 - axis]
        slope = smooth(trust * (after - before) / 2)
        curvature = smooth(trust * np.maximum(2 * here - after - before, 0))
        steps[axis] = slope / (curvature + least)
    return np.clip(steps, -1, 1)

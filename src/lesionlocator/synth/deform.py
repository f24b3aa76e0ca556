"""How tissue gives way around a lesion that grows or shrinks: smooth flows, which can always be run backwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy import fft, ndimage

from lesionlocator.align.field import Steps, flow
from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry, index3
from lesionlocator.volume import Mask

Nodes = Float[np.ndarray, "d h w"]

_BONE_GIVES = 0.12
"""How far bone gives way, as a share of what soft tissue does."""
_LONGEST = 6.0
"""Units of time after which a flow that has not reached its volume never will (e to the 6th is 400)."""


@dataclass(frozen=True, eq=False)
class SmoothField:
    """A point map x -> x + displacement(x): cubic between the nodes of its grid, and at rest beyond them.

    `steps` is the displacement at the nodes, in steps of the grid along d, h, w; it is zero at the grid's border.
    """

    steps: Steps
    grid: Geometry

    def __call__(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        index = self.grid.world_to_index(at_mm).T
        near = np.flatnonzero(np.all((index > 0) & (index < np.array(self.grid.shape)[:, None] - 1), axis=0))
        moved = np.array(at_mm, float)
        found = [
            ndimage.map_coordinates(part, index[:, near], order=3, mode="mirror", prefilter=False)
            for part in self._splines
        ]
        moved[near] += np.einsum("ij,jn->ni", self.grid.affine[:3, :3], np.stack(found))
        return moved

    def on(self, scan: Geometry) -> Float[np.ndarray, "3 d h w"]:
        """The displacement at every voxel of a grid with parallel axes, in voxels of that grid."""
        shown = self._splines
        for axis in range(3):
            weights = _spline_weights(node_axis(scan, self.grid, axis), self.grid.shape[axis])
            shown = np.moveaxis(np.tensordot(shown, weights, axes=(axis + 1, 1)), -1, axis + 1)
        ratio = (self.grid.spacing_mm / scan.spacing_mm).astype(np.float32)
        return shown * ratio[:, None, None, None]

    @cached_property
    def _splines(self) -> Float[np.ndarray, "3 d h w"]:
        parts = [ndimage.spline_filter(part, 3, output=np.float32, mode="mirror") for part in self.steps]
        return np.stack(parts)


@dataclass(frozen=True, eq=False)
class Flow:
    """A displacement that follows a steady velocity for one unit of time.

    `velocity` is in steps of `grid`, along d, h, w, and zero at the grid's border: nothing outside ever moves. The
    inverse follows the negative velocity, so there is one for every flow (Arsigny et al., MICCAI 2006, doi
    10.1007/11866565_113). Both are computed when first asked for.
    """

    velocity: Steps
    grid: Geometry

    @cached_property
    def there(self) -> SmoothField:
        return SmoothField(_unfolded(flow(self.velocity)), self.grid)

    @cached_property
    def back(self) -> SmoothField:
        return SmoothField(_unfolded(flow(-self.velocity)), self.grid)

    def forward(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Where a place has moved to."""
        return self.there(at_mm)

    def backward(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Where what is at a place has come from."""
        return self.back(at_mm)

    def slower(self, share: float) -> Flow:
        """The same way, followed for only a share of the time (or longer: above 1)."""
        return Flow((self.velocity * share).astype(np.float32), self.grid)

    def least_volume_change(self) -> float:
        """The smallest Jacobian determinant of both maps; 0 or less would be a fold."""
        return min(least_determinant(self.there.steps), least_determinant(self.back.steps))

    def is_exact(self, scan: Geometry, voxels: float = 0.35) -> bool:
        """Whether it folds nowhere, on its nodes and on the scan's voxels, and there and back differ by so little."""
        try:
            fields = (self.back, self.there)
        except Refused:
            return False
        part = scan.crop(*scan.around(self.grid.corners_mm))
        folds = min(least_determinant(field.on(part)) for field in fields) < 0.01
        return not folds and self.largest_error(scan) < voxels

    def largest_error(self, scan: Geometry, most: int = 40_000) -> float:
        """How many voxels a place misses itself by, there and back or back and there, among the middles between nodes.

        Both orders count: what the way there presses together, the way back draws apart, and its errors with it.
        """
        moving = np.argwhere(np.abs(self.velocity).max(axis=0) > 0)
        if len(moving) == 0:
            return 0.0
        # Not at the nodes, where there is nothing to interpolate.
        at_mm = self.grid.index_to_world(moving[:: max(1, len(moving) // most)] + 0.5)
        at = scan.world_to_index(at_mm)
        returned = (self.backward(self.forward(at_mm)), self.forward(self.backward(at_mm)))
        return max(float(np.linalg.norm(scan.world_to_index(end) - at, axis=1).max()) for end in returned)


@dataclass(frozen=True, eq=False)
class MapPair:
    """A displacement that is given the way back, and its inverse, found by iteration."""

    back: SmoothField

    @cached_property
    def there(self) -> SmoothField:
        grid = self.back.grid
        index = np.indices(grid.shape).reshape(3, -1).T.astype(float)
        at = index.copy()
        # Half a step each time, because a map that shrinks a lesion looks up to three times as far back.
        for _ in range(60):
            rest = index - grid.world_to_index(self.back(grid.index_to_world(at)))
            at += rest / 2
            if float(np.abs(rest).max()) < 0.01:
                break
        return SmoothField(_unfolded((at - index).T.reshape(3, *grid.shape).astype(np.float32)), grid)

    def forward(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Where a place has moved to."""
        return self.there(at_mm)

    def backward(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Where what is at a place has come from."""
        return self.back(at_mm)


def blurred_gradient(mask: Mask, scan: Geometry, blur_mm: float) -> Callable[[float], MapPair]:
    """The published deformation: the scan is looked up along the gradient of the blurred mask, times an amplitude.

    Returns the deformation of an amplitude (voxels; positive grows). The blur and the displacement across slices are
    scaled by in-plane spacing over slice distance, as in the method (Kovacs et al., MICCAI 2023, doi
    10.48550/arXiv.2309.03652).
    """
    spacing = scan.spacing_mm
    ratio = float(spacing.min()) / spacing
    sigma = blur_mm / float(spacing.min()) * ratio
    pad = np.ceil(4 * sigma).astype(int) + 3
    start, stop = scan.around(mask.geometry.corners_mm)
    low, high = index3(np.array(start) - pad), index3(np.array(stop) + pad)
    grid = scan.crop(low, high)
    blurred = ndimage.gaussian_filter(mask.on(grid).astype(np.float32), sigma, mode="constant")
    slopes = np.stack(np.gradient(blurred)).astype(np.float32) * ratio.astype(np.float32)[:, None, None, None]
    at = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
    edges = [np.minimum(axis, n - 1 - axis) for axis, n in zip(at, scan.shape, strict=True)]
    to_edge = np.minimum(np.minimum(edges[0][:, None, None], edges[1][:, None]), edges[2])
    # Two voxels at the scan's border are protected, as published.
    slopes *= _inner(grid.shape) * np.clip(to_edge / 2, 0, 1).astype(np.float32)
    # What was blurred so much needs no more nodes than three to a blur.
    every = np.maximum(1, (sigma / 3).astype(int))
    nodes = tuple(slice(None, None, int(step)) for step in every)
    affine = grid.affine.copy()
    affine[:3, :3] *= every
    coarse = slopes[(slice(None), *nodes)] / every.astype(np.float32)[:, None, None, None]
    coarse *= _inner(coarse.shape[1:])
    grid = Geometry(index3(coarse.shape[1:]), affine)
    return lambda amplitude: MapPair(SmoothField(_unfolded(coarse * np.float32(amplitude)), grid))


@dataclass(frozen=True, eq=False)
class Site:
    """A lesion and its surroundings at the nodes of a coarse grid, whose axes run along the scan's.

    `distance_mm` is to the lesion's border, negative inside; `ease` tells how readily tissue gives way (1: soft
    tissue, near 0: bone); `to_edge_mm` is to the nearest edge of the scan, negative beyond it.
    """

    grid: Geometry
    distance_mm: Nodes
    ease: Nodes
    to_edge_mm: Nodes

    @property
    def node_mm(self) -> float:
        return float(self.grid.spacing_mm.min())

    def reached_mm(self, factor: float) -> float:
        """How far the border moves out when the lesion becomes `factor` times its volume, evenly on all sides."""
        inside = int(np.count_nonzero(self.distance_mm < 0))
        wanted = int(np.clip(round(max(inside, 1) * factor), 1, self.distance_mm.size - 1))
        return float(np.partition(self.distance_mm.ravel(), wanted)[wanted])


def site_of(
    scan: Geometry, mask: Mask, reach_mm: float, nodes: int, ease: Callable[[Geometry], Nodes] | None = None
) -> Site:
    """The surroundings of a lesion up to `reach_mm` from it, with about `nodes` nodes along the longest axis.

    Args:
        scan: The grid of the scan.
        mask: The lesion, on the scan's lattice.
        reach_mm: How far from the lesion tissue may move.
        nodes: More are finer and slower.
        ease: What `Site.ease` is on a given grid; without it tissue gives way alike everywhere.
    """
    spacing = scan.spacing_mm
    start, stop = (np.array(corner) for corner in scan.around(mask.geometry.corners_mm, reach_mm))
    step_mm = float(((stop - start) * spacing).max()) / nodes
    shape = np.ceil((stop - start) * spacing / step_mm).astype(int) + 4
    affine = scan.affine.copy()
    affine[:3, :3] *= step_mm / spacing
    middle = scan.index_to_world(((start + stop - 1) / 2.0)[None])[0]
    affine[:3, 3] = middle - affine[:3, :3] @ ((shape - 1) / 2)
    grid = Geometry(index3(shape), affine)
    at_index = [node_axis(grid, scan, axis) for axis in range(3)]
    edges = [np.minimum(at + 0.5, scan.shape[axis] - 0.5 - at) * spacing[axis] for axis, at in enumerate(at_index)]
    to_edge = np.minimum(np.minimum(edges[0][:, None, None], edges[1][:, None]), edges[2]).astype(np.float32)
    gives = np.ones(grid.shape, np.float32) if ease is None else ease(grid)
    return Site(grid, signed_distance_mm(mask, grid), gives, to_edge)


def node_axis(grid: Geometry, other: Geometry, axis: int) -> Float[np.ndarray, " n"]:
    """The index along one axis in another grid, with parallel axes, at each step of this one."""
    ratio = grid.spacing_mm[axis] / other.spacing_mm[axis]
    return other.world_to_index(grid.affine[None, :3, 3])[0][axis] + ratio * np.arange(grid.shape[axis])


def signed_distance_mm(mask: Mask, grid: Geometry) -> Nodes:
    """Distance to the mask's border at the nodes of a grid with parallel axes, negative inside; at least one node is.

    Seen from the share of the mask in each node's cell, so that it is exact to a fraction of the cell.
    """
    step = grid.spacing_mm / mask.geometry.spacing_mm
    share = np.pad(mask.array.astype(np.float32), 2)
    blur = np.maximum(step - 1, 0) / 2
    pad = np.ceil(2 * blur).astype(int)
    share = np.pad(share, [(int(p), int(p)) for p in pad])
    if np.any(blur > 0.05):
        share = ndimage.gaussian_filter(share, blur, mode="constant", truncate=3.0)
    first = np.array([node_axis(grid, mask.geometry, axis)[0] for axis in range(3)]) + pad + 2
    share = ndimage.affine_transform(share, step, first, output_shape=grid.shape, order=1, output=np.float32)
    inside = share >= min(0.5, float(share.max()))
    spacing = grid.spacing_mm
    away = ndimage.distance_transform_edt(~inside, sampling=spacing)
    deep = ndimage.distance_transform_edt(inside, sampling=spacing)
    half = float(spacing.min()) / 2
    return np.where(inside, half - deep, away - half).astype(np.float32)


@dataclass(frozen=True)
class Swelling:
    """Where and how tissue is pushed: a source of volume in and near the lesion, displaced tissue around it.

    The velocity is the gradient of a potential: its source is the zone that the lesion covers when it is largest;
    outside that zone tissue moves without being compressed, and it is compressed only where the push fades out.
    Bone conducts next to nothing, so the flow goes around it.
    """

    zone_mm: float
    """The source reaches this far from the lesion's border."""
    core_mm: float
    """Radius of the lesion's core, which takes most of the stretch: around it the source is such that a border moves
    without being drawn out or squeezed, so that its blur stays what the scanner makes it."""
    fade_mm: tuple[float, float]
    """Distances from the lesion's border at which the push begins to fade and at which it ends."""
    pulls: bool = False
    """Whether tissue is pulled in, rather than pushed away."""
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """How much more readily it grows along the three axes of `axes`."""
    axes: Float[np.ndarray, "3 3"] | None = None
    """Directions (columns, along the grid's d, h, w) of the stretch."""

    def _outside(self, site: Site, radius: Nodes) -> Nodes | float:
        """The source beyond the zone: none, or, for a pull, such that speed fades evenly to nothing.

        Tissue that fills a gap without being stretched along its way would have to be squeezed to threads.
        """
        if not self.pulls:
            return 0.0
        begins = self.zone_mm - float(site.distance_mm.min())
        ends = self.fade_mm[1] - float(site.distance_mm.min())
        even = (2 * ends / np.maximum(radius, begins) - 3) / (ends - begins) * self.core_mm / 3
        return np.where(radius < ends, even, 0.0)

    def velocity(self, site: Site) -> Steps:
        """Steps of the site's grid for which a lesion grows about e-fold in one unit of time."""
        node = site.node_mm
        # In a ball, speed that grows with the radius is a source of 3 / radius, and one that does not is 2 / radius.
        radius = np.maximum(site.distance_mm - float(site.distance_mm.min()), 0.0)
        radius = np.maximum(radius, self.core_mm)
        source = np.where(radius > self.core_mm, 2 / radius, 3 / self.core_mm)
        share = 0.4 if self.pulls else 0.75
        source = share * source * self.core_mm / 3 + 1 - share
        inner = _smooth_step((self.zone_mm - site.distance_mm) / (2 * node) + 0.5)
        source = (inner * source + (1 - inner) * self._outside(site, radius)).astype(np.float32)
        potential = _potential(source, site.ease)
        slopes = np.stack([np.gradient(potential, axis=axis) for axis in range(3)]).astype(np.float32) * site.ease
        if self.axes is not None:
            matrix = (self.axes * np.array(self.stretch)) @ self.axes.T
            slopes = np.einsum("ij,jdhw->idhw", matrix.astype(np.float32), slopes)
        begins, ends = self.fade_mm
        fade = _smooth_step((ends - site.distance_mm) / max(ends - begins, node))
        # The scan's edge stays where it is, or tissue from beyond it would be needed.
        edge = _smooth_step((site.to_edge_mm - node) / max(2 * node, min(8.0, ends - begins)))
        steps = slopes * (fade * edge * _inner(site.grid.shape))
        growth = np.sum([np.gradient(part, axis=axis) for axis, part in enumerate(steps)], axis=0)
        lesion = site.distance_mm <= min(0.0, float(site.distance_mm.min()) / 2)
        rate = float(growth[lesion].mean())
        if rate <= 1e-6:
            raise Refused(
                found="a lesion with no room around it",
                needed="tissue that can give way",
                do="choose another lesion or another change",
            )
        return (steps / rate).astype(np.float32)


def solved(velocity: Steps, grid: Geometry, mask: Mask, factor: float) -> Flow | None:
    """The flow along a velocity that makes `factor` times its volume of the lesion; None where none does.

    Follows points of the lesion through the velocity and adds up by how much their surroundings grow, which gives the
    lesion's volume at all times at once, to a fraction of a voxel.
    """
    toward = velocity if factor >= 1 else -velocity
    growth = np.sum([np.gradient(part, axis=axis) for axis, part in enumerate(toward)], axis=0)
    at = grid.world_to_index(_points_in(mask))
    wanted = float(np.log(factor))
    step = max(0.02, min(0.15, abs(wanted) / 4))
    grown, reached = np.zeros(len(at)), 0.0
    for done in range(int(_LONGEST / step)):
        middle = at + step / 2 * np.stack([_looked_up(part, at) for part in toward], axis=1)
        at = at + step * np.stack([_looked_up(part, middle) for part in toward], axis=1)
        grown = grown + step * _looked_up(growth, middle)
        before, reached = reached, float(np.log(np.mean(np.exp(grown))))
        if abs(reached) >= abs(wanted):
            time = step * (done + (wanted - before) / (reached - before))
            return Flow((time * toward).astype(np.float32), grid)
        if abs(reached) - abs(before) < 1e-3 * step:
            return None
    return None


def least_determinant(steps: Steps) -> float:
    """The smallest volume change of a displacement, by differences to the neighbours ahead and behind."""
    least = np.inf
    for ahead in (True, False):
        cut = tuple(slice(1, None) if not ahead else slice(None, -1) for _ in range(3))
        slopes = []
        for part in steps:
            for axis in range(3):
                change = np.diff(part, axis=axis)
                slopes.append(change[tuple(slice(None) if a == axis else cut[a] for a in range(3))])
        a, b, c, d, e, f, g, h, i = slopes
        a, e, i = a + 1, e + 1, i + 1
        least = min(least, float((a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)).min()))
    return least


def _unfolded(steps: Steps) -> Steps:
    """Itself, if it folds nowhere."""
    least = least_determinant(steps)
    if least <= 0:
        raise Refused(
            found=f"a deformation that folds space (volume change {least:.2f} somewhere)",
            needed="a positive volume change everywhere",
            do="ask for a smaller change",
        )
    return steps


def _points_in(mask: Mask) -> Float[np.ndarray, "n 3"]:
    """At most about a thousand places spread over a lesion, eight in each voxel of a small one."""
    index = np.argwhere(mask.array).astype(float)
    if len(index) < 100:
        corners = np.array([(a, b, c) for a in (-0.25, 0.25) for b in (-0.25, 0.25) for c in (-0.25, 0.25)])
        index = (index[:, None] + corners[None]).reshape(-1, 3)
    return mask.geometry.index_to_world(index[:: max(1, len(index) // 1000)])


def _spline_weights(at: Float[np.ndarray, " n"], nodes: int) -> Float[np.ndarray, "n nodes"]:
    """Weights of the cubic B-splines of all nodes at some places along one axis; none beyond the nodes."""
    away = np.abs(at[:, None] - np.arange(-1, nodes + 1)).astype(np.float32)
    near = 2 / 3 - away**2 + away**3 / 2
    far = np.maximum(2 - away, 0) ** 3 / 6
    weights = np.where(away < 1, near, far)
    # The splines were made for mirrored ends.
    weights[:, 2] += weights[:, 0]
    weights[:, -3] += weights[:, -1]
    return np.where(((at >= 0) & (at <= nodes - 1))[:, None], weights[:, 1:-1], np.float32(0))


def _looked_up(array: Nodes, index: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    return ndimage.map_coordinates(array, index.T, order=1, mode="nearest", prefilter=False)


def _potential(source: Nodes, ease: Nodes) -> Nodes:
    """Solves div(ease grad u) = source, u = 0 around the grid: by sines, with conjugate gradients where ease varies."""
    shape = source.shape
    waves = [2 - 2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) for n in shape]
    scale = (waves[0][:, None, None] + waves[1][:, None] + waves[2]).astype(np.float32)

    def by_sines(array: Nodes) -> Nodes:
        return fft.idstn(fft.dstn(array, type=1) / scale, type=1)

    if float(ease.min()) > 0.99:
        return -by_sines(source)
    between = [_between(ease, axis) for axis in range(3)]

    def flux_out(array: Nodes) -> Nodes:
        out = np.zeros_like(array)
        for axis in range(3):
            around = [(1, 1) if a == axis else (0, 0) for a in range(3)]
            out -= np.diff(between[axis] * np.diff(np.pad(array, around), axis=axis), axis=axis)
        return out

    found = np.zeros_like(source)
    rest = source.astype(np.float32)
    aim = 0.01 * float(np.linalg.norm(rest))
    towards = better = by_sines(rest)
    size = float(np.vdot(rest, better))
    for _ in range(40):
        out = flux_out(towards)
        length = size / float(np.vdot(towards, out))
        found, rest = found + length * towards, rest - length * out
        if float(np.linalg.norm(rest)) < aim:
            break
        better = by_sines(rest)
        size, before = float(np.vdot(rest, better)), size
        towards = better + size / before * towards
    return -found


def _between(ease: Nodes, axis: int) -> Float[np.ndarray, "D H W"]:
    """Harmonic means of neighbours along an axis, the border's own value beyond it."""
    padded = np.pad(ease, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
    low = np.take(padded, range(padded.shape[axis] - 1), axis)
    high = np.take(padded, range(1, padded.shape[axis]), axis)
    return 2 * low * high / (low + high)


def _inner(shape: tuple[int, ...]) -> Nodes:
    """1 inside, 0 on the two outermost nodes."""
    inner = np.zeros(shape, np.float32)
    inner[2:-2, 2:-2, 2:-2] = 1
    return inner


def _smooth_step(share: Nodes) -> Nodes:
    inside = np.clip(share, 0.0, 1.0)
    return inside * inside * (3 - 2 * inside)


def gives_way(bone: Nodes) -> Nodes:
    """Ease from the share of bone in each node's cell."""
    # A node's width of transition: tissue that slides along bone shears, and a grid cannot show a jump.
    eased = ndimage.gaussian_filter(np.clip(bone, 0.0, 1.0), np.maximum(1.0, np.array(bone.shape) / 32))
    return (1 - (1 - _BONE_GIVES) * eased).astype(np.float32)

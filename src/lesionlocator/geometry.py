"""Millimetres and voxels: the one place that turns array indices into the patient's space."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float

from lesionlocator.errors import Refused

Index3 = tuple[int, int, int]
PointMap = Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, "n 3"]]

_UNIT_CORNERS = np.array(list(itertools.product((0.0, 1.0), repeat=3)))


@dataclass(frozen=True, eq=False)
class Geometry:
    """A grid in the patient's space, with or without voxels in it.

    `affine` takes an array index (d, h, w) to LPS millimetres. Any orientation, oblique too; the columns need not be
    orthogonal (gantry tilt). A voxel is the unit cube around its index: it reaches from index - 0.5 to index + 0.5.

    `frame` names the frame of reference (DICOM) if the file had one. `stored` is what the file itself said about space,
    untouched, so that a writer can give it back bit for bit; a grid derived from this one drops it.
    """

    shape: Index3
    affine: Float[np.ndarray, "4 4"]
    frame: str | None = None
    stored: object = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise Refused(
                found=f"a grid of {self.shape}",
                needed="at least one voxel on every axis",
                do="check the file or the crop",
            )
        if not np.isfinite(self.affine).all() or abs(np.linalg.det(self.affine[:3, :3])) < 1e-9:
            raise Refused(
                found="a header whose axes flatten space or are not numbers",
                needed="three independent axes",
                do="repair the header (voxel sizes and directions) and try again",
            )

    @cached_property
    def spacing_mm(self) -> Float[np.ndarray, "3"]:
        """Distance between neighbouring voxel centres along d, h, w."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @cached_property
    def voxel_ml(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @cached_property
    def centre_mm(self) -> Float[np.ndarray, "3"]:
        return self.index_to_world((np.array([self.shape], float) - 1) / 2)[0]

    @cached_property
    def corners_mm(self) -> Float[np.ndarray, "8 3"]:
        """The outer corners of the grid, at the faces of the outermost voxels."""
        return self.index_to_world(_UNIT_CORNERS * np.array(self.shape) - 0.5)

    def index_to_world(self, index: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        return _applied(self.affine, index)

    def world_to_index(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        # The origin first: far from it, the inverse alone would lose digits.
        return np.einsum("ij,nj->ni", self._to_index, at_mm - self.affine[:3, 3])

    @cached_property
    def _to_index(self) -> Float[np.ndarray, "3 3"]:
        return np.linalg.inv(self.affine[:3, :3])

    def contains(self, at_mm: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
        """Which points lie in a voxel of this grid (faces at -0.5 and shape - 0.5, a rounding error forgiven)."""
        index = self.world_to_index(at_mm)
        return np.all((index >= -0.5 - 1e-6) & (index <= np.array(self.shape) - 0.5 + 1e-6), axis=1)

    def crop(self, start: Index3, stop: Index3) -> Geometry:
        """The part [start, stop) of this lattice; voxels keep their place. May reach beyond the grid (padding)."""
        moved = self.affine.copy()
        moved[:3, 3] = self.index_to_world(np.array([start], float))[0]
        return Geometry(_minus(stop, start), moved, self.frame)

    def respaced(self, spacing_mm: Float[np.ndarray, "3"]) -> Geometry:
        """A grid over the same extent (rounded to whole voxels) and the same axes, with another spacing."""
        shape = np.maximum(1, np.round(np.array(self.shape) * self.spacing_mm / spacing_mm)).astype(int)
        affine = self.affine.copy()
        affine[:3, :3] *= spacing_mm / self.spacing_mm
        middle = (shape - 1) / 2
        affine[:3, 3] = self.centre_mm - affine[:3, :3] @ middle
        return Geometry(index3(shape), affine, self.frame)

    def around(self, at_mm: Float[np.ndarray, "n 3"], margin_mm: float = 0.0) -> tuple[Index3, Index3]:
        """Start and stop of the smallest index range whose voxels cover these points and a margin; not clipped."""
        index = self.world_to_index(at_mm)
        margin = margin_mm / self.spacing_mm
        start = np.floor(index.min(axis=0) - margin + 0.5 + 1e-6).astype(int)
        stop = np.ceil(index.max(axis=0) + margin + 0.5 - 1e-6).astype(int)
        return index3(start), index3(np.maximum(stop, start + 1))

    def clip(self, start: Index3, stop: Index3) -> tuple[Index3, Index3] | None:
        """The part of [start, stop) inside this grid; None when nothing is left."""
        low = np.maximum(start, 0)
        high = np.minimum(stop, self.shape)
        return (index3(low), index3(high)) if bool(np.all(high > low)) else None

    def offset_in(self, other: Geometry) -> Index3 | None:
        """Where voxel (0, 0, 0) of this grid lies in `other`; None unless both are of one lattice (to 0.01 mm)."""
        start = other.world_to_index(self.affine[None, :3, 3])[0].round()
        placed = other.crop(index3(start), index3(start + np.array(self.shape)))
        return index3(start) if self.same_as(placed) else None

    def same_as(self, other: Geometry, tolerance_mm: float = 0.01) -> bool:
        """Same shape, and no corner further than the tolerance from its twin."""
        if self.shape != other.shape:
            return False
        return bool(np.max(np.abs(self.corners_mm - other.corners_mm)) <= tolerance_mm)

    def is_axial_aligned(self) -> bool:
        """Whether every array axis runs along one LPS axis (in either direction), to a thousandth of its length."""
        unit = np.abs(self.affine[:3, :3] / self.spacing_mm)
        return bool(np.all(np.sort(unit, axis=0)[:2] < 1e-3))


@dataclass(frozen=True, eq=False)
class AffineMap:
    """A point map x -> matrix @ (x, 1), in LPS millimetres."""

    matrix: Float[np.ndarray, "4 4"]

    def __call__(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        return _applied(self.matrix, at_mm)

    def inverse(self) -> AffineMap:
        return AffineMap(np.linalg.inv(self.matrix))

    @staticmethod
    def identity() -> AffineMap:
        return AffineMap(np.eye(4))

    @staticmethod
    def shift(by_mm: Float[np.ndarray, "3"]) -> AffineMap:
        matrix = np.eye(4)
        matrix[:3, 3] = by_mm
        return AffineMap(matrix)


@dataclass(frozen=True)
class Composed:
    """First map first: Composed((f, g))(x) is g(f(x))."""

    maps: tuple[PointMap, ...]

    def __call__(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        for point_map in self.maps:
            at_mm = point_map(at_mm)
        return at_mm


def compose(*maps: PointMap) -> PointMap:
    """One map that applies these in order. No maps at all give the identity."""
    return Composed(maps)


@dataclass(frozen=True)
class Alignment:
    """How two scans of one patient correspond.

    Contract: `followup(forward(x))` shows the tissue of `baseline(x)`; `backward(forward(x))` is near `x`. Both maps
    take LPS millimetres to LPS millimetres and answer for any point, outside the scans too.
    """

    forward: PointMap
    backward: PointMap
    method: str = "given"
    warnings: tuple[str, ...] = ()

    def inverse(self) -> Alignment:
        return Alignment(self.backward, self.forward, self.method, self.warnings)

    def then(self, later: Alignment) -> Alignment:
        """From this baseline to the follow-up of `later`, whose baseline is this follow-up."""
        return Alignment(
            compose(self.forward, later.forward),
            compose(later.backward, self.backward),
            self.method,
            (*self.warnings, *later.warnings),
        )

    @staticmethod
    def from_affine(forward: AffineMap, method: str = "given", warnings: tuple[str, ...] = ()) -> Alignment:
        return Alignment(forward, forward.inverse(), method, warnings)


def _applied(matrix: Float[np.ndarray, "4 4"], points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    # einsum, because a matrix product of millions of points with a 3 x 3 matrix only makes BLAS start its threads.
    return np.einsum("ij,nj->ni", matrix[:3, :3], points) + matrix[:3, 3]


def index3(values: object) -> Index3:
    """Three whole numbers of any kind (an array's, say) as an index."""
    d, h, w = (int(v) for v in np.asarray(values))
    return d, h, w


def _minus(a: Index3, b: Index3) -> Index3:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]

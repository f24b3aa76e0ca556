"""What a reader points at: clicks, boxes, lines and masks, all in millimetres."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from lesionlocator.geometry import Alignment, Geometry
from lesionlocator.volume import Mask

_FACES = np.array([[0, 0.5, 0.5], [1, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 1, 0.5], [0.5, 0.5, 0], [0.5, 0.5, 1]])
_CORNERS = np.array(list(itertools.product((0.0, 1.0), repeat=3)))

_Inside = Callable[[Float[np.ndarray, "n 3"]], Bool[np.ndarray, " n"]]


@runtime_checkable
class Prompt(Protocol):
    """One thing that a reader did. It paints itself on any grid and can be carried through an alignment."""

    kind: ClassVar[str]

    @property
    def points_mm(self) -> Float[np.ndarray, "n 3"]:
        """Points whose hull holds the whole prompt."""
        ...

    def paint(self, geometry: Geometry) -> Bool[np.ndarray, "d h w"]:
        """The voxels that it touches on this grid; none when it lies outside."""
        ...

    def moved(self, alignment: Alignment, geometry: Geometry) -> Prompt:
        """The same prompt in the follow-up scan of `alignment`, whose grid is `geometry`."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The prompt as numbers in LPS millimetres."""
        ...


@dataclass(frozen=True, eq=False)
class Click:
    """One point, in the lesion (positive) or beside it (negative)."""

    at: Float[np.ndarray, "3"]
    positive: bool = True
    kind: ClassVar[str] = "click"

    @property
    def points_mm(self) -> Float[np.ndarray, "n 3"]:
        return self.at[None]

    def paint(self, geometry: Geometry) -> Bool[np.ndarray, "d h w"]:
        return _touched(geometry, self.points_mm)

    def moved(self, alignment: Alignment, geometry: Geometry) -> Click:
        return Click(alignment.forward(self.points_mm)[0], self.positive)

    def to_json(self) -> dict[str, Any]:
        return {"at": _numbers(self.at), "positive": self.positive}

    @staticmethod
    def inside(mask: Mask) -> Click:
        """A click on the deepest voxel of a mask."""
        return Click(mask.deepest_mm)


@dataclass(frozen=True, eq=False)
class Box:
    """A box with any orientation: a corner and three edges (the columns), in mm.

    Its faces lie on voxel borders when it was drawn on a scan's grid, so it is half-open in voxels.
    """

    corner: Float[np.ndarray, "3"]
    edges: Float[np.ndarray, "3 3"]
    kind: ClassVar[str] = "box"

    @staticmethod
    def from_bounds(low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"]) -> Box:
        """A box along the LPS axes."""
        return Box(low, np.diag(high - low))

    @staticmethod
    def from_index(start: Float[np.ndarray, "3"], stop: Float[np.ndarray, "3"], geometry: Geometry) -> Box:
        """The voxels [start, stop) of a grid, faces on their borders."""
        return Box(geometry.index_to_world((start - 0.5)[None])[0], geometry.affine[:3, :3] * (stop - start))

    @staticmethod
    def around(mask: Mask) -> Box:
        """The tight box of a mask, along its own grid."""
        from lesionlocator.volume import bounds

        start, stop = bounds(mask.array) or ((0, 0, 0), (1, 1, 1))
        return Box.from_index(np.array(start, float), np.array(stop, float), mask.geometry)

    @property
    def centre(self) -> Float[np.ndarray, "3"]:
        return self.corner + self.edges.sum(axis=1) / 2

    @property
    def size_mm(self) -> Float[np.ndarray, "3"]:
        return np.linalg.norm(self.edges, axis=0)

    @property
    def points_mm(self) -> Float[np.ndarray, "n 3"]:
        return self.corner + _CORNERS @ self.edges.T

    def to_unit(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Coordinates in which the box is [0, 1] on every axis."""
        return np.linalg.solve(self.edges, (at_mm - self.corner).T).T

    def paint(self, geometry: Geometry) -> Bool[np.ndarray, "d h w"]:
        return self._where(geometry, lambda unit: np.all((unit >= -1e-6) & (unit < 1 - 1e-6), axis=1))

    def paint_ellipsoid(self, geometry: Geometry) -> Bool[np.ndarray, "d h w"]:
        """The voxels whose centres lie in the ellipsoid inscribed in this box."""
        return self._where(geometry, lambda unit: np.sum((2 * unit - 1) ** 2, axis=1) <= 1.0)

    def moved(self, alignment: Alignment, geometry: Geometry) -> Box:
        """Its faces' centres are carried over; exact for an affine alignment, the best parallelepiped for another."""
        faces = alignment.forward(self.corner + _FACES @ self.edges.T)
        edges = (faces[1::2] - faces[0::2]).T
        return Box(faces.mean(axis=0) - edges.sum(axis=1) / 2, edges)

    def grown(self, by_mm: float) -> Box:
        """Every face moved outwards."""
        edges = self.edges * (1 + 2 * by_mm / self.size_mm)
        return Box(self.centre - edges.sum(axis=1) / 2, edges)

    def to_json(self) -> dict[str, Any]:
        """Its bounds along the LPS axes, which is all of it unless it is oblique."""
        corners = self.points_mm
        return {"min": _numbers(corners.min(axis=0)), "max": _numbers(corners.max(axis=0))}

    def _where(self, geometry: Geometry, inside: _Inside) -> Bool[np.ndarray, "d h w"]:
        painted = np.zeros(geometry.shape, bool)
        covered = geometry.clip(*geometry.around(self.points_mm))
        if covered is None:
            return painted
        region = geometry.crop(*covered)
        index = np.indices(region.shape).reshape(3, -1).T.astype(float)
        hit = inside(self.to_unit(region.index_to_world(index))).reshape(region.shape)
        painted[tuple(slice(a, b) for a, b in zip(*covered, strict=True))] = hit
        return painted


@dataclass(frozen=True, eq=False)
class Line:
    """A measured diameter from one end of the lesion to the other, as in RECIST."""

    start: Float[np.ndarray, "3"]
    end: Float[np.ndarray, "3"]
    kind: ClassVar[str] = "line"

    @property
    def points_mm(self) -> Float[np.ndarray, "n 3"]:
        return np.stack([self.start, self.end])

    @property
    def length_mm(self) -> float:
        return float(np.linalg.norm(self.end - self.start))

    def paint(self, geometry: Geometry) -> Bool[np.ndarray, "d h w"]:
        steps = 1 + int(np.ceil(4 * self.length_mm / geometry.spacing_mm.min()))
        along = np.linspace(0.0, 1.0, steps)[:, None]
        return _touched(geometry, self.start + along * (self.end - self.start))

    def moved(self, alignment: Alignment, geometry: Geometry) -> Line:
        start, end = alignment.forward(self.points_mm)
        return Line(start, end)

    def to_json(self) -> dict[str, Any]:
        return {"from": _numbers(self.start), "to": _numbers(self.end)}


@dataclass(frozen=True, eq=False)
class Shape:
    """An outline that already exists, from a reader or from an earlier scan."""

    mask: Mask
    kind: ClassVar[str] = "mask"

    @property
    def points_mm(self) -> Float[np.ndarray, "n 3"]:
        return self.mask.geometry.corners_mm

    def paint(self, geometry: Geometry) -> Bool[np.ndarray, "d h w"]:
        return self.mask.placed(geometry).on(geometry)

    def moved(self, alignment: Alignment, geometry: Geometry) -> Shape:
        return Shape(self.mask.warped(geometry, alignment))

    def to_json(self) -> dict[str, Any]:
        return {"voxels": self.mask.voxels, "volume_ml": self.mask.volume_ml}


PROMPTS: dict[str, type[Click] | type[Box] | type[Line] | type[Shape]] = {
    "click": Click,
    "box": Box,
    "line": Line,
    "mask": Shape,
}


def _touched(geometry: Geometry, at_mm: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, "d h w"]:
    painted = np.zeros(geometry.shape, bool)
    index = geometry.world_to_index(at_mm[geometry.contains(at_mm)]) + 0.5
    # A point on the border between voxels touches all of them: else the order of storage would choose one.
    for nudge in (2 * _CORNERS - 1) * 1e-6:
        found = np.clip(np.floor(index + nudge).astype(int), 0, np.array(geometry.shape) - 1)
        painted[tuple(found.T)] = True
    return painted


def _numbers(values: Float[np.ndarray, "3"]) -> list[float]:
    return [float(v) for v in values]

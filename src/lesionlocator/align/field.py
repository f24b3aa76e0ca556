"""Dense displacements: a point map on a grid, and the flow of a velocity, which can always be run backwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from lesionlocator.geometry import Geometry


@dataclass(frozen=True, eq=False)
class FieldMap:
    """A point map x -> x + displacement(x), in LPS millimetres.

    `displacement_mm` is (3, d, h, w), its first axis x, y, z. Between grid points it is linear. Beyond the grid it
    keeps the value of the nearest point of the grid's border: what was not seen moves along with what was.
    """

    displacement_mm: Float[np.ndarray, "3 d h w"]
    geometry: Geometry

    def __call__(self, at_mm: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        index = self.geometry.world_to_index(at_mm).T
        moved = np.array(at_mm, float)
        for axis in range(3):
            moved[:, axis] += ndimage.map_coordinates(self.displacement_mm[axis], index, order=1, mode="nearest")
        return moved

    def volume_change(self) -> Float[np.ndarray, "d h w"]:
        """Determinant of the map's derivative at each grid point: 1 keeps volumes, 0 or less is a fold."""
        towards_index = np.linalg.inv(self.geometry.affine[:3, :3])
        slopes = np.stack([np.stack(np.gradient(part)) for part in self.displacement_mm])
        derivative = np.einsum("cidhw,ij->dhwcj", slopes, towards_index) + np.eye(3)
        return np.linalg.det(derivative)


_FULL = 0.7
"""Share of a grid that moves above which looking up all of it is quicker than picking out what moves."""

Steps = Float[np.ndarray, "3 d h w"]
"""A displacement in voxels of its own grid, along d, h, w: what the search computes with."""


def to_field(steps: Steps, geometry: Geometry) -> FieldMap:
    """The same displacement in millimetres."""
    return FieldMap(np.einsum("ij,jdhw->idhw", geometry.affine[:3, :3], steps).astype(np.float32), geometry)


def shown(array: Float[np.ndarray, "d h w"], steps: Steps) -> Float[np.ndarray, "d h w"]:
    """The array looked up at x + steps(x), linear, the border repeated."""
    index = np.indices(array.shape, dtype=np.float32) + steps
    return ndimage.map_coordinates(array, index, order=1, mode="nearest", output=np.float32, prefilter=False)


def first_then(first: Steps, second: Steps) -> Steps:
    """One displacement for going `first` and, from where that leads, `second`."""
    moves = first.any(axis=0)
    if np.count_nonzero(moves) > _FULL * moves.size:
        index = np.indices(moves.shape, dtype=np.float32) + first
        rest = [ndimage.map_coordinates(part, index, order=1, mode="nearest", output=np.float32) for part in second]
        return first + np.stack(rest)
    # From where nothing moves it is `second` as it stands; around one lesion that is half of the grid.
    found = second + np.float32(0)
    where = np.nonzero(moves)
    at = np.stack(where).astype(np.float32) + first[:, *where]
    for part, values in zip(second, found, strict=True):
        values[where] = ndimage.map_coordinates(part, at, order=1, mode="nearest", output=np.float32)
    return first + found


def flow(velocity: Steps) -> Steps:
    """Where one unit of time in a steady velocity leads (scaling and squaring).

    The flow of `-velocity` is its inverse, which is why the search never has to invert anything.
    Arsigny et al., MICCAI 2006, doi 10.1007/11866565_113.
    """
    longest = float(np.sqrt((velocity**2).sum(axis=0)).max())
    doublings = max(0, int(np.ceil(np.log2(max(longest, 1e-6) / 0.25))))
    steps = (velocity / 2**doublings).astype(np.float32)
    for _ in range(doublings):
        steps = first_then(steps, steps)
    return steps


def on_grid(steps: Steps, old: Geometry, new: Geometry) -> Float[np.ndarray, "3 D H W"]:
    """The same displacement on another grid with parallel axes, in voxels of the new grid."""
    matrix = np.linalg.solve(old.affine, new.affine)
    parts = [
        ndimage.affine_transform(
            part, matrix[:3, :3], matrix[:3, 3], output_shape=new.shape, order=1, mode="nearest", output=np.float32
        )
        for part in steps
    ]
    return np.stack(parts) * (old.spacing_mm / new.spacing_mm).astype(np.float32)[:, None, None, None]

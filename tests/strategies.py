"""Random grids and prompts for property tests."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from lesionlocator.geometry import Geometry

SHAPE = (7, 9, 11)
PERMUTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def rotation(angles) -> np.ndarray:
    """A rotation by three angles in radians about x, y and z."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


@st.composite
def oblique_affines(draw) -> np.ndarray:
    """Any rotation, spacing from 0.3 to 8 mm, any origin within 2 m, and sometimes a gantry tilt."""
    angles = [draw(st.floats(-3.1, 3.1)) for _ in range(3)]
    spacing = np.array([draw(st.floats(0.3, 8.0)) for _ in range(3)])
    tilt = np.eye(3)
    tilt[0, 2] = draw(st.sampled_from([0.0, 0.0, 0.3]))
    affine = np.eye(4)
    affine[:3, :3] = rotation(angles) @ tilt @ np.diag(spacing)
    affine[:3, 3] = [draw(st.floats(-2000.0, 2000.0)) for _ in range(3)]
    return affine


@st.composite
def ranges(draw, shape=SHAPE) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Start and stop of a non-empty part of a grid."""
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    return start, stop


def stored(array: np.ndarray, geometry: Geometry, order, signs) -> tuple[np.ndarray, Geometry]:
    """The same voxels in the same places of the patient, in another order of storage."""
    turned = np.transpose(array, order)
    affine = geometry.affine.copy()
    affine[:3, :3] = geometry.affine[:3, :3][:, list(order)]
    for axis, sign in enumerate(signs):
        if sign < 0:
            turned = np.flip(turned, axis)
            affine[:3, 3] += affine[:3, axis] * (turned.shape[axis] - 1)
            affine[:3, axis] *= -1
    return np.ascontiguousarray(turned), Geometry(turned.shape, affine)

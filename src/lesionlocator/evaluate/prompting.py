"""Prompts made from true outlines the way people make them, each with its own seed."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.measure import axial_axis, measure_diameters
from lesionlocator.prompt import Box, Click, Line, Prompt
from lesionlocator.volume import Mask

CARRIED_SD_VOXELS = (2.8, 5.2, 5.4)
"""How far off a click is that a registration carried to the next scan: along z, y, x."""


@dataclass(frozen=True)
class Recipe:
    """A way of making a prompt, and how strongly: `moved-box:0.1` moves each face by up to a tenth."""

    kind: str
    amount: float | None = None

    @property
    def name(self) -> str:
        return self.kind if self.amount is None else f"{self.kind}:{self.amount:g}"

    @staticmethod
    def parse(text: str) -> Recipe:
        """A recipe from its name in a protocol."""
        kind, colon, amount = text.partition(":")
        if kind not in RECIPES:
            raise Refused(found=f"the prompt {text!r}", needed=f"one of {', '.join(RECIPES)}", do="mend the protocol")
        try:
            return Recipe(kind, float(amount) if colon else None)
        except ValueError:
            raise Refused(
                found=f"the prompt {text!r}", needed="a number after the colon", do="mend the protocol"
            ) from None

    def make(self, truth: Mask, *, seed: int, name: str) -> tuple[Prompt, ...]:
        """The prompt for one lesion.

        Args:
            truth: Its true outline; not empty.
            seed: Of the protocol.
            name: Of the lesion and its case. Draws depend on seed, name and kind alone: neither the order of lesions
                nor what else is asked changes a prompt, and all amounts of one kind use the same draws.
        """
        words = [seed, *(zlib.crc32(text.encode()) for text in (name, self.kind))]
        return (RECIPES[self.kind](truth, self.amount or 0.0, np.random.default_rng(words)),)


def tight_box(truth: Mask, amount: float, rng: np.random.Generator) -> Box:
    """The tight box."""
    return Box.around(truth)


def moved_box(truth: Mask, amount: float, rng: np.random.Generator) -> Box:
    """The tight box with each face moved in or out by up to this share of the box's size."""
    box = Box.around(truth)
    low, high = amount * rng.uniform(-1, 1, (2, 3))
    return Box(box.corner + box.edges @ low, box.edges * (1 + high - low))


def shifted_box(truth: Mask, amount: float, rng: np.random.Generator) -> Box:
    """The tight box this many mm away, in a random direction that is the same for all distances."""
    box = Box.around(truth)
    return Box(box.corner + amount * _direction(rng), box.edges)


def scaled_box(truth: Mask, amount: float, rng: np.random.Generator) -> Box:
    """The tight box with its edges this many times as long."""
    box = Box.around(truth)
    return Box(box.centre - amount * box.edges.sum(axis=1) / 2, amount * box.edges)


def deepest_click(truth: Mask, amount: float, rng: np.random.Generator) -> Click:
    """A click on the voxel that is furthest from the border."""
    return Click.inside(truth)


def inner_click(truth: Mask, amount: float, rng: np.random.Generator) -> Click:
    """A click on a random voxel of the lesion, the likelier the deeper it lies (by the square of its depth)."""
    depth = truth.depth_mm[truth.array]
    return Click(truth.points_mm[rng.choice(len(depth), p=depth**2 / np.sum(depth**2))])


def carried_click(truth: Mask, amount: float, rng: np.random.Generator) -> Click:
    """The deepest click, off as a registration leaves it, but not further than the box reaches from its middle.

    The offset is normal, with its own spread along the patient's axes (in voxels), and cut at two spreads.
    """
    geometry, axes = truth.geometry, list(axes_zyx(truth.geometry))
    # Along the patient's axes, whichever way the array runs.
    ways = np.sign(geometry.affine[[2, 1, 0], axes])
    voxels = np.zeros(3)
    voxels[axes] = ways * CARRIED_SD_VOXELS * np.clip(rng.standard_normal(3), -2, 2)
    most = np.array(truth.array.shape) / 2
    return Click(truth.deepest_mm + geometry.affine[:3, :3] @ np.clip(voxels, -most, most))


def shifted_click(truth: Mask, amount: float, rng: np.random.Generator) -> Click:
    """The deepest click this many mm away, in a random direction that is the same for all distances."""
    return Click(truth.deepest_mm + amount * _direction(rng))


def longest_line(truth: Mask, amount: float, rng: np.random.Generator) -> Line:
    """The longest diameter in an axial slice, as RECIST measures it."""
    start, end = measure_diameters(truth).long_ends
    return Line(start, end)


def correction(answer: Mask | None, truth: Mask) -> Click | None:
    """The click of a reader who corrects: deep in the largest error. None when nothing is wrong.

    Positive where the lesion was missed, negative where too much was outlined. Errors are 26-connected parts; the one
    with most voxels counts, and its deepest voxel is clicked. What was missed goes first on a tie.
    """
    found = Mask.empty(truth.geometry) if answer is None else answer
    corners = [mask.geometry.corners_mm for mask in (truth, found) if not mask.is_empty]
    if not corners:
        return None
    region = truth.geometry.crop(*truth.geometry.around(np.concatenate(corners)))
    true, said = truth.on(region), found.on(region)
    missed, beyond = _largest_part(true & ~said), _largest_part(said & ~true)
    if not missed.any() and not beyond.any():
        return None
    positive = np.count_nonzero(missed) >= np.count_nonzero(beyond)
    error = Mask.from_array(missed if positive else beyond, region)
    return Click(error.deepest_mm, bool(positive))


def axes_zyx(geometry: Geometry) -> tuple[int, int, int]:
    """Which array axes run nearest to the patient's z, y and x."""
    z = axial_axis(geometry)
    one, other = (axis for axis in range(3) if axis != z)
    along_y = np.abs(geometry.affine[1, :3]) / geometry.spacing_mm
    return (z, one, other) if along_y[one] >= along_y[other] else (z, other, one)


def _direction(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    drawn = rng.standard_normal(3)
    return drawn / np.linalg.norm(drawn)


def _largest_part(error: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(error, np.ones((3, 3, 3), bool))
    if not count:
        return error
    return np.asarray(labels) == 1 + int(np.argmax(np.bincount(np.asarray(labels).ravel())[1:]))


RECIPES: dict[str, Callable[[Mask, float, np.random.Generator], Prompt]] = {
    "box": tight_box,
    "moved-box": moved_box,
    "shifted-box": shifted_box,
    "scaled-box": scaled_box,
    "deepest-click": deepest_click,
    "inner-click": inner_click,
    "carried-click": carried_click,
    "shifted-click": shifted_click,
    "line": longest_line,
}
"""Name in a protocol -> how it is made from a true outline, an amount and a random generator."""

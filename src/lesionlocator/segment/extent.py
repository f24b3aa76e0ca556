"""How far a lesion reaches, read off its prompts: as boxes whose inscribed ellipsoids are the first guess."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click, Line, Prompt, Shape
from lesionlocator.resample import sample
from lesionlocator.segment.ask import Ask, NotOutlined, is_positive, touched
from lesionlocator.volume import Volume

SHORT_TO_LONG = 0.75
"""Width of a lesion of which only the longest diameter is known."""

REACH_MM = 80.0
"""How far a lesion may reach from a single click."""

_DIRECTIONS = 128
_RADII_MM = 1.5 * 1.08 ** np.arange(52)


@dataclass(frozen=True, eq=False)
class Extent:
    """A box that the lesion fills, and whether a reader drew it (`sure`) or it was guessed from a line or a click."""

    box: Box
    sure: bool


def read_extents(volume: Volume, ask: Ask) -> tuple[Extent, ...]:
    """The boxes that a lesion fills: one for a lesion in one piece.

    Boxes are taken as they are; without any, the tight boxes of masks; without these, lines as diameters; with clicks
    alone the picture has to tell.
    """
    boxes = [box for box in ask if isinstance(box, Box)]
    boxes = boxes or [Box.around(shape.mask) for shape in ask if isinstance(shape, Shape)]
    if boxes:
        return tuple(Extent(_at_least_a_voxel(box, volume.geometry), sure=True) for box in boxes)
    lines = [line for line in ask if isinstance(line, Line)]
    guess = _along(lines, volume.geometry) if lines else _grown(volume, ask)
    return (Extent(_at_least_a_voxel(guess, volume.geometry), sure=False),)


def click_reach_mm(box: Box) -> float:
    """How far a click speaks for its neighbourhood: a tenth of the lesion's mean size."""
    return 0.1 * float(box.size_mm.mean())


def known(volume: Volume, box: Box) -> None:
    """Refuses a lesion whose box holds voxels that are no numbers, or none at all."""
    covered = touched(box, volume.geometry)
    if covered is None:
        raise NotOutlined("the prompt lies outside the scan")
    region = volume.crop(*covered)
    if region.array.dtype.kind == "f" and not np.isfinite(region.array[box.paint(region.geometry)]).all():
        raise NotOutlined("voxels at the prompt are not numbers (NaN or infinite)")


def _at_least_a_voxel(box: Box, geometry: Geometry) -> Box:
    """A flat box, as drawn on one slice, gets the thickness of a voxel."""
    thinnest = float(geometry.spacing_mm.min())
    size_mm = box.size_mm
    if size_mm.min() >= 1e-3 * thinnest:
        return box
    flat = size_mm < 1e-3 * thinnest
    if flat.sum() > 1:
        return Box.from_bounds(box.centre - geometry.spacing_mm.max() / 2, box.centre + geometry.spacing_mm.max() / 2)
    edges = box.edges.copy()
    first, second = edges[:, ~flat].T
    normal = np.cross(first, second)
    step = np.abs(normal @ geometry.affine[:3, :3]).max() / np.linalg.norm(normal)
    edges[:, flat] = (normal / np.linalg.norm(normal) * step)[:, None]
    return Box(box.centre - edges.sum(axis=1) / 2, edges)


def _along(lines: list[Line], geometry: Geometry) -> Box:
    """Round the longest line; a second line gives the width."""
    longest = max(lines, key=lambda line: line.length_mm)
    others = [line.length_mm for line in lines if line is not longest]
    length_mm = max(longest.length_mm, float(geometry.spacing_mm.min()))
    width_mm = max(others) if others else SHORT_TO_LONG * length_mm
    along = longest.end - longest.start
    along = along / np.linalg.norm(along) if np.any(along) else np.array([1.0, 0.0, 0.0])
    upright = np.array([0.0, 0.0, 1.0]) if abs(along[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    across = np.cross(along, upright)
    across /= np.linalg.norm(across)
    edges = np.stack([along * length_mm, across * width_mm, np.cross(along, across) * width_mm], axis=1)
    return Box((longest.start + longest.end) / 2 - edges.sum(axis=1) / 2, edges)


def _grown(volume: Volume, ask: Ask) -> Box:
    """The box round what rays from every positive click reach before the picture changes."""
    clicks = [prompt for prompt in ask if isinstance(prompt, Click) and is_positive(prompt)]
    against = [prompt for prompt in ask if not is_positive(prompt)]
    reached = np.concatenate([_reached(volume, click.at, against) for click in clicks])
    low, high = reached.min(axis=0), reached.max(axis=0)
    return Box.from_bounds(low, high)


def _reached(volume: Volume, at_mm: Float[np.ndarray, "3"], against: list[Prompt]) -> Float[np.ndarray, "n 3"]:
    value = sample(volume, at_mm[None])
    if not np.isfinite(value).all():
        raise NotOutlined("the voxel at the click is not a number (NaN or infinite)")
    directions = _sphere(_DIRECTIONS)
    points = at_mm + directions[:, None] * _RADII_MM[None, :, None]
    flat = points.reshape(-1, 3)
    values = sample(volume, flat)
    values[~volume.geometry.contains(flat)] = np.nan
    values = values.reshape(points.shape[:2])
    near = values[:, _RADII_MM <= 4.0]
    middle = float(np.nanmedian(near))
    spread = 1.4826 * float(np.nanmedian(np.abs(near - middle)))
    tolerance = max(3.0 * spread, 0.1 * _range(values))
    alike = np.abs(values - middle) <= tolerance
    length_mm = _RADII_MM[np.minimum(np.argmin(alike, axis=1), len(_RADII_MM) - 1)]
    limits = [float(np.linalg.norm(prompt.points_mm[0] - at_mm)) for prompt in against]
    radius_mm = float(np.clip(np.median(length_mm), volume.geometry.spacing_mm.max(), min([REACH_MM, *limits])))
    return at_mm + directions * np.clip(length_mm, 0.7 * radius_mm, 1.4 * radius_mm)[:, None]


def _range(values: Shaped[np.ndarray, "..."]) -> float:
    low, high = np.nanpercentile(values, (5, 95))
    return float(high - low)


def _sphere(number: int) -> Float[np.ndarray, "n 3"]:
    """Directions spread evenly over the sphere (Fibonacci lattice), each with its opposite."""
    step = np.arange(number // 2) + 0.5
    z = 1 - step / (number // 2)
    angle = step * np.pi * (3 - np.sqrt(5))
    half = np.stack([np.cos(angle) * np.sqrt(1 - z**2), np.sin(angle) * np.sqrt(1 - z**2), z], axis=1)
    return np.concatenate([half, -half])

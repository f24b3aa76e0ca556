"""From prompts to where the lesion is expected; from a click alone the picture has to tell how far it reaches."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click, Line, Shape
from lesionlocator.segment.ask import Ask
from lesionlocator.segment.contrast import Rules, separation
from lesionlocator.segment.extent import Extent, at_least_a_voxel, known
from lesionlocator.segment.refine import refine
from lesionlocator.segment.window import Window, look
from lesionlocator.volume import Mask, Volume

SHORT_TO_LONG = 0.75
"""Width of a lesion of which only the longest diameter is known."""

RADII_MM = 4.0 * 1.25 ** np.arange(15)
"""How far a lesion may reach from a click: 4 to 91 mm."""

_VOXELS = 32
_ROUNDS = 2
_NOTHING = 0.1


def read_extents(volume: Volume, ask: Ask) -> tuple[Extent, ...]:
    """The boxes that a lesion fills: one for a lesion in one piece.

    Boxes are taken as they are; without any, the tight boxes of masks; without these, lines as diameters; with clicks
    alone the picture has to tell.
    """
    boxes = [box for box in ask if isinstance(box, Box)]
    boxes = boxes or [Box.around(shape.mask) for shape in ask if isinstance(shape, Shape)]
    lines = [line for line in ask if isinstance(line, Line)]
    if not boxes and not lines:
        return (Extent(at_least_a_voxel(_round_clicks(volume, ask), volume.geometry), sure=False),)
    drawn = boxes or [_along(lines, volume.geometry)]
    extents = tuple(Extent(at_least_a_voxel(box, volume.geometry), sure=bool(boxes)) for box in drawn)
    for extent in extents:
        known(volume, extent.box)
    return extents


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


def _round_clicks(volume: Volume, ask: Ask) -> Box:
    """The box round what every positive click finds."""
    clicks = [prompt for prompt in ask if isinstance(prompt, Click)]
    positive = [click for click in clicks if click.positive]
    corners = np.concatenate([_round_click(volume, click, clicks).points_mm for click in positive])
    return Box.from_bounds(corners.min(axis=0), corners.max(axis=0))


def _round_click(volume: Volume, click: Click, clicks: list[Click]) -> Box:
    """The ball that differs most from the shell round it, then the box that its outline fills, twice."""
    known(volume, Box.from_bounds(click.at - 0.01, click.at + 0.01))
    limit_mm = min([np.inf, *(float(np.linalg.norm(other.at - click.at)) for other in clicks if not other.positive)])
    radii_mm = RADII_MM[max(limit_mm, RADII_MM[0]) >= RADII_MM]
    windows = (_ball(volume, click.at, float(radius_mm)) for radius_mm in radii_mm)
    ranked = [(_stands_out(window, volume), window.box) for window in windows]
    box = max(ranked, key=lambda pair: pair[0])[1]
    for _ in range(_ROUNDS):
        outline = refine(volume, tuple(clicks), Extent(box, sure=False), Rules(), _VOXELS)
        if outline.is_empty:
            break
        box = _filled(outline, click.at, box)
    return box


def _ball(volume: Volume, at_mm: Float[np.ndarray, "3"], radius_mm: float) -> Window:
    return look(volume, Box.from_bounds(at_mm - radius_mm, at_mm + radius_mm), margin=1.5, voxels=28)


def _stands_out(window: Window, volume: Volume) -> float:
    """How much the ball differs in brightness from the shell round it, less what chance and size explain."""
    counted = window.seen
    if volume.modality == "MR":
        # The black outside of the patient is not what a lesion stands out from.
        counted = counted & (window.values > _NOTHING * np.percentile(window.values, 98))
    inside = window.values[(window.radius < 0.9) & counted]
    outside = window.values[(window.radius > 1.1) & (window.radius < 1.5) & counted]
    if len(inside) < 3 or len(outside) < 8:
        return -1.0
    brighter, darker = separation(inside, outside)
    difference = brighter if volume.modality == "PT" else max(brighter, darker)
    chance = 1.36 * float(np.sqrt(1 / len(inside) + 1 / len(outside)))
    return difference - chance - 0.05 * float(np.log(window.box.size_mm.mean()))


def _filled(outline: Mask, at_mm: Float[np.ndarray, "3"], before: Box) -> Box:
    """The box of the ellipsoid with the moments of the part at the click, or of the largest; grows by 1.6 at most."""
    labels, _ = ndimage.label(outline.array, np.ones((3, 3, 3)))
    index = np.floor(outline.geometry.world_to_index(at_mm[None])[0] + 0.5).astype(int)
    inside = bool(np.all((index >= 0) & (index < labels.shape)))
    label = int(labels[tuple(index)]) if inside else 0
    part = labels == (label or 1 + int(np.argmax(np.bincount(labels.ravel())[1:])))
    points_mm = outline.geometry.index_to_world(np.argwhere(part).astype(float))
    half_mm = np.sqrt(5 * points_mm.var(axis=0))
    half_mm = np.maximum(np.clip(half_mm, before.size_mm / 3.2, before.size_mm * 0.8), 2.0)
    middle = points_mm.mean(axis=0)
    return Box.from_bounds(middle - half_mm, middle + half_mm)

"""What shape and brightness alone say of a patch: the classical outline that a network's belief is averaged with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click, Prompt, Shape
from lesionlocator.resample import resample
from lesionlocator.segment.ask import NotOutlined
from lesionlocator.segment.contrast import Rules
from lesionlocator.segment.extent import Extent
from lesionlocator.segment.refine import believe
from lesionlocator.volume import Mask, Modality, Volume

_VOXELS = 48

Cube = Float[np.ndarray, "side side side"]


@dataclass(frozen=True, eq=False)
class Glimpse:
    """What a scan shows in a patch: values (any unit) and which of them are known."""

    values: Cube
    seen: Cube
    modality: Modality


def first_belief(
    glimpse: Glimpse,
    expected: Float[np.ndarray, "2 3"],
    sure: bool,
    clicks: tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "m 3"]],
    prior: Cube | None = None,
) -> Cube:
    """How far each voxel is believed to be lesion by the rules of `intensity`, 0 to 1; 0.5 where nothing is known.

    Args:
        glimpse: What the patch shows.
        expected: Bounds of the lesion in patch voxels.
        sure: Whether a reader drew these bounds.
        clicks: In the lesion and out of it, in patch voxels.
        prior: An outline from before; counts only where the bounds are not sure.
    """
    values, seen = glimpse.values, glimpse.seen
    d, h, w = values.shape
    lattice = Geometry((d, h, w), np.eye(4))
    low, high = expected
    box = Box.from_bounds(low, np.maximum(high, low + 1.0))
    ask: list[Prompt] = []
    for places, positive in zip(clicks, (True, False), strict=True):
        ask += [Click(at, positive) for at in places]
    if sure:
        ask.append(box)
    elif prior is not None and (prior > 0.5).any():
        ask.append(Shape(Mask.from_array(prior > 0.5, lattice)))
    picture = Volume(np.where(seen > 0.5, values, np.float32(np.nan)), lattice, glimpse.modality)
    try:
        found = believe(picture, tuple(ask), Extent(box, sure), Rules(), _VOXELS)
    except NotOutlined:
        return np.full(values.shape, 0.5, np.float32)
    if found is None:
        belief = _ellipsoid(expected, values.shape)
    else:
        window, believed = found
        belief = resample(Volume(believed.astype(np.float32), window.grid, "CT"), lattice, outside=0.0)
    return np.where(seen > 0.5, belief, 0.0).astype(np.float32)


def squared_radius(bounds: Float[np.ndarray, "2 3"], shape: tuple[int, ...], least: float) -> Cube:
    """Zero in the middle of the bounds, one on the ellipsoid in them, whose half axes are at least so many voxels."""
    middle, half = bounds.mean(axis=0), np.maximum((bounds[1] - bounds[0]) / 2, least)
    d, h, w = (((np.arange(count) - middle[axis]) / half[axis]) ** 2 for axis, count in enumerate(shape))
    return d[:, None, None] + h[:, None] + w


def _ellipsoid(bounds: Float[np.ndarray, "2 3"], shape: tuple[int, ...]) -> Cube:
    """All that is left to say where the picture says nothing: soft at its border."""
    radius = np.sqrt(squared_radius(bounds, shape, 0.5))
    return expit((1 - radius) / Rules().softness).astype(np.float32)

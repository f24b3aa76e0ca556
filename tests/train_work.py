"""Regions to learn from, in a module of their own: other processes have to find them."""

import numpy as np

from lesionlocator.geometry import Geometry
from lesionlocator.train.data import Region
from lesionlocator.train.memory import PairRegion
from lesionlocator.volume import Volume

GRID = Geometry((36, 36, 36), np.diag([1.5, 1.5, 1.5, 1.0]))
AWAY = np.linalg.norm(np.indices(GRID.shape) - 17.5, axis=0)


def ball_region(rng, difficulty):
    """A ball of some size, with a core that another reading leaves out."""
    radius = rng.uniform(6, 12)
    inside, core = radius >= AWAY, radius / 2 >= AWAY
    values = np.where(inside, 100.0, 0.0) + rng.normal(0, 5, GRID.shape)
    return Region(Volume(values.astype(np.float32), GRID, "MR"), inside, "ball", core if difficulty > 0.5 else None)


def ball_pair(rng, difficulty, gone=None):
    """The ball at two visits; at the second one it has another size or, half of the time, is gone."""
    radius = rng.uniform(6, 9)
    there = (rng.random() < 0.5) if gone is None else not gone
    inside, after = radius >= AWAY, radius * rng.uniform(0.8, 1.2) >= AWAY if there else np.zeros(GRID.shape, bool)
    then, now = (np.where(where, 100.0, 0.0) + rng.normal(0, 5, GRID.shape) for where in (inside, after))
    return PairRegion(Volume(now.astype(np.float32), GRID, "MR"), then.astype(np.float32), inside, after, "ball")

"""Regions to learn from, in a module of their own: other processes have to find them."""

import numpy as np

from lesionlocator.geometry import Geometry
from lesionlocator.train.data import Region
from lesionlocator.volume import Volume

GRID = Geometry((36, 36, 36), np.diag([1.5, 1.5, 1.5, 1.0]))
AWAY = np.linalg.norm(np.indices(GRID.shape) - 17.5, axis=0)


def ball_region(rng, difficulty):
    """A ball of some size, with a core that another reading leaves out."""
    radius = rng.uniform(6, 12)
    inside, core = radius >= AWAY, radius / 2 >= AWAY
    values = np.where(inside, 100.0, 0.0) + rng.normal(0, 5, GRID.shape)
    return Region(Volume(values.astype(np.float32), GRID, "MR"), inside, "ball", core if difficulty > 0.5 else None)

"""Where a painted lesion is: its shape, the tissue that it keeps to, the part of it that is different."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage

from lesionlocator.synth.lattice import along, blur_matrix
from lesionlocator.synth.scene import Framing, Scene
from lesionlocator.synth.shapes import Shape, occupancy

BODIES = ("lobed", "spiculated", "necrotic", "cystic", "calcified")
_SHAPE_OF = {"nodule_in_lung": "lobed", "cold_core": "necrotic"}
_KEPT = 0.45
"""How often a body keeps to the tissue that it began in."""
_AT_BORDER = {"cold_core": 0.45, "necrotic": 0.3}
"""How often the part that is different reaches the border: cold on PET, dead elsewhere."""
_LEAST_KEPT = 0.3


@dataclass(frozen=True, eq=False)
class Lesion:
    """Occupancy on the scanner's voxels."""

    kind: str
    outer: Float32[np.ndarray, "d h w"]
    core: Float32[np.ndarray, "d h w"] | None
    core_is_target: bool
    ambiguous: bool
    level: Float32[np.ndarray, "d h w"]
    centre: Float[np.ndarray, "3"]
    radius: Float[np.ndarray, "3"]

    @property
    def bright(self) -> Float32[np.ndarray, "d h w"]:
        """The part that carries the lesion's own intensity."""
        return self.outer if self.core is None else np.maximum(self.outer - self.core, 0)


def draw_lesion(rng: np.random.Generator, scene: Scene, kind: str, framing: Framing) -> Lesion:
    """The kind's shape on the scanner's voxels, and what the tissue leaves of it."""
    shape = Shape.draw(rng, _SHAPE_OF.get(kind, kind))
    level, core_level = levels_on(shape, framing.side, framing.centre, framing.radius)
    voxels = float(framing.radius.mean())
    down = scene.lattice.down
    outer = along(occupancy(level, voxels), down)
    core = None if core_level is None else along(occupancy(core_level, voxels), down)
    outer = outer * scene.inside
    core = None if core is None else core * scene.inside
    if core is not None:
        # A broken ring has gaps in its wall only.
        outer = np.maximum(outer, core)
        core = core if core.sum() > 0.03 * outer.sum() or kind == "calcified" else None
    if core is not None and rng.random() < _AT_BORDER.get(kind, 0.0):
        core = _part_at_border(rng, scene, framing) * outer
    if kind == "ring" and core is None:
        kind = "lobed"
    seen_level = along(level, down)
    if kind in BODIES and scene.place == "soft" and scene.modality != "PT" and rng.random() < _KEPT:
        outer, seen_level = _kept_to_tissue(rng, scene, outer, seen_level)
        core = None if core is None else np.minimum(core, outer)
    ambiguous = bool(kind == "ring" and rng.random() < 0.5)
    # What the picture alone has to say: in MR the rim that takes up contrast is outlined, in PET and CT all of it.
    core_in = bool(rng.random() < 0.5) if ambiguous else scene.modality != "MR"
    target = core_in or kind != "ring"
    return Lesion(kind, outer, core, target, ambiguous, seen_level, framing.centre, framing.radius)


def _kept_to_tissue(
    rng: np.random.Generator, scene: Scene, outer: np.ndarray, level: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What of the shape is in the tissue that it began in, with its level; all of it where that is little.

    A tumour of soft tissue fills a compartment: it ends at fat or bone, where the picture has a strong edge, and
    within the muscle, where it has a weak one.
    """
    smooth = along(scene.image, [blur_matrix(n, 1.0) for n in outer.shape])
    deep = np.argwhere(level < 0.6 * float(level.min()))
    if not len(deep):
        return outer, level
    began = tuple(int(v) for v in deep[int(rng.integers(len(deep)))])
    reach = rng.uniform(40, 120) if scene.modality == "CT" else rng.uniform(0.12, 0.35) * scene.scale
    away = np.abs(smooth - smooth[began]) / np.float32(reach) - 1
    like = 1 / (1 + np.exp(np.clip(8 * away, -30, 30)))
    kept = along(outer * like, [blur_matrix(n, 0.6) for n in outer.shape])
    labels, _ = ndimage.label(kept > 0.5)
    own = labels == labels[began]
    if not labels[began] or np.count_nonzero(own) < _LEAST_KEPT * np.count_nonzero(outer > 0.5):
        return outer, level
    kept = kept * ndimage.binary_dilation(own)
    return kept.astype(np.float32), np.maximum(level, np.clip(0.4 * away, -1, 0.5)).astype(np.float32)


def _part_at_border(rng: np.random.Generator, scene: Scene, framing: Framing) -> np.ndarray:
    """Occupancy of a body whose middle is near the lesion's border, anywhere round it."""
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    size = rng.uniform(0.3, 0.65) * framing.radius
    centre = framing.centre + direction * framing.radius * rng.uniform(0.5, 0.95)
    level, _ = levels_on(Shape.draw(rng, "lobed"), framing.side, centre, size)
    return along(occupancy(level, float(size.mean())), scene.lattice.down)


def levels_on(shape: Shape, side: int, centre: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The shape's levels on the fine voxels of the region, worked out near the lesion only."""
    low = np.clip(np.floor(centre - 1.45 * radius), 0, side).astype(int)
    high = np.clip(np.ceil(centre + 1.45 * radius) + 1, 0, side).astype(int)
    axes = [(np.arange(a, b) - c) / r for a, b, c, r in zip(low, high, centre, radius, strict=True)]
    level, core = shape.levels((axes[0], axes[1], axes[2]))
    where = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    full = np.full((side, side, side), np.float32(0.5))
    full[where] = level
    if core is None:
        return full, None
    full_core = np.full_like(full, 0.5)
    full_core[where] = core
    return full, full_core

"""Training regions: a painted lesion in real or random tissue, with the truth of every voxel.

`draw_region(rng, backgrounds, settings)` is all that a training loop needs; `Backgrounds` holds the scans. The lesion
is painted on fine voxels, seen through the scanner's own (coarser, often thick) voxels with partial volume, noise and
blur, and shown on the region again. The lesion's box is 20 to 75 % of the region's side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from lesionlocator.synth.body import BODIES, Lesion, draw_lesion, levels_on
from lesionlocator.synth.lattice import along, blur_matrix, correlated_noise, smooth_noise
from lesionlocator.synth.scene import (
    Backgrounds,
    Framing,
    Scene,
    cut_organ,
    cut_scene,
    draw_label_scene,
    pick,
    remapped,
)
from lesionlocator.synth.shapes import Shape, occupancy

_KINDS = {
    "CT": {
        "lobed": 0.42,
        "spiculated": 0.05,
        "ring": 0.06,
        "branch": 0.07,
        "parts": 0.08,
        "fragments": 0.04,
        "nodule_in_lung": 0.09,
        "cystic": 0.05,
        "necrotic": 0.1,
        "calcified": 0.03,
    },
    "MR": {
        "lobed": 0.4,
        "spiculated": 0.03,
        "ring": 0.32,
        "branch": 0.08,
        "parts": 0.07,
        "fragments": 0.05,
        "necrotic": 0.09,
    },
    "PT": {"lobed": 0.42, "cold_core": 0.36, "parts": 0.12, "branch": 0.04, "ring": 0.06},
}
_LEAST_CONTRAST = {"ring_with_core": 0.6, "ring_without_core": 1.0, "branch": 1.0, "parts": 0.9, "fragments": 0.9}
"""What has no body must be seen: nobody outlines an invisible rim; learning from one teaches to ignore the picture."""
_LEAST = 0.1
_OWN_RIM = {"CT": 0.2, "MR": 0.08, "PT": 0.0}
"""How often a filled body has a thin rim of another brightness; rarer on MR, where a rim is mostly all that counts."""
_BORROWED = 0.5


@dataclass(frozen=True)
class RegionSettings:
    """What regions look like.

    Attributes:
        side: Voxels a side of the region.
        difficulty: 0 paints sharp, strong contrast only; 1 everything up to hardly visible lesions.
        pet_share: Share of PET-like regions.
        mr_share: Share of MR-like regions among the others.
        labels_share: Share of random label maps among what is not PET.
        remapped_share: Share of real scans (not PET) whose intensities go through a random curve besides.
        organ_share: Share of real organs (of scans that have them outlined) as targets.
        cut_share: Share of regions that the end of the file cuts.
        kind: Paint only this kind of lesion (for learning curves by kind); empty means the mix.
    """

    side: int = 64
    difficulty: float = 1.0
    pet_share: float = 0.24
    mr_share: float = 0.48
    labels_share: float = 0.22
    remapped_share: float = 0.1
    organ_share: float = 0.04
    cut_share: float = 0.14
    kind: str = ""


@dataclass(frozen=True, eq=False)
class PaintedRegion:
    """A region with its lesion.

    `mask` is the target. When `ambiguous`, the same picture also goes with `other_mask` (a ring with its core in or
    out), so that only a prompt can tell which is meant; `core` is the part in question. Beyond the end of the file
    (`valid` False) the image repeats its last voxels and nothing is a target. `contrast` is the difference of means
    inside and around the target over their pooled standard deviation.
    """

    image: Float32[np.ndarray, "d h w"]
    mask: Bool[np.ndarray, "d h w"]
    valid: Bool[np.ndarray, "d h w"]
    modality: str
    kind: str
    contrast: float
    spacing_mm: tuple[float, float, float]
    ambiguous: bool = False
    other_mask: Bool[np.ndarray, "d h w"] | None = None
    core: Bool[np.ndarray, "d h w"] | None = None


def draw_region(rng: np.random.Generator, backgrounds: Backgrounds, settings: RegionSettings) -> PaintedRegion:
    """One training sample; drawn again (up to ten times) when hardly anything of the lesion is left or to be seen.

    What is drawn again is of the same kind and modality: else rims and branches, which are often too faint, would be
    far rarer than the mix says.
    """
    modality = _draw_modality(rng, settings)
    kind = settings.kind or _draw_kind(rng, backgrounds, settings, modality)
    region = _draw_once(rng, backgrounds, settings, (modality, kind))
    for _ in range(10):
        if np.count_nonzero(region.mask) >= 60 and region.contrast >= _LEAST_CONTRAST.get(region.kind, _LEAST):
            break
        region = _draw_once(rng, backgrounds, settings, (modality, kind))
    return region


def _draw_kind(rng: np.random.Generator, backgrounds: Backgrounds, settings: RegionSettings, modality: str) -> str:
    organs = modality != "PT" and any(background.organs is not None for background in backgrounds.items)
    return "organ" if organs and rng.random() < settings.organ_share else _chosen(rng, _KINDS[modality])


def _draw_once(
    rng: np.random.Generator, backgrounds: Backgrounds, settings: RegionSettings, what: tuple[str, str]
) -> PaintedRegion:
    modality, kind = what
    hard = settings.difficulty * rng.random() ** 0.6
    framing = Framing.draw(rng, settings.side)
    if kind == "organ":
        return _organ_region(rng, _draw_organ(rng, backgrounds, settings, framing, modality))
    if modality == "PT":
        scene = _draw_pet(rng, backgrounds, framing)
    else:
        scene = _draw_scene(rng, backgrounds, settings, framing, what)
    lesion = draw_lesion(rng, scene, kind, framing)
    image = _painted(rng, scene, lesion, hard)
    image = _scanned(rng, scene, image, hard)
    return _shown(rng, scene, lesion, image, settings)


def _draw_modality(rng: np.random.Generator, settings: RegionSettings) -> str:
    """PET or not, then MR or CT; a kind that is painted alone may be at home in some only."""
    if settings.kind == "cold_core":
        return "PT"
    if settings.kind == "nodule_in_lung":
        return "CT"
    if rng.random() < settings.pet_share and (not settings.kind or settings.kind in _KINDS["PT"]):
        return "PT"
    return "MR" if rng.random() < settings.mr_share else "CT"


def _draw_pet(rng: np.random.Generator, backgrounds: Backgrounds, framing: Framing) -> Scene:
    real = backgrounds.of("PT")
    if real and rng.random() < 0.6:
        return cut_scene(rng, pick(rng, real), "soft", framing)
    return draw_label_scene(rng, framing, "PT")


def _draw_organ(
    rng: np.random.Generator, backgrounds: Backgrounds, settings: RegionSettings, framing: Framing, modality: str
) -> Scene:
    outlined = [b for b in backgrounds.items if b.organs is not None]
    scene = cut_organ(rng, pick(rng, outlined), framing)
    return remapped(rng, scene) if modality == "MR" or rng.random() < settings.remapped_share else scene


def _draw_scene(
    rng: np.random.Generator,
    backgrounds: Backgrounds,
    settings: RegionSettings,
    framing: Framing,
    what: tuple[str, str],
) -> Scene:
    """CT or MR: a real scan as it is, a real scan remapped, or a random label map."""
    modality, kind = what
    lung = kind == "nodule_in_lung"
    bone = modality == "CT" and rng.random() < 0.07
    wanted = "lung" if lung else "bone" if bone else "soft"
    if not lung and rng.random() < settings.labels_share:
        return draw_label_scene(rng, framing, modality)
    # There are few MR scans without tumours: half of what is painted as MR is a CT seen through another curve.
    bent = modality == "MR" and (not backgrounds.of("MR") or rng.random() < 0.5)
    within = "CT" if bent else modality
    place = wanted if backgrounds.of(within, wanted) or lung else "soft"
    real = backgrounds.of(within, place)
    if not real:
        return draw_label_scene(rng, framing, modality)
    scene = cut_scene(rng, pick(rng, real), place, framing)
    return remapped(rng, scene) if bent or (place == "soft" and rng.random() < settings.remapped_share) else scene


def _chosen(rng: np.random.Generator, shares: dict[str, float]) -> str:
    weights = np.array(list(shares.values()))
    return list(shares)[rng.choice(len(weights), p=weights / weights.sum())]


def _painted(rng: np.random.Generator, scene: Scene, lesion: Lesion, hard: float) -> np.ndarray:
    """Lesion, core, rim, halo and decoys over the tissue."""
    around, spread = _surroundings(scene, lesion)
    value = _own_value(rng, scene, lesion, (around, spread), hard)
    own = _filling(rng, scene, lesion, (around, value), hard)
    out = _bordered(rng, scene, lesion, abs(value - around))
    blur = _blur(rng, scene, hard)
    if rng.random() < (0.7 if scene.place == "lung" else 0.4):
        out = _with_decoys(rng, scene, lesion, own, out, blur)
    if lesion.core is not None:
        inner = _core_value(rng, scene, lesion, around, value)
        cells = rng.uniform(3, 10)
        rough = smooth_noise(rng, scene.lattice.shape, cells) * np.float32(rng.uniform(0, 0.15) * abs(value - around))
        core = along(np.minimum(lesion.core, lesion.outer), blur)
        own = own + core * (np.float32(inner) + rough - own)
    weight = along(lesion.outer, blur)
    return out + weight * (own - out)


def _surroundings(scene: Scene, lesion: Lesion) -> tuple[float, float]:
    """Mean and standard deviation of the tissue just around the lesion."""
    near = np.clip(1 - np.abs(lesion.level) / 0.4, 0, 1) * (lesion.outer < 0.5) * scene.inside
    total = float(near.sum())
    if total < 1:
        return float(scene.image.mean()), scene.scale / 10
    around = float((near * scene.image).sum() / total)
    return around, float(np.sqrt((near * (scene.image - around) ** 2).sum() / total))


def _filling(
    rng: np.random.Generator, scene: Scene, lesion: Lesion, values: tuple[float, float], hard: float
) -> np.ndarray:
    """What the lesion is filled with: texture, patches of another kind, flecks of calcium, a rim of its own."""
    around, value = values
    step = value - around
    shape = scene.lattice.shape
    own = np.full(shape, np.float32(value))
    texture = rng.uniform(0, 0.08 + 0.35 * hard) * abs(step)
    own += np.float32(texture) * smooth_noise(rng, shape, rng.uniform(3, 12))
    if rng.random() < 0.25 and scene.modality != "PT":
        # What grows into tissue keeps some of its look.
        kept = np.clip(scene.image - np.float32(around), -0.3 * scene.scale, 0.3 * scene.scale)
        own += np.float32(rng.uniform(0.1, 0.6)) * kept
    if rng.random() < 0.15 + 0.35 * hard:
        patch = 1 / (1 + np.exp(-4 * (smooth_noise(rng, shape, rng.uniform(2, 7)) - rng.uniform(0, 1.2))))
        own += patch.astype(np.float32) * np.float32(rng.uniform(-0.6, 0.3) * step)
    if rng.random() < _OWN_RIM[scene.modality]:
        own += _shell(rng, lesion, -1) * np.float32(rng.uniform(-0.5, 0.7) * abs(step))
    return own


def _bordered(rng: np.random.Generator, scene: Scene, lesion: Lesion, step: float) -> np.ndarray:
    """The tissue with what a lesion does to it just outside: swelling in MR, a thin line of fat or fluid."""
    out = scene.image
    if rng.random() < 0.25 and scene.modality == "MR":
        halo = np.clip(1 - lesion.level / np.float32(rng.uniform(0.15, 0.5)), 0, 1) * scene.inside
        out = out + np.float32(rng.uniform(-0.5, 0.5) * step) * halo
    if rng.random() < 0.2 and scene.modality != "PT":
        line = rng.uniform(-120, -30) if scene.modality == "CT" else rng.uniform(-0.3, 0.5) * scene.scale
        out = out + _shell(rng, lesion, 1) * scene.inside * np.float32(line)
    return out


def _shell(rng: np.random.Generator, lesion: Lesion, side: int) -> np.ndarray:
    """One on a thin shell just outside (side 1) or inside (-1) the border, falling off to both sides."""
    middle, width = side * rng.uniform(0.03, 0.1), rng.uniform(0.02, 0.06)
    return np.exp(-((lesion.level - np.float32(middle)) ** 2) / np.float32(2 * width**2))


def _own_value(
    rng: np.random.Generator, scene: Scene, lesion: Lesion, surroundings: tuple[float, float], hard: float
) -> float:
    """The lesion's mean: plain to see when easy, near its surroundings when hard."""
    around, spread = surroundings
    if scene.modality == "PT":
        low, high = (1.5, 10.0) if hard < 0.5 else (0.6, 5.0)
        return around * rng.uniform(0.8, 1.5) + float(np.exp(rng.uniform(np.log(low), np.log(high))))
    sign = 1.0 if rng.random() < (0.85 if lesion.kind == "ring" else 0.62) else -1.0
    if scene.place == "lung":
        return float(rng.uniform(-60, 70)) - rng.random() ** 3 * hard * 500
    if lesion.kind in BODIES and rng.random() < _BORROWED:
        # Tumours of soft tissue look much like some tissue near them.
        tissue = scene.image[scene.inside > 0]
        if len(tissue):
            return float(tissue[int(rng.integers(len(tissue)))]) + 0.04 * scene.scale * float(rng.standard_normal())
    if scene.modality == "CT" and rng.random() < 0.6 * hard + 0.1:
        return float(rng.uniform(-5, 95))
    strength = np.exp(rng.uniform(np.log(0.7 - 0.55 * hard), np.log(2.0 - 1.0 * hard)))
    unit = 80.0 if scene.modality == "CT" else 0.4 * scene.scale
    return around + sign * strength * max(unit, (1 - 0.6 * hard) * spread)


def _core_value(rng: np.random.Generator, scene: Scene, lesion: Lesion, around: float, value: float) -> float:
    if scene.modality == "PT":
        return around + rng.uniform(0.0, 0.45) * (value - around)
    if lesion.kind == "calcified":
        return value + (rng.uniform(100, 700) if scene.modality == "CT" else rng.uniform(-0.9, -0.3) * value)
    if lesion.kind == "cystic":
        away = rng.uniform(0.4, 1.2) * abs(value - around) + (15 if scene.modality == "CT" else 0.05 * scene.scale)
        return value - away if rng.random() < 0.7 else value + away
    if scene.modality == "MR" and lesion.kind == "necrotic":
        # Where contrast makes a rim stand out, the rim is what is outlined; where the core counts, the two look alike.
        return value + rng.uniform(-0.35, 0.3) * (value - around)
    if rng.random() < 0.25:
        return around
    return around + rng.uniform(-0.7, 0.4) * (value - around)


def _blur(rng: np.random.Generator, scene: Scene, hard: float) -> list[np.ndarray]:
    low, high = (0.7, 1.3) if scene.modality == "PT" else (0.0, 0.3 + 0.7 * hard)
    sigma = rng.uniform(low, high)
    return [
        blur_matrix(n, sigma * (1.0 if r < 2.5 else 0.4))
        for n, r in zip(scene.lattice.shape, scene.lattice.ratio, strict=True)
    ]


def _with_decoys(
    rng: np.random.Generator, scene: Scene, lesion: Lesion, own: np.ndarray, image: np.ndarray, blur: list[np.ndarray]
) -> np.ndarray:
    """Neighbours of the lesion's own intensity, touching it or apart, that are not part of the target."""
    for _ in range(int(rng.integers(1, 4))):
        direction = rng.standard_normal(3)
        direction /= np.linalg.norm(direction)
        size = rng.uniform(0.25, 0.8)
        centre = lesion.centre + direction * lesion.radius * (rng.uniform(0.75, 1.5) + size)
        kind = "branch" if rng.random() < (0.8 if scene.place == "lung" else 0.3) else "lobed"
        level, _ = levels_on(Shape.draw(rng, kind), scene.lattice.side, centre, lesion.radius * size)
        weight = along(occupancy(level, float(lesion.radius.mean() * size)), scene.lattice.down) * scene.inside
        image = image + along(weight, blur) * (own - image)
    return image


def _scanned(rng: np.random.Generator, scene: Scene, image: np.ndarray, hard: float) -> np.ndarray:
    """Noise as such a scanner makes it, and for MR an uneven field."""
    shape = scene.lattice.shape
    if scene.modality == "PT":
        image = np.maximum(image, 0) * np.float32(rng.uniform(0.4, 1.6))
        sigma = [rng.uniform(0.4, 0.9)] * 3
        grain = rng.uniform(0.02, 0.08 + 0.2 * hard)
        return np.maximum(image + np.float32(grain) * (image + 0.1) * correlated_noise(rng, shape, sigma), 0)
    if scene.modality == "MR":
        image = image * np.exp(np.float32(rng.uniform(0, 0.3)) * smooth_noise(rng, shape, 1.5))
    level = rng.random() ** 2 * (0.02 + 0.13 * hard) * (250.0 if scene.modality == "CT" else scene.scale)
    noise = correlated_noise(rng, shape, [float(s) for s in rng.uniform(0.0, 0.9, 3)])
    if scene.modality == "CT" and rng.random() < 0.3:
        noise = _streaked(rng, noise)
    return image + np.float32(level) * noise


def _streaked(rng: np.random.Generator, noise: np.ndarray) -> np.ndarray:
    """Noise drawn out along one slanted direction of the slice, as photon starvation between the hips makes it."""
    count = noise.shape[2]
    long = along(
        noise,
        [
            np.eye(noise.shape[0], dtype=np.float32),
            np.eye(noise.shape[1], dtype=np.float32),
            blur_matrix(count, rng.uniform(1.5, 4.0)),
        ],
    )
    slope = rng.uniform(-1.0, 1.0)
    shifted = (np.arange(count) + np.round(slope * np.arange(noise.shape[1])).astype(int)[:, None]) % count
    slanted = np.take_along_axis(long, np.broadcast_to(shifted, noise.shape), axis=2)
    return slanted / max(float(slanted.std()), 1e-3)


def _shown(
    rng: np.random.Generator, scene: Scene, lesion: Lesion, image: np.ndarray, settings: RegionSettings
) -> PaintedRegion:
    """Everything on the region's own voxels, cut by the end of the file."""
    up = scene.lattice.up
    shown = along(image, up)
    whole = along(lesion.outer, up) > 0.5
    valid = scene.valid
    if rng.random() < settings.cut_share:
        valid, shown = _cut(rng, lesion, valid, shown)
    whole &= valid
    core = None if lesion.core is None else (along(np.minimum(lesion.core, lesion.outer), up) > 0.5) & whole
    mask, other, kind = whole, None, lesion.kind
    if lesion.kind == "ring" and core is not None:
        without = whole & ~core
        mask, other = (whole, without) if lesion.core_is_target else (without, whole)
        kind = "ring_with_core" if lesion.core_is_target else "ring_without_core"
    other = other if lesion.ambiguous else None
    return PaintedRegion(
        np.ascontiguousarray(shown, np.float32),
        mask,
        valid,
        scene.modality,
        kind,
        _contrast(shown, mask, valid),
        scene.spacing_mm,
        lesion.ambiguous,
        other,
        core,
    )


def _organ_region(rng: np.random.Generator, scene: Scene) -> PaintedRegion:
    image = along(_scanned(rng, scene, scene.image, 0.2), scene.lattice.up)
    assert_organ = scene.organ if scene.organ is not None else np.zeros(scene.lattice.shape, bool)
    mask = (along(assert_organ.astype(np.float32), scene.lattice.up) > 0.5) & scene.valid
    contrast = _contrast(image, mask, scene.valid)
    return PaintedRegion(
        np.ascontiguousarray(image), mask, scene.valid, scene.modality, "organ", contrast, scene.spacing_mm
    )


def _cut(
    rng: np.random.Generator, lesion: Lesion, valid: np.ndarray, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The file ends somewhere across the lesion or near it; the image repeats its last plane beyond."""
    axis = int(rng.integers(3))
    side = valid.shape[axis]
    index = np.arange(side)
    reach = lesion.radius[axis] * rng.uniform(-0.2, 1.3)
    if rng.random() < 0.5:
        end = int(np.clip(lesion.centre[axis] + reach, 4, side - 2))
        keep, clipped = index <= end, np.minimum(index, end)
    else:
        end = int(np.clip(lesion.centre[axis] - reach, 1, side - 5))
        keep, clipped = index >= end, np.maximum(index, end)
    shape = [1, 1, 1]
    shape[axis] = side
    return valid & keep.reshape(shape), np.take(image, clipped, axis=axis)


def _contrast(image: np.ndarray, mask: np.ndarray, valid: np.ndarray) -> float:
    """Difference of means, inside and in the box around, over their pooled standard deviation (coarsely sampled)."""
    small, inner = image[::2, ::2, ::2], mask[::2, ::2, ::2]
    hit = np.argwhere(inner)
    if len(hit) < 4:
        return 0.0
    low, high = np.maximum(hit.min(axis=0) - 2, 0), hit.max(axis=0) + 3
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inside = small[box][inner[box]]
    outside = small[box][~inner[box] & valid[::2, ::2, ::2][box]]
    if len(outside) < 4:
        return 0.0
    pooled = float(np.sqrt((inside.var() + outside.var()) / 2))
    return abs(float(inside.mean() - outside.mean())) / max(pooled, 1e-6)

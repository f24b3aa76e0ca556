"""A painted lesion at two visits: the same tissue and the same neighbours, the lesion grown, shrunk, parted or gone."""

# The brush strokes are those of `paint`, told what stays the same between the visits.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lesionlocator.synth import paint
from lesionlocator.synth.body import Lesion, draw_lesion
from lesionlocator.synth.lattice import along
from lesionlocator.synth.paint import PaintedRegion, RegionSettings
from lesionlocator.synth.scene import Backgrounds, Framing, Scene

_ROOM = 0.62
"""Of the size that a lesion has in a region of its own: it may grow, and its surroundings are looked at as well."""
_FEWEST = 60


@dataclass(frozen=True)
class VisitSettings:
    """What happens between two painted visits."""

    region: RegionSettings = RegionSettings(side=72, organ_share=0.0, cut_share=0.0)
    gone: float = 0.25
    """How often the lesion is not there any more."""
    parted: float = 0.08
    """How often it comes in several parts, or its parts have grown together."""
    resized: float = 0.3
    """Spread of the log of its size."""
    neighbour: float = 0.2
    """How often something like it appears or disappears beside it."""
    scar: float = 0.4
    """How often what a lesion did to its surroundings stays when it is gone."""


@dataclass(frozen=True, eq=False)
class _Strokes:
    """What both visits have in common: seeds of the strokes, the lesion at baseline, how hard it is to see."""

    scene: Scene
    seeds: tuple[int, ...]
    lesion: Lesion
    hard: float


def draw_visits(
    rng: np.random.Generator, backgrounds: Backgrounds, settings: VisitSettings
) -> tuple[PaintedRegion, PaintedRegion]:
    """Baseline and follow-up of one lesion, in one place; the follow-up's mask is empty where it is gone."""
    while True:
        visits = _draw_once(rng, backgrounds, settings)
        gone = not visits[1].mask.any()
        if np.count_nonzero(visits[0].mask) >= _FEWEST and (gone or np.count_nonzero(visits[1].mask) >= _FEWEST):
            return visits


def _draw_once(
    rng: np.random.Generator, backgrounds: Backgrounds, settings: VisitSettings
) -> tuple[PaintedRegion, PaintedRegion]:
    region = settings.region
    framing = Framing.draw(rng, region.side)
    framing = Framing(framing.side, framing.centre, framing.radius * _ROOM)
    modality = paint._draw_modality(rng, region)
    kind = paint._chosen(rng, paint._KINDS[modality])
    if modality == "PT":
        scene = paint._draw_pet(rng, backgrounds, framing)
    else:
        scene = paint._draw_scene(rng, backgrounds, region, framing, (modality, kind))
    seeds = tuple(int(seed) for seed in rng.integers(2**53, size=4))
    kinds = [kind, "parts"] if rng.random() < settings.parted else [kind, kind]
    lesions = [
        draw_lesion(np.random.default_rng(seeds[0]), scene, name, frame)
        for name, frame in zip(kinds, (framing, _changed(rng, framing, settings)), strict=True)
    ]
    if rng.random() < 0.5:
        lesions.reverse()
    hard = region.difficulty * rng.random() ** 0.5
    strokes = _Strokes(scene, seeds, lesions[0], hard)
    gone = rng.random() < settings.gone
    baseline = _visit(rng, strokes, lesions[0], settings)
    followup = _visit(rng, strokes, None if gone else lesions[1], settings)
    return baseline, followup


def _changed(rng: np.random.Generator, framing: Framing, settings: VisitSettings) -> Framing:
    """Grown or shrunk, and a little to one side."""
    size = np.exp(np.clip(settings.resized * rng.standard_normal() + 0.06 * rng.standard_normal(3), -0.7, 0.5))
    aside = framing.radius * rng.normal(0, 0.1, 3)
    return Framing(framing.side, framing.centre + aside, framing.radius * size)


def _visit(
    rng: np.random.Generator, strokes: _Strokes, lesion: Lesion | None, settings: VisitSettings
) -> PaintedRegion:
    """One visit; without a lesion the tissue alone, with its neighbours and perhaps a scar."""
    scene, first, hard = strokes.scene, strokes.lesion, strokes.hard
    levels, texture, beside = (np.random.default_rng(seed) for seed in strokes.seeds[1:])
    around, spread = paint._surroundings(scene, first)
    value = paint._own_value(levels, scene, first, (around, spread), hard)
    blur = paint._blur(levels, scene, hard)
    own = paint._filling(texture, scene, first, (around, value), hard)
    shown = lesion if lesion is not None else first if rng.random() < settings.scar else None
    image = scene.image if shown is None else paint._bordered(levels, scene, shown, abs(value - around))
    if beside.random() < 0.5:
        image = paint._with_decoys(beside, scene, first, own, image, blur)
    if rng.random() < settings.neighbour:
        image = paint._with_decoys(rng, scene, first, own, image, blur)
    if lesion is None:
        nothing = np.zeros_like(first.outer)
        empty = replace(first, outer=nothing, core=None if first.core is None else nothing)
        region = paint._shown(rng, scene, empty, paint._scanned(rng, scene, image, hard), settings.region)
        return replace(region, mask=np.zeros(region.mask.shape, bool))
    value = around + (value - around) * (float(np.exp(rng.normal(0, 0.15))) if rng.random() < 0.5 else 1.0)
    own = paint._filling(np.random.default_rng(strokes.seeds[2]), scene, lesion, (around, value), hard)
    if lesion.core is not None:
        inner = paint._core_value(np.random.default_rng(strokes.seeds[1]), scene, lesion, around, value)
        core = along(np.minimum(lesion.core, lesion.outer), blur)
        own = own + core * (np.float32(inner) - own)
    image = image + along(lesion.outer, blur) * (own - image)
    return paint._shown(rng, scene, lesion, paint._scanned(rng, scene, image, hard), settings.region)

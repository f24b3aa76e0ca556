"""What the learning curves show: fixed samples, asked for by their tight box, of every kind by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lesionlocator.prompt import Box
from lesionlocator.segment.zoom import View, hint, look
from lesionlocator.synth.paint import RegionSettings
from lesionlocator.synth.scene import Backgrounds
from lesionlocator.train.data import Region, Sample, as_sample
from lesionlocator.train.prompts import Question
from lesionlocator.train.sources import Outlined, Painted, around
from lesionlocator.volume import Mask

PAINTED_KINDS = ("ring", "branch", "parts", "lobed", "cold_core", "nodule_in_lung")
SEED = 7_000_001


def painted_samples(backgrounds: Backgrounds, each: int, difficulty: float = 0.6) -> dict[str, list[Sample]]:
    """Painted lesions of every kind from a fixed seed. Of rings, the reading that leaves the core out, on MR."""
    found: dict[str, list[Sample]] = {}
    for kind in PAINTED_KINDS:
        settings = RegionSettings(kind=kind, difficulty=difficulty)
        if kind == "ring":
            settings = replace(settings, pet_share=0.0, mr_share=1.0)
        source = Painted(backgrounds, settings)
        rng = np.random.default_rng([SEED, len(kind)])
        drawn: list[Sample] = []
        while len(drawn) < each:
            region = source(rng, 1.0)
            if kind != "ring" or region.core is not None:
                drawn.append(boxed(replace(region, kind=kind)))
        found[kind] = drawn
    return found


def real_samples(lesions: Sequence[Outlined]) -> dict[str, list[Sample]]:
    """Lesions that readers outlined, by kind."""
    found: dict[str, list[Sample]] = {}
    for lesion in lesions:
        found.setdefault(lesion.kind, []).append(boxed(around(lesion)))
    return found


def boxed(region: Region) -> Sample:
    """A region asked for by its tight box."""
    box = Box.around(Mask.from_array(region.truth, region.scan.geometry))
    view = View.on_box(box, region.scan.geometry)
    question = Question(view, hint(view, [], box), "box")
    return as_sample(region, question, look(region.scan, view))

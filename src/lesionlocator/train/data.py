"""Samples for training: a region with a known outline, seen through the zoom and asked for by a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from lesionlocator.segment.zoom import PATCH, Glimpse, Patch, look, show, views_of
from lesionlocator.train.prompts import PromptSettings, Question, draw_question
from lesionlocator.volume import Modality, Volume

DROPPED = (0, 1, 2, 3, 4)
"""The channels that are left out at times."""

_TOLD = 0.35
"""How often clicks say whether the core of a ring is meant."""


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a scan with the outline of one lesion.

    `core` is what another reading of the same picture would add or leave out; with it, `truth` is the reading without.
    NaN voxels are beyond the scan.
    """

    scan: Volume
    truth: Bool[np.ndarray, "d h w"]
    kind: str
    core: Bool[np.ndarray, "d h w"] | None = None


Source = Callable[[np.random.Generator, float], Region]
"""(random generator, difficulty from 0 to 1) -> region."""


@dataclass(frozen=True, eq=False)
class Sample:
    """What a network is shown and what it should answer.

    `beyond` is how much of the lesion, in patch voxels, the patch does not show.
    """

    shown: Float[np.ndarray, "channels 48 48 48"]
    target: Float[np.ndarray, "48 48 48"]
    seen: Float[np.ndarray, "48 48 48"]
    beyond: float
    kind: str


@dataclass(frozen=True)
class SampleSettings:
    """How regions become samples."""

    prompts: PromptSettings = PromptSettings()
    remapped: float = 0.15
    """How often a CT's brightness is bent, so that it is a CT no more."""
    inverted: float = 0.35
    """How often a picture that is no CT and no PET is turned into its negative."""
    dropped: tuple[float, ...] = (0.03, 0.08, 0.08, 0.2, 0.06)
    """How often each view of the scan is left out."""


def draw_sample(rng: np.random.Generator, region: Region, settings: SampleSettings) -> Sample:
    """One way of asking for a region's lesion, with the picture changed at random."""
    modality = region.scan.modality
    if modality == "CT" and rng.random() < settings.remapped:
        modality = "MR"
    region, told = read(rng, region, modality)
    question = draw_question(rng, region.truth, region.scan.geometry, region.core if told else None, settings.prompts)
    glimpse = vary(rng, replace(look(region.scan, question.view), modality=modality), settings)
    sample = as_sample(region, question, glimpse)
    for channel, chance in zip(DROPPED, settings.dropped, strict=True):
        if rng.random() < chance:
            sample.shown[channel] = 0
    if not sample.shown[:3].any():
        sample.shown[:5] = views_of(glimpse, question.hints)
    return turn(rng, sample)


def read(rng: np.random.Generator, region: Region, modality: Modality) -> tuple[Region, bool]:
    """One reading of a ring, and whether clicks tell which.

    Mostly the prompts do not say whether the core is meant; then the rim is on MR, and all of it elsewhere.
    """
    if region.core is None:
        return region, False
    told = bool(rng.random() < _TOLD)
    counted_in = bool(rng.random() < 0.5) if told else modality != "MR"
    truth = region.truth | region.core if counted_in else region.truth & ~region.core
    return replace(region, truth=truth), told


def as_sample(region: Region, question: Question, glimpse: Glimpse) -> Sample:
    """A question as a network sees it, and the answer. Beyond the end of the scan there is no lesion."""
    target = np.clip(question.view.cut(region.truth.astype(np.float32)), 0, 1) * glimpse.seen
    whole = np.count_nonzero(region.truth) / float(np.prod(question.view.step))
    beyond = max(0.0, whole - float(target.sum()))
    shown = show(glimpse, question.hints)
    return Sample(shown, target, glimpse.seen, beyond if beyond > 0.03 * whole else 0.0, region.kind)


def vary(rng: np.random.Generator, glimpse: Glimpse, settings: SampleSettings) -> Glimpse:
    """The same region as another scanner might show it: brightness bent, shaded, blurred, noisy, negative."""
    values, modality = glimpse.values, glimpse.modality
    known = values[glimpse.seen > 0.5]
    if len(known) < 8:
        return glimpse
    low, high = (float(value) for value in np.percentile(known[::3], (0.5, 99.5)))
    spread = max(high - low, 1e-6)
    if modality == "MR":
        values = bend(rng, values, (low, high), settings.inverted)
    if modality != "CT" and rng.random() < 0.4:
        shade = ndimage.zoom(rng.standard_normal((3, 3, 3)), PATCH / 3, order=1)
        values = low + (values - low) * np.exp(rng.uniform(0.05, 0.25) * shade)
    values = grain(rng, values, spread)
    return replace(glimpse, values=np.asarray(values, np.float32))


def bend(rng: np.random.Generator, values: Patch, limits: tuple[float, float], inverted: float) -> Patch:
    """Brightness through a random rising curve, and at times its negative."""
    low, high = limits
    if rng.random() < 0.7:
        unit = np.clip((values - low) / max(high - low, 1e-6), 0, 1)
        places = np.sort(np.concatenate([[0, 1], rng.uniform(0, 1, 3)]))
        heights = np.sort(rng.uniform(0, 1, 5)) * 0.6 + 0.4 * places
        values = (low + max(high - low, 1e-6) * np.interp(unit, places, heights)).astype(np.float32)
    return low + high - values if rng.random() < inverted else values


def grain(rng: np.random.Generator, values: Patch, spread: float) -> Patch:
    """At times blurred, at times noisy."""
    if rng.random() < 0.25:
        values = ndimage.gaussian_filter(values, rng.uniform(0.3, 1.2, 3))
    if rng.random() < 0.35:
        noise = rng.standard_normal(values.shape)
        if rng.random() < 0.5:
            noise = ndimage.gaussian_filter(noise, 0.8) * 2.5
        values = values + rng.uniform(0.01, 0.07) * spread * noise
    return np.asarray(values, np.float32)


def turn(rng: np.random.Generator, sample: Sample) -> Sample:
    """Mirrored and with its axes swapped at random: a patch has no up or down."""
    axes = [int(axis) for axis in rng.permutation(3)]
    flips = tuple(axis for axis in range(3) if rng.random() < 0.5)

    def turned(array: np.ndarray) -> np.ndarray:
        lead = array.ndim - 3
        moved = np.transpose(array, [*range(lead), *(lead + axis for axis in axes)])
        return np.ascontiguousarray(np.flip(moved, tuple(lead + axis for axis in flips)))

    return replace(sample, shown=turned(sample.shown), target=turned(sample.target), seen=turned(sample.seen))


@dataclass(frozen=True)
class GroupPlan:
    """What a group of samples is: some regions, each asked for several times; making one costs more than looking.

    Regions get harder until group `ramp`.
    """

    seed: int
    regions: int = 8
    views: int = 3
    ramp: float = 0.0


Draw = Callable[[np.random.Generator, Any, Any], Sample]
"""(random generator, what a source gave, settings) -> sample."""


def draw_group(
    group: int,
    source: Callable[[np.random.Generator, float], Any],
    settings: Any,
    plan: GroupPlan,
    draw: Draw = draw_sample,
) -> list[Sample]:
    """The samples of one group, in random order; the same whoever draws it."""
    rng = np.random.default_rng([plan.seed, group])
    difficulty = min(1.0, group / max(1.0, plan.ramp))
    drawn = [source(rng, difficulty) for _ in range(plan.regions)]
    samples = [draw(rng, region, settings) for region in drawn for _ in range(plan.views)]
    return [samples[int(place)] for place in rng.permutation(len(samples))]


@dataclass(frozen=True, eq=False)
class Mixed:
    """One of several sources, each with its share."""

    sources: Sequence[tuple[float, Source]]

    def __call__(self, rng: np.random.Generator, difficulty: float) -> Region:
        shares = np.array([share for share, _ in self.sources])
        return self.sources[int(rng.choice(len(shares), p=shares / shares.sum()))][1](rng, difficulty)

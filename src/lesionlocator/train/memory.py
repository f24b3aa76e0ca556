"""Samples of lesions at two visits: the later one to be outlined, the earlier one in memory, a little out of place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box
from lesionlocator.segment.first import Glimpse
from lesionlocator.segment.memory import CONTEXT, show_both, view_again
from lesionlocator.segment.zoom import CHANNELS, Patch, View, hint, look
from lesionlocator.synth.paint_visits import VisitSettings, draw_visits
from lesionlocator.synth.scene import Backgrounds
from lesionlocator.train.data import DROPPED, Sample, SampleSettings, bend, grain, turn
from lesionlocator.train.loop import Batch
from lesionlocator.train.loss import confidence_loss, outline_loss, true_dice
from lesionlocator.train.prompts import spoil
from lesionlocator.volume import Modality, Volume, bounds

_CONFIDENCE = 0.3
_PRESENCE = 0.5


@dataclass(frozen=True, eq=False)
class PairRegion:
    """A lesion at two visits on one grid.

    NaN voxels are beyond a scan. `before` is the baseline as an alignment brings it here, with the lesion's `outline`;
    `truth` is all that it has become, empty when it is gone.
    """

    followup: Volume
    before: Float[np.ndarray, "d h w"]
    outline: Bool[np.ndarray, "d h w"]
    truth: Bool[np.ndarray, "d h w"]
    kind: str


@dataclass(frozen=True)
class MemorySettings:
    """How pairs become samples."""

    off_voxels: tuple[float, float] = (1.0, 6.0)
    """What is carried over is off by a standard deviation between these, along each axis; (0, 0) leaves it in place."""
    shares: tuple[float, float] = (0.8 * CONTEXT, 1.25 * CONTEXT)
    """How much of a view's side the carried-over box takes."""
    spoiled: float = 0.35
    """How often the baseline's outline is not quite right."""
    cut: float = 0.12
    """How often one of the scans ends near by."""
    samples: SampleSettings = SampleSettings()


def draw_memory_sample(rng: np.random.Generator, region: PairRegion, settings: MemorySettings) -> Sample:
    """One look at a pair: where an aligner might have carried the lesion, with both pictures changed at random."""
    modality = region.followup.modality
    if modality == "CT" and rng.random() < settings.samples.remapped:
        modality = "MR"
    grid = region.followup.geometry
    found = bounds(region.outline) or ((0, 0, 0), (1, 1, 1))
    low, high = (np.array(end, float) - 0.5 for end in found)
    off = rng.normal(0, rng.uniform(*settings.off_voxels), 3) if settings.off_voxels[1] > 0 else np.zeros(3)
    box = Box.from_index(low + 0.5 + off, high - 0.5 + off, grid)
    view = view_again(box, grid, rng.uniform(*settings.shares) * rng.uniform(0.9, 1.1, 3))
    # The baseline is off together with what was carried over from it.
    behind = View(view.start - off, view.step, grid)
    now = replace(look(region.followup, view), modality=modality)
    then = replace(look(replace(region.followup, array=region.before), behind), modality=modality)
    if rng.random() < settings.cut:
        now, then = _cut(rng, now, then)
    outline = np.clip(behind.cut(region.outline.astype(np.float32)), 0, 1)
    if rng.random() < settings.spoiled and (spoiled := spoil(rng, outline)).any():
        outline = spoiled
    target = np.clip(view.cut(region.truth.astype(np.float32)), 0, 1) * now.seen
    whole = np.count_nonzero(region.truth) / float(np.prod(view.step))
    beyond = max(0.0, whole - float(target.sum()))
    now, then = vary_both(rng, now, then, settings.samples)
    expected = hint(view, [], box).box
    shown = show_both(now, then, outline * then.seen, np.zeros((2, 3)) if expected is None else expected)
    for channel, chance in zip(DROPPED, settings.samples.dropped, strict=True):
        if rng.random() < chance:
            shown[[channel, len(CHANNELS) + channel]] = 0
    return turn(rng, Sample(shown, target, now.seen, beyond if beyond > 0.03 * whole else 0.0, region.kind))


def vary_both(
    rng: np.random.Generator, now: Glimpse, then: Glimpse, settings: SampleSettings
) -> tuple[Glimpse, Glimpse]:
    """Both visits as other scanners might show them: one curve of brightness for both, noise and blur for each."""
    curve = int(rng.integers(2**53))
    return (
        _varied(rng, np.random.default_rng(curve), now, settings),
        _varied(rng, np.random.default_rng(curve), then, settings),
    )


def _varied(
    rng: np.random.Generator, curve: np.random.Generator, glimpse: Glimpse, settings: SampleSettings
) -> Glimpse:
    known = glimpse.values[glimpse.seen > 0.5]
    if len(known) < 8:
        return glimpse
    low, high = (float(value) for value in np.percentile(known[::3], (0.5, 99.5)))
    values: Patch = glimpse.values
    if glimpse.modality == "MR":
        values = bend(curve, values, (low, high), settings.inverted)
    elif glimpse.modality == "PT":
        values = values * np.float32(rng.uniform(0.8, 1.25))
    return replace(glimpse, values=grain(rng, values, max(high - low, 1e-6)))


def _cut(rng: np.random.Generator, now: Glimpse, then: Glimpse) -> tuple[Glimpse, Glimpse]:
    """One of the scans, or both, end across the view."""
    axis, side = int(rng.integers(3)), now.seen.shape[0]
    end = int(rng.uniform(0.55, 0.9) * side)
    kept = np.arange(side) < end if rng.random() < 0.5 else np.arange(side) >= side - end
    shape = [1, 1, 1]
    shape[axis] = side
    seen = kept.reshape(shape).astype(np.float32)
    which = int(rng.integers(3))
    cut = [replace(one, seen=one.seen * seen) if which in (2, at) else one for at, one in enumerate((now, then))]
    return cut[0], cut[1]


def memory_loss(logits: Tensor, words: Tensor, batch: Batch) -> Tensor:
    """Of the outline, of whether the lesion is there, and of the word on how good the answer is.

    Nothing outlined where nothing is counts as a perfect answer.
    """
    axes = (1, 2, 3)
    there = ((batch.target.amax(axes) > 0) | (batch.beyond > 0)).float()
    nothing = ~((logits.detach() > 0) & (batch.seen > 0.5)).flatten(1).any(1)
    dice = true_dice(logits, batch.target, batch.seen, batch.beyond)
    quality = torch.where(there > 0.5, dice, nothing.to(dice.dtype))
    outline = outline_loss(logits, batch.target, batch.seen)
    return (
        outline
        + _CONFIDENCE * confidence_loss(words[:, 0].float(), quality)
        + _PRESENCE * confidence_loss(words[:, 1].float(), there)
    )


@dataclass(frozen=True, eq=False)
class InMemory:
    """Pairs that are there already, such as real ones; each as often as the others."""

    pairs: Sequence[PairRegion]

    def __call__(self, rng: np.random.Generator, difficulty: float) -> PairRegion:
        return self.pairs[int(rng.integers(len(self.pairs)))]


@dataclass(frozen=True, eq=False)
class PaintedPairs:
    """Painted lesions at two visits; easy ones first."""

    backgrounds: Backgrounds
    settings: VisitSettings = VisitSettings()

    def __call__(self, rng: np.random.Generator, difficulty: float) -> PairRegion:
        harder = replace(self.settings.region, difficulty=0.15 + 0.85 * difficulty * self.settings.region.difficulty)
        baseline, followup = draw_visits(rng, self.backgrounds, replace(self.settings, region=harder))
        even_mm = float(np.prod(followup.spacing_mm)) ** (1 / 3)
        d, h, w = followup.image.shape
        grid = Geometry((d, h, w), np.diag([even_mm, even_mm, even_mm, 1.0]))
        modalities: dict[str, Modality] = {"CT": "CT", "MR": "MR", "PT": "PT"}
        now, then = (
            one.image if one.valid.all() else np.where(one.valid, one.image, np.float32(np.nan))
            for one in (followup, baseline)
        )
        scan = Volume(now, grid, modalities[followup.modality])
        return PairRegion(scan, then, baseline.mask, followup.mask, f"painted {baseline.kind}")


@dataclass(frozen=True, eq=False)
class MixedPairs:
    """One of several sources of pairs, each with its share."""

    sources: Sequence[tuple[float, Callable[[np.random.Generator, float], PairRegion]]]

    def __call__(self, rng: np.random.Generator, difficulty: float) -> PairRegion:
        shares = np.array([share for share, _ in self.sources])
        return self.sources[int(rng.choice(len(shares), p=shares / shares.sum()))][1](rng, difficulty)

"""Lesions of one scan outlined by the published segmentation models."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from lesionlocator.published.ensemble import Ensemble, Logits, Look
from lesionlocator.published.prompts import Painted
from lesionlocator.published.regrid import Region
from lesionlocator.published.scan import PlannedScan
from lesionlocator.published.windows import STEP, Gathered, gaussian, windows_for
from lesionlocator.volume import Mask

_NEVER = -1e4
"""A lead that no neighbour makes good: what no window has seen is background."""


def outline_all(scan: PlannedScan, prompts: Sequence[Painted], ensemble: Ensemble, step: float = STEP) -> list[Mask]:
    """One outline for each prompt, in their order; each is what the prompt alone would give."""
    asked = [windows_for(painted, scan.shape, ensemble.plans.patch, step) for painted in prompts]
    scan.keep([window for windows in asked for window in windows])
    found: list[Mask] = []
    # As many lesions at once as fill a batch: each holds the logits of its region.
    lesions = list(zip(prompts, asked, strict=True))
    for first in range(0, len(lesions), ensemble.batch):
        found += _outlined(scan, lesions[first : first + ensemble.batch], ensemble)
    return found


def _outlined(scan: PlannedScan, lesions: Sequence[tuple[Painted, list[Region]]], ensemble: Ensemble) -> list[Mask]:
    leads: list[np.ndarray] = []
    starts: list[tuple[int, int, int]] = []
    for fold in ensemble.folds:
        answers = _mean_over_mirrors(ensemble, fold, _looks(scan, lesions, ensemble))
        for number, (_, windows) in enumerate(lesions):
            gathered = Gathered(windows, half=True)
            for window in windows:
                gathered.add(window, next(answers), gaussian(ensemble.plans.patch))
            lead = gathered.lead(_NEVER) / np.float32(len(ensemble.folds))
            if len(leads) <= number:
                leads.append(lead)
                starts.append(gathered.start)
            else:
                leads[number] += lead
    return [scan.outlined(lead, start, None) for lead, start in zip(leads, starts, strict=True)]


def _looks(scan: PlannedScan, lesions: Sequence[tuple[Painted, list[Region]]], ensemble: Ensemble) -> Iterator[Look]:
    for painted, windows in lesions:
        for window in windows:
            image, prompt = scan.region(window), painted.on(window)
            for flip in ensemble.flips():
                yield Look(image, prompt, flip)


def _mean_over_mirrors(ensemble: Ensemble, fold: int, looks: Iterator[Look]) -> Iterator[Logits]:
    mirrors, answers = len(ensemble.flips()), ensemble.logits(fold, looks)
    while (first := next(answers, None)) is not None:
        total = first
        for other in itertools.islice(answers, mirrors - 1):
            total = total + other
        yield total / np.float32(mirrors)

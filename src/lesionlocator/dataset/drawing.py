"""What happens to the patient of an item: lesions put into a scan that has none, then a story over its visits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lesionlocator.errors import Refused
from lesionlocator.synth.chain import Chain, draw_chain, tell
from lesionlocator.synth.changes import from_json, to_json
from lesionlocator.synth.lesion import Appear
from lesionlocator.synth.shapes import Outline
from lesionlocator.synth.story import Story, StorySettings
from lesionlocator.synth.visit import Change, Visit

PLANTED = "planted"
_PLANTED_SHARES = {True: (0.7, 0.2, 0.1), False: (0.2, 0.4, 0.25, 0.15)}
"""Of scans with and without lesions: how often none, one, two, ... are put in before the story begins."""
_APPEARING_IN_NONE = 1.5
"""Lesions that appear at a visit, on average, where there are none before."""
_TRIES = 4


def draw_patient(
    source: Visit, seed: int, visits: int, outlines: Sequence[Outline] = (), *, voxels: bool = True
) -> tuple[Chain, dict[str, Any]]:
    """A chain drawn from the seed, and what was drawn.

    A scan with lesions is mostly left as it is, and one visit of the chain shows it untouched. A scan without gets some
    in four of five items, so that there is something to follow; in the others lesions appear at a later visit, or at
    an earlier one and are gone in the untouched scan. A drawing that shows no lesion at any visit is drawn again.
    Half of the lesions that appear take one of the `outlines`, where there are any. Without `voxels` the same is drawn,
    and only the scans are hollow.
    """
    for attempt in range(_TRIES):
        rng = np.random.default_rng([seed, attempt])
        planted, visit = _planted(rng, source, outlines)
        settings = StorySettings(visits=visits, outlines=tuple(outlines))
        if not visit.lesions:
            settings = replace(settings, appearing=_APPEARING_IN_NONE)
        chain = draw_chain(visit, int(rng.integers(2**53)), settings, voxels=voxels)
        if any(scan.seen for scan in chain.scans) or attempt == _TRIES - 1:
            return chain, {PLANTED: [to_json(change) for change in planted], **chain.story.to_json()}
    raise RuntimeError("the last attempt is always taken")


def tell_patient(source: Visit, draws: Mapping[str, Any], *, voxels: bool = True) -> Chain:
    """The chain of what was drawn before, from the same scan; without `voxels` the scans are hollow.

    Raises:
        Refused: The draws are of another version of the program.
    """
    visit = source
    for entry in draws.get(PLANTED, ()):
        visit = from_json(dict(entry)).apply(visit).visit
    return tell(
        visit, Story.from_json({name: value for name, value in draws.items() if name != PLANTED}), voxels=voxels
    )


def _planted(rng: np.random.Generator, source: Visit, outlines: Sequence[Outline]) -> tuple[list[Change], Visit]:
    shares = _PLANTED_SHARES[bool(source.lesions)]
    wanted = int(rng.choice(len(shares), p=shares))
    planted: list[Change] = []
    visit = source
    for _ in range(wanted):
        change = Appear.draw(rng, visit)
        if change is None:
            continue
        change = change.shaped_by(outlines)
        try:
            visit = change.apply(visit).visit
        except Refused:
            continue
        planted.append(change)
    return planted, visit

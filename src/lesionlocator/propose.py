"""Where lesions of later scans seem to be, for a reader to check."""

from __future__ import annotations

from lesionlocator.case import Case, Lesion, Timepoint
from lesionlocator.prompt import Box, Click, Prompt
from lesionlocator.volume import Mask


def proposals(case: Case) -> list[tuple[Timepoint, tuple[Lesion, ...]]]:
    """For each later scan, where its lesions seem to be, as prompts for a reader to check: the least sure first.

    A lesion that could not be outlined there has no place to propose; its row and its link say why.
    """
    sure = {link.after: link.confidence for link in case.links if isinstance(link.after, tuple)}
    proposed: list[tuple[Timepoint, tuple[Lesion, ...]]] = []
    for index, timepoint in enumerate(case.timepoints[1:], start=1):
        lesions = [
            Lesion(lesion.id, _own_prompts(lesion.mask), confidence=sure.get((index, lesion.id)))
            for lesion in timepoint.lesions
            if lesion.mask is not None
        ]
        lesions.sort(key=lambda lesion: -1.0 if lesion.confidence is None else lesion.confidence)
        proposed.append((timepoint, tuple(lesions)))
    return proposed


def _own_prompts(mask: Mask) -> tuple[Prompt, ...]:
    return (Box.around(mask), Click.inside(mask))

"""When a lesion ends in a scan: outside of it, gone, or neither seen nor missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lesionlocator.case import DecidedBy, Ending, Lesion
from lesionlocator.follow.confidence import gone_confidence
from lesionlocator.follow.locate import ALIGNED, SMALL, Sighting
from lesionlocator.follow.wanted import Wanted
from lesionlocator.parts import join
from lesionlocator.volume import Volume

_GONE = 0.55
"""From this belief on that a lesion is gone, what was outlined at its place is not taken for it."""


@dataclass(frozen=True)
class Ended:
    """What became of a lesion that has no outline, why, how sure that is, and who says so."""

    ending: Ending
    reason: str
    confidence: float | None = None
    decided_by: DecidedBy = "rule"


def outside(sighting: Sighting, share: float) -> Ended | None:
    """A lesion of which less than this share would lie inside the scan."""
    if sighting.inside >= share:
        return None
    return Ended(Ending.OUTSIDE, f"{100 * sighting.inside:.0f} % of it would lie inside the scan")


def unseen(sighting: Sighting) -> Ended | None:
    """A lesion that stood out, and nothing at its place does so now."""
    if not sighting.decisive or sighting.parts:
        return None
    return Ended(Ending.VANISHED, "nothing at its place looks like it any more", gone_confidence(sighting))


def disbelieved(want: Wanted, found: Sequence[Lesion], followup: Volume) -> Ended | None:
    """A lesion that was outlined, though what is left at its place says that it is gone.

    A segmenter outlines something wherever it is asked to. Of a few voxels, or where the scans hardly meet around the
    place, nobody can say that they are gone: that is left to a reader. Lesions that grew together are not asked about,
    nor those on MR that did not stand out: without a unit, tissues change beside each other.
    """
    masks = [one.mask for one in found if one.mask is not None]
    item = want.keeper
    if len(want.group) > 1 or not masks or (followup.modality == "MR" and not item.sighting.decisive):
        return None
    gone = gone_confidence(item.sighting, join(masks), followup)
    if gone is None or gone < _GONE:
        return None
    if item.mask.voxels < SMALL or item.sighting.agreement < ALIGNED:
        return Ended(Ending.UNSURE, "its place looks different, but too little is seen of it to call it gone")
    return Ended(Ending.VANISHED, "its place has lost what it stood out by, more than its surroundings changed", gone)

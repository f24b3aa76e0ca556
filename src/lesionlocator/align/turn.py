"""A header with an axis the wrong way round: the picture is also tried turned by 180 degrees and mirrored, coarsely."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from lesionlocator.align.agreement import likeness
from lesionlocator.align.linear import rigid
from lesionlocator.align.offset import likely_shifts
from lesionlocator.align.view import View
from lesionlocator.geometry import AffineMap

Signs = tuple[int, int, int]
"""-1 for each of x, y, z (LPS) that is the other way round."""

_COARSE = 4
_STARTS = 2
_NEAR = 0.10
"""A way round that is coarsely this much worse at most is worth a closer look: a head is all but symmetric."""
_ENDS = ("left and right", "front and back", "head and feet")


@dataclass(frozen=True, eq=False)
class Turn:
    """A follow-up the other way round.

    `view` is its picture turned, `back` takes a place of that picture to where the header has it (and is its own
    inverse).
    """

    signs: Signs
    view: View
    back: AffineMap

    @property
    def words(self) -> str:
        """Which ends look swapped."""
        swapped = [ends for ends, sign in zip(_ENDS, self.signs, strict=True) if sign < 0]
        what = "mirrored" if len(swapped) % 2 else "turned by 180 degrees"
        return f"{what}: its header seems to swap {', and '.join(swapped)}"


def likely_turn(baseline: View, followup: View) -> Turn | None:
    """The other way round in which the follow-up most resembles the baseline, if it is worth a closer look."""
    scores = turn_scores(baseline, followup)
    as_it_is = scores.pop((1, 1, 1))
    best = max(scores, key=lambda signs: scores[signs])
    return turned(followup, best) if scores[best] > as_it_is - _NEAR else None


def turn_scores(baseline: View, followup: View) -> dict[Signs, float]:
    """Coarse agreement of the scans after a short search, for each of the eight ways round; as it is comes first."""
    first, second = baseline.coarser(_COARSE), followup.coarser(_COARSE)
    ways = itertools.product((1, -1), repeat=3)
    return {(x, y, z): _coarse_agreement(first, turned(second, (x, y, z)).view) for x, y, z in ways}


def turned(view: View, signs: Signs) -> Turn:
    """The picture the other way round on the same grid."""
    # The array axes d, h, w of a view run along z, y, x.
    cut = tuple(slice(None, None, sign) for sign in signs[::-1])
    matrix = np.diag([*signs, 1]).astype(float)
    matrix[:3, 3] = (1 - np.array(signs)) * view.geometry.centre_mm
    return Turn(signs, View(view.array[cut], view.body[cut], view.seen[cut], view.geometry), AffineMap(matrix))


def _coarse_agreement(first: View, second: View) -> float:
    shifts = [second.centre_mm - first.centre_mm, *likely_shifts(first, second, _STARTS)]
    scored = [(likeness(first, second, start), start) for start in map(AffineMap.shift, shifts)]
    before, start = max(scored, key=lambda pair: pair[0])
    try:
        return max(before, likeness(first, second, rigid(first, second, start, (1,))))
    except RuntimeError:
        return before

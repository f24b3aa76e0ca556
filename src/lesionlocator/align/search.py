"""The search for one affine map: from many starts, coarse to fine, the scan as it is and the other way round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lesionlocator.align.agreement import likeness
from lesionlocator.align.linear import affine, rigid, stretch
from lesionlocator.align.offset import likely_shifts
from lesionlocator.align.turn import Turn, likely_turn
from lesionlocator.align.view import View
from lesionlocator.geometry import AffineMap

_STARTS = 4
NEGLIGIBLE = 0.01
"""Agreement that is neither gain nor loss."""
_CLEARLY = 0.04
"""Agreement gained, from which the picture is believed and not the header. Rightly headed scans of one patient lose
0.05 and more by being mirrored (docs/evidence/wrong_pairs.md)."""
_PERHAPS = 0.02
_MOST_STRETCH = 1.25
"""As no patient is stretched between two scans."""


@dataclass(frozen=True, eq=False)
class Found:
    """A map that takes the baseline to the follow-up.

    `agreement` is what it reaches, `plain` what the best plain shift of the same search did. `stretch` is the largest
    factor by which an affine search wanted to stretch or squeeze, believed or not. `turn` is set when the map leads to
    the follow-up the other way round, and not to the one that was given.
    """

    point_map: AffineMap
    agreement: float
    plain: float
    stretch: float = 1.0
    warnings: tuple[str, ...] = ()
    turn: Turn | None = None


Search = Callable[[View, View], Found]


def either_way_round(first: View, second: View, search: Search) -> Found:
    """What a search finds; turned or mirrored where the picture is clearly another way round than its header says."""
    found = search(first, second)
    turn = likely_turn(first, second)
    if turn is None:
        return found
    # Mirrored along left and right a head is all but the same: only a close look tells.
    other = search(first, turn.view)
    gain = other.agreement - found.agreement
    numbers = f"(agreement {found.agreement:.2f} as its header says, {other.agreement:.2f} so)"
    if gain > _CLEARLY:
        words = f"the later scan looks {turn.words} {numbers}; it is aligned so, check both headers"
        return replace(other, turn=turn, warnings=(words, *other.warnings))
    if gain > _PERHAPS:
        words = f"the later scan may be {turn.words} {numbers}; it is aligned as its header says"
        return replace(found, warnings=(words, *found.warnings))
    return found


def find_rigid(first: View, second: View) -> Found:
    """The best of several starts, each improved on coarse views; then improved on the finest."""
    coarse_first, coarse_second = first.coarser(2), second.coarser(2)
    shifts = [np.zeros(3), second.centre_mm - first.centre_mm, *likely_shifts(coarse_first, coarse_second, _STARTS)]
    tried: list[tuple[float, AffineMap]] = []
    plain: list[tuple[float, AffineMap]] = []
    for shift in shifts:
        start = AffineMap.shift(shift)
        plain.append((likeness(coarse_first, coarse_second, start), start))
        tried.append(plain[-1])
        if tried[-1][0] == 0.0:
            continue
        improved = _attempt(first, second, start, (4, 2))
        if improved is not None:
            tried.append((likeness(coarse_first, coarse_second, improved), improved))
    before, start = _best(tried)
    if before == 0.0:
        return Found(start, before, before, warnings=("no shift makes the scans overlap",))
    as_shifted = likeness(first, second, _best(plain)[1])
    before = likeness(first, second, start)
    found = _attempt(first, second, start, (1,))
    if found is None:
        lost = "the finest search lost the overlap; the coarse alignment stands"
        return Found(start, before, as_shifted, warnings=(lost,))
    after = likeness(first, second, found)
    if after < before:
        said = worse(before, after, "the finest search", "coarse")
        return Found(start, before, as_shifted, warnings=said)
    return Found(found, after, as_shifted)


def find_affine(first: View, second: View) -> Found:
    """As `find_rigid`, with stretch and shear where they bring the scans closer."""
    start = find_rigid(first, second)
    try:
        found = affine(first, second, start.point_map)
    except RuntimeError:
        return _with(start, "the affine search lost the overlap; the rigid alignment stands")
    start = replace(start, stretch=stretch(found))
    if start.stretch > _MOST_STRETCH:
        return _with(start, "an affine map would stretch by more than a quarter; the rigid alignment stands")
    after = likeness(first, second, found)
    if after <= start.agreement:
        return _with(start, *worse(start.agreement, after, "the affine search", "rigid"))
    return replace(start, point_map=found, agreement=after)


def worse(before: float, after: float, what: str, kept: str) -> tuple[str, ...]:
    """Words for a step that led away; none for one that found nothing to improve."""
    if before - after < NEGLIGIBLE:
        return ()
    return (f"{what} led away (agreement {before:.2f} before, {after:.2f} after); the {kept} alignment stands",)


def _best(tried: list[tuple[float, AffineMap]]) -> tuple[float, AffineMap]:
    return max(tried, key=lambda pair: pair[0])


def _with(found: Found, *warnings: str) -> Found:
    return replace(found, warnings=(*found.warnings, *warnings))


def _attempt(first: View, second: View, start: AffineMap, factors: tuple[int, ...]) -> AffineMap | None:
    """None when the search loses the overlap."""
    try:
        return rigid(first, second, start, factors)
    except RuntimeError:
        return None

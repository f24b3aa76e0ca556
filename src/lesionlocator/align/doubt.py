"""What speaks against an alignment, in words: nothing shared, nothing found, two people instead of one."""

from __future__ import annotations

from lesionlocator.align.agreement import share_shown
from lesionlocator.align.search import NEGLIGIBLE, Found
from lesionlocator.align.view import View
from lesionlocator.geometry import AffineMap

_LITTLE = 0.15
"""Mean local correlation below which two scans hardly show the same thing."""
_TWO_PEOPLE = 0.23
"""Agreement below which no real pair of visits fell (docs/evidence/wrong_pairs.md)."""
_UNLIKE, _STRETCHED = 0.35, 1.08
"""Stretched by this much in any direction, and still agreeing less than this, was no real pair of visits either."""
_LITTLE_SHARED = 0.25
"""Of the smaller body. Less in common is not told from chance."""


def search_doubts(first: View, second: View, found: Found, *, one_kind: bool) -> tuple[str, ...]:
    """Of a map that was searched for; `one_kind` says whether both scans are of one modality."""
    said = (*overlap_doubts(first, second, found.point_map), *agreement_doubts(found.agreement))
    people = _two_people(found) if one_kind and not said else ()
    return (*said, *people, *_no_better(found))


def overlap_doubts(first: View, second: View, forward: AffineMap) -> tuple[str, ...]:
    """Of scans that show too little of the same part."""
    share = share_shown(first, second, forward)
    if share == 0:
        return ("the aligned scans do not overlap",)
    if share < _LITTLE_SHARED:
        return (f"the aligned scans share only {100 * share:.0f} % of the smaller one, which may be chance",)
    return ()


def agreement_doubts(agreement: float) -> tuple[str, ...]:
    """Of scans that hardly show the same thing."""
    if agreement == 0.0 or agreement >= _LITTLE:
        return ()
    number = f"agreement {agreement:.2f} of 1"
    return (
        f"the aligned scans hardly resemble each other ({number}): check the positions, and that it is one patient",
    )


def _two_people(found: Found) -> tuple[str, ...]:
    number = f"agreement {found.agreement:.2f} of 1"
    if found.agreement < _TWO_PEOPLE:
        return (f"the scans resemble each other as little as those of two people ({number}): is it one patient?",)
    if found.agreement < _UNLIKE and found.stretch > _STRETCHED:
        percent = f"{100 * (found.stretch - 1):.0f} %"
        return (
            f"to meet, the scans have to be stretched by {percent}, as two people do ({number}): is it one patient?",
        )
    return ()


def _no_better(found: Found) -> tuple[str, ...]:
    # Visits of one scanner session lie on each other already: no gain is a failure only where little agrees.
    if found.agreement >= _TWO_PEOPLE or found.agreement >= found.plain + NEGLIGIBLE:
        return ()
    numbers = f"agreement {found.agreement:.2f}, by a shift alone {found.plain:.2f}"
    return (f"the alignment is no better than a plain shift ({numbers}): it has probably failed",)

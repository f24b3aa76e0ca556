"""What the lesions add up to at each visit: parts together, merged ones once, missing ones said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lesionlocator.criteria.answer import Chosen, Share
from lesionlocator.criteria.course import About, Course, Role, Seen, State
from lesionlocator.criteria.targets import Sizes, diameter_mm

Quantity = Callable[[Seen, About], float | None]
"""What is added up: None where it could not be evaluated, 0 where the lesion is gone."""


@dataclass(frozen=True)
class Burden:
    """A sum over lesions at one visit. `known` leaves out what could not be evaluated; `total` is None then."""

    shares: tuple[Share, ...]
    gone: bool
    """Whether all that could be evaluated is gone (nodes: normal)."""

    @property
    def known(self) -> float:
        return sum((share.value for share in self.shares if share.value is not None), 0.0)

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(share.lesion_id for share in self.shares if share.value is None)

    @property
    def total(self) -> float | None:
        return None if self.missing else self.known


def diameters(course: Course, chosen: Sequence[Chosen], visit: str, sizes: Sizes) -> Burden:
    """The sum of diameters of these lesions: long axes, short axes of nodes."""
    shares = add_up(course, chosen, visit, lambda seen, about: diameter_mm(seen, about, sizes), "mm")
    nodes = {one.lesion_id for one in chosen if one.is_node}
    gone = all(
        share.value is None or share.value <= 0 or (share.lesion_id in nodes and share.value < sizes.enlarged_node_mm)
        for share in shares
    )
    return Burden(shares, gone)


def add_up(course: Course, chosen: Sequence[Chosen], visit: str, quantity: Quantity, unit: str) -> tuple[Share, ...]:
    """A share for each lesion: of one that broke up, its parts together; of those that merged, the whole once."""
    counted: set[str] = set()
    keepers = {part for one in chosen for part in course.parts(one.lesion_id)}
    return tuple(_share(_Sum(course, visit, quantity, unit, counted, keepers), one) for one in chosen)


@dataclass(frozen=True, eq=False)
class _Sum:
    course: Course
    visit: str
    quantity: Quantity
    unit: str
    counted: set[str]
    """Lesions outside the choice that were counted already because a chosen one merged into them."""
    keepers: set[str]


def _share(adding: _Sum, one: Chosen) -> Share:
    parts = [part for part in adding.course.parts(one.lesion_id) if _exists(adding, part, one.lesion_id)]
    found = [_part(adding, part) for part in parts]
    unknown = [words for value, words in found if value is None]
    value = None if unknown else sum((value for value, _ in found if value is not None), 0.0)
    if len(found) == 1:
        return Share(one.lesion_id, one.role, value, found[0][1])
    words = " + ".join(f"{part}: {words}" for part, (_, words) in zip(parts, found, strict=True))
    total = "not evaluable" if value is None else f"{value:.1f} {adding.unit}"
    return Share(one.lesion_id, one.role, value, f"{total} in {len(found)} parts ({words})")


def _exists(adding: _Sum, part: str, root: str) -> bool:
    """A fragment counts from the visit at which it was first seen; before, it was part of the whole."""
    if part == root:
        return True
    first = adding.course.first_seen(part)
    order = adding.course.order
    return first is not None and order[first] <= order[adding.visit]


def _part(adding: _Sum, part: str) -> tuple[float | None, str]:
    seen, about = adding.course.at(adding.visit, part), adding.course.of(part)
    if seen.state is State.MERGED:
        return _merged(adding, seen)
    value = adding.quantity(seen, about)
    if seen.state is State.ABSENT:
        return value, "gone"
    if value is None:
        return None, f"not evaluable: {seen.reason}" if seen.reason else "not evaluable"
    axis = ("short axis " if about.is_node else "long axis ") if adding.unit == "mm" else ""
    small = "too small to measure, taken as " if seen.state is State.TOO_SMALL else ""
    return value, f"{small}{axis}{value:.1f} {adding.unit}"


def _merged(adding: _Sum, seen: Seen) -> tuple[float | None, str]:
    """The whole is counted once: with the lesion that it merged into, or here if that one is not among the chosen."""
    into = _end_of(adding, seen)
    if into in adding.keepers or into in adding.counted:
        return 0.0, f"measured together with lesion {into}"
    adding.counted.add(into)
    if adding.course.at(adding.visit, into).state is State.MERGED:
        return None, f"not evaluable: merged in a circle with lesion {into}"
    value, words = _part(adding, into)
    return value, f"merged into lesion {into}: {words}"


def _end_of(adding: _Sum, seen: Seen) -> str:
    passed = {seen.lesion_id}
    while seen.state is State.MERGED and seen.into not in passed:
        passed.add(seen.into)
        seen = adding.course.at(adding.visit, seen.into)
    return seen.lesion_id


def roles(chosen: Sequence[Chosen], role: Role) -> list[Chosen]:
    """Those with this role."""
    return [one for one in chosen if one.role is role]

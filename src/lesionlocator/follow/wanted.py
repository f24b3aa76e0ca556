"""What a scan is asked for: lesions on their way into it, alone or grown together, and the prompts they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from lesionlocator.case import Lesion, Place, Status
from lesionlocator.follow.locate import Sighting
from lesionlocator.geometry import Geometry
from lesionlocator.parts import common, components, count_parts, in_one_piece, join, near, share_out, touch
from lesionlocator.prompt import Prompt, Shape
from lesionlocator.segment import Remembered, SeenAgain
from lesionlocator.segment.visit import outlined
from lesionlocator.volume import Mask

_PART_SHARE = 0.1
"""Of an outline in several parts, the smallest that is one."""
_SPLIT_LEAVES = 0.12
"""Parts that together are a smaller share of the lesion than this are what is left of one, not several."""
_HELD = 0.7
"""Share of each of several outlines that an outline of all as one has to hold."""


@dataclass(frozen=True, eq=False)
class Carried:
    """A lesion on its way into a scan: where it was last outlined, its mask there, and what is seen of it now."""

    place: Place
    lesion: Lesion
    mask: Mask
    sighting: Sighting


@dataclass(frozen=True, eq=False)
class Wanted:
    """One lesion, or several that have grown together, and the prompts: several where it seems to have split."""

    group: tuple[Carried, ...]
    asks: tuple[tuple[Prompt, ...], ...]

    @property
    def keeper(self) -> Carried:
        """The largest before, whose id goes on."""
        return max(self.group, key=lambda item: item.mask.voxels)

    @property
    def remembered(self) -> Remembered:
        """What is known of it from the scan where the keeper was last seen; lesions that met are one."""
        same = [item for item in self.group if item.place[0] == self.keeper.place[0]]
        return Remembered(join([item.mask for item in same]), join([item.sighting.carried for item in same]))


def wanted(present: Sequence[Carried]) -> list[Wanted]:
    """What to ask for, for all lesions that are there. Lesions that met are asked for as one."""
    return [Wanted(tuple(group), _asks(group)) for group in _merged_groups(present)]


@dataclass(frozen=True, eq=False)
class Doubt:
    """Several outlines that may be one: parts of a lesion that seems to have split, or lesions that grew together."""

    numbers: tuple[int, ...]
    """Which of what was asked for."""
    as_one: Wanted
    outlines: tuple[Mask, ...]

    def is_settled_by(self, mask: Mask | None) -> bool:
        """Whether an outline of all as one is in one piece and holds most of every one of them."""
        if mask is None or not in_one_piece(mask):
            return False
        return all(one.placed(mask.geometry).overlap(mask) >= _HELD * one.voxels for one in self.outlines)


def doubts(asked: Sequence[Wanted], answers: Sequence[Sequence[Lesion]]) -> list[Doubt]:
    """What has to be looked at once more, as one: splits, and lesions that were apart and whose outlines now touch."""
    masks = [[one.mask for one in found if one.mask is not None] for found in answers]
    found = [
        Doubt((number,), replace(want, asks=((Shape(join(masks[number])),),)), tuple(masks[number]))
        for number, want in enumerate(asked)
        if len(masks[number]) > 1
    ]
    alone = [n for n, want in enumerate(asked) if len(want.group) == len(masks[n]) == 1 and not masks[n][0].is_empty]

    def met(i: int, j: int) -> bool:
        one, other = (asked[alone[number]].keeper for number in (i, j))
        own, there = (masks[alone[number]][0] for number in (i, j))
        voxel_mm = float(own.geometry.spacing_mm.max())
        return near(own, there, voxel_mm) and touch(own, there) and _were_apart(one, other)

    for group in _grouped(len(alone), met):
        if len(group) > 1:
            numbers = tuple(alone[place] for place in group)
            outlines = tuple(masks[number][0] for number in numbers)
            items = tuple(asked[number].keeper for number in numbers)
            found.append(Doubt(numbers, Wanted(items, ((Shape(join(outlines)),),)), outlines))
    return found


def taken_apart(asked: Sequence[Wanted], answers: Sequence[Sequence[Lesion]]) -> list[list[Lesion]]:
    """The answers, with what outlines of different lesions share given to the one whose place is nearer.

    No two lesions have one place. One of which nothing is left says so, and has no outline.
    """
    owners = [number for number, found in enumerate(answers) for one in found if one.mask is not None]
    known = [one for found in answers for one in found if one.mask is not None]
    places = [_place(asked[number]) for number in owners]
    masks = share_out([one.mask for one in known if one.mask is not None], places, owners)
    left = iter(masks)
    return [[one if one.mask is None else _with_what_is_left(one, next(left)) for one in found] for found in answers]


def _place(want: Wanted) -> Mask:
    return want.keeper.sighting.carried


def _with_what_is_left(lesion: Lesion, mask: Mask) -> Lesion:
    if not mask.is_empty:
        return replace(lesion, mask=mask)
    return replace(lesion, mask=None, status=Status.FAILED, reason="what was outlined there is another lesion's")


def again(want: Wanted, answer: SeenAgain, geometry: Geometry) -> list[Lesion]:
    """What a model with memory says of it: one lesion, or several where it seemed to have split and comes in parts."""
    name, outline, ask = want.keeper.lesion.id, answer.outline, want.asks[0]
    if not answer.is_there:
        return [Lesion(name, (), None, Status.ABSENT, f"{outline.reason} (belief {answer.presence:.2f})")]
    if outline.mask is None or len(want.asks) < 2:
        return [outlined(Lesion(name, ask), outline, geometry)]
    parts = [part for part in components(outline.mask) if part.voxels >= _PART_SHARE * outline.mask.voxels]
    return [outlined(Lesion(name, (Shape(part),)), replace(outline, mask=part), geometry) for part in parts]


def _asks(group: Sequence[Carried]) -> tuple[tuple[Prompt, ...], ...]:
    if len(group) > 1:
        return ((Shape(_merged(group)),),)
    (alone,) = group
    parts = alone.sighting.parts
    if not parts:
        return ((Shape(alone.sighting.carried),),)
    seen_ml = sum(part.volume_ml for part in parts)
    if len(parts) > 1 and (count_parts(alone.mask) > 1 or seen_ml < _SPLIT_LEAVES * alone.sighting.carried.volume_ml):
        return ((Shape(join(parts)),),)
    return tuple((Shape(part),) for part in parts)


def _merged_groups(carried: Sequence[Carried]) -> list[list[Carried]]:
    """Lesions that were apart before and now meet in what was seen of them are one group."""
    groups = _grouped(len(carried), lambda i, j: _meet(carried[i], carried[j]) and _were_apart(carried[i], carried[j]))
    return [[carried[number] for number in group] for group in groups]


def _were_apart(one: Carried, other: Carried) -> bool:
    return not touch(one.mask, other.mask)


def _grouped(count: int, belong: Callable[[int, int], bool]) -> list[list[int]]:
    """Numbers that belong together, by pairs."""
    leader = list(range(count))

    def find(i: int) -> int:
        while leader[i] != i:
            i = leader[i]
        return i

    for i, j in combinations(range(count), 2):
        if find(i) != find(j) and belong(i, j):
            leader[find(j)] = find(i)
    groups: dict[int, list[int]] = {}
    for i in range(count):
        groups.setdefault(find(i), []).append(i)
    return list(groups.values())


def _merged(group: Sequence[Carried]) -> Mask:
    """All that was seen of the lesions, and what lies between them: what is reached from more than one."""
    seen = [part for item in group for part in item.sighting.parts]
    around = [item.sighting.around for item in group if item.sighting.around is not None]
    between = [common(one, other) for n, one in enumerate(around) for other in around[n + 1 :]]
    return join([*seen, *(mask for mask in between if not mask.is_empty)])


def _meet(one: Carried, other: Carried) -> bool:
    near, far = one.sighting.around, other.sighting.around
    if near is None or far is None or one.sighting.contrast * other.sighting.contrast < 0:
        # What is brighter than its surroundings does not go on in what is darker.
        return False
    return touch(near, far)

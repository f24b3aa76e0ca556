"""iRECIST: progression under immunotherapy counts only when a later visit confirms it.

Reference: Seymour et al. 2017, doi:10.1016/S1470-2045(17)30074-8. New lesions are measured too, up to five and two an
organ, but never added to the sum of the targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lesionlocator.criteria.answer import Assessment, Chosen, Response
from lesionlocator.criteria.burden import diameters
from lesionlocator.criteria.course import Course, Role, Visit
from lesionlocator.criteria.recist import (
    History,
    Look,
    RecistRules,
    answered,
    first_response,
    look,
    progression,
    remember,
    without_progression,
)
from lesionlocator.criteria.targets import choose, organ_of, warnings_about, why_not_measurable

_NEAR = 1e-6
_TARGET, _NON_TARGET, _NEW = "targets", "non-target lesions", "new lesions"
_RANK = {"iCR": 0, "iPR": 1, "iSD": 2, "iNon-CR/Non-PD": 2, "iND": 2, "iUPD": 3, "iCPD": 4, "NE": 5}


@dataclass(frozen=True)
class IrecistRules:
    """The numbers of iRECIST. A confirming scan is due 4 to 8 weeks after the unconfirmed progression."""

    recist: RecistRules = RecistRules()
    earliest_days: int = 28
    latest_days: int = 56


@dataclass(frozen=True)
class Open:
    """A progression that waits to be confirmed: since when, by what, and how small everything was since then."""

    visit: str
    kinds: frozenset[str]
    sum_mm: float | None
    new_mm: float | None
    new_ids: frozenset[str]
    growing: frozenset[tuple[str, float]]
    """New lesions that are not measured as targets, and their diameters then."""

    def smallest(self, later: Open) -> Open:
        """What a confirmation is compared with after a visit that did not confirm: the smallest since it was opened."""
        growing = dict(later.growing)
        for name, value in self.growing:
            growing[name] = min(value, growing.get(name, value))
        return replace(
            self,
            kinds=self.kinds | later.kinds,
            sum_mm=_smaller(self.sum_mm, later.sum_mm),
            new_mm=_smaller(self.new_mm, later.new_mm),
            new_ids=self.new_ids | later.new_ids,
            growing=frozenset(growing.items()),
        )


def assess_irecist(course: Course, rules: IrecistRules | None = None) -> Assessment:
    """The category of every visit by iRECIST, and the best overall response."""
    rules = rules or IrecistRules()
    chosen = choose(course, rules.recist.sizes)
    responses = list(_responses(course, chosen, rules))
    best, why = _best(responses)
    return Assessment(
        criterion="irecist",
        title="iRECIST",
        reference="Seymour et al. 2017, doi:10.1016/S1470-2045(17)30074-8",
        unit="mm",
        quantity="sum of diameters of the targets (short axis of nodes)",
        responses=tuple(responses),
        chosen=chosen,
        best=best,
        best_reason=why,
        notes=(*warnings_about(chosen, course, rules.recist.sizes), *course.notes),
    )


def _responses(course: Course, chosen: Sequence[Chosen], rules: IrecistRules) -> Iterator[Response]:
    history, waiting, confirmed = History(), None, ""
    for index, visit in enumerate(course.visits):
        seen = look(course, chosen, visit, history, rules.recist)
        if index == 0:
            response = first_response(seen)
        else:
            now = _open(course, seen, chosen, history, rules)
            response, waiting = _judge(course, seen, history, rules, (waiting, now))
        if confirmed:
            response = replace(
                response,
                category="iCPD",
                after_progression=True,
                reasons=(f"progression was confirmed at {confirmed}",),
            )
        yield response
        remember(history, seen, response.category, first=index == 0)
        confirmed = confirmed or (visit.name if response.category == "iCPD" else "")


def _judge(
    course: Course, seen: Look, history: History, rules: IrecistRules, opens: tuple[Open | None, Open]
) -> tuple[Response, Open | None]:
    """The answer of one visit, and the progression that waits after it."""
    waiting, now = opens
    if seen.visit.missed:
        return answered(seen, history, "NE", [f"{seen.visit.name} was missed"]), waiting
    worse = progression(seen, history)
    if waiting is not None:
        return _with_waiting(course, seen, history, rules, (waiting, now))
    if worse:
        due = f"to be confirmed {rules.earliest_days // 7} to {rules.latest_days // 7} weeks later"
        return answered(seen, history, "iUPD", [*worse, due]), now
    return answered(seen, history, _named(without_progression(seen)), _words(seen)), None


def _with_waiting(
    course: Course, seen: Look, history: History, rules: IrecistRules, opens: tuple[Open, Open]
) -> tuple[Response, Open | None]:
    waiting, now = opens
    category = without_progression(seen)
    worse = progression(seen, history)
    reasons = _confirming(seen, waiting, now, rules)
    days = course.days(waiting.visit, seen.visit.name)
    if reasons and days is not None and days < rules.earliest_days:
        early = f"only {days} days after the unconfirmed progression of {waiting.visit}: too early to confirm it"
        return answered(seen, history, "iUPD", [early, *reasons]), waiting.smallest(now)
    if reasons:
        late = [f"{days} days after {waiting.visit}, later than the {rules.latest_days} days that are asked for"]
        said = late if days is not None and days > rules.latest_days else []
        first = f"the progression of {waiting.visit} is confirmed"
        return answered(seen, history, "iCPD", [first, *reasons, *said]), None
    if worse:
        return answered(
            seen, history, "iUPD", [f"not worse than at {waiting.visit}: still unconfirmed", *worse]
        ), waiting
    if category == "NE":
        return answered(
            seen, history, "NE", [*_words(seen), f"the progression of {waiting.visit} still waits"]
        ), waiting
    again = f"the progression of {waiting.visit} was not confirmed; a later one has to be confirmed anew"
    return answered(seen, history, _named(category), [*_words(seen), again]), None


def _open(course: Course, seen: Look, chosen: Sequence[Chosen], history: History, rules: IrecistRules) -> Open:
    """What is worse at this visit, and how large everything is."""
    worse = progression(seen, history)
    kinds = {
        _TARGET: seen.target is not None and seen.target.category == "PD",
        _NON_TARGET: seen.non_target is not None and seen.non_target.category == "PD",
        _NEW: bool(seen.new_words),
    }
    found = frozenset(kind for kind, holds in kinds.items() if holds)
    # Disease that is back after a complete response is in the lesions of the baseline.
    found = found or (frozenset({_TARGET}) if worse else frozenset[str]())
    sizes = diameters(course, seen.new, seen.visit.name, rules.recist.sizes).shares
    targets = _new_targets(course, seen.new, chosen, rules)
    measured = [share.value for share in sizes if share.lesion_id in targets]
    return Open(
        visit=seen.visit.name,
        kinds=found,
        sum_mm=seen.sum_mm,
        new_mm=None if None in measured else float(sum(value for value in measured if value is not None)),
        new_ids=frozenset(one.lesion_id for one in seen.new) | ({"new disease"} if seen.visit.new_disease else set()),
        growing=frozenset(
            (share.lesion_id, share.value)
            for share in sizes
            if share.value is not None and share.lesion_id not in targets
        ),
    )


def _confirming(seen: Look, waiting: Open, now: Open, rules: IrecistRules) -> list[str]:
    """Every reason for which this visit confirms the progression that waits; none if it does not."""
    least = rules.recist.progression_mm
    reasons: list[str] = []
    if _TARGET in waiting.kinds and _grew(waiting.sum_mm, now.sum_mm, least):
        rise = f"{_between(waiting.sum_mm, now.sum_mm):.1f} mm since {waiting.visit}"
        reasons.append(f"the sum of the targets rose by a further {rise} ({least:g} mm are needed)")
    if _NON_TARGET in waiting.kinds and seen.visit.non_target_progression:
        reasons.append(f"non-target lesions increased further (a reader: {seen.visit.non_target_progression})")
    if _NEW in waiting.kinds:
        reasons += _new_and_worse(waiting, now, least)
    other = now.kinds - waiting.kinds
    reasons += [f"a progression of {kind}, which had not progressed at {waiting.visit}" for kind in sorted(other)]
    return reasons


def _new_and_worse(waiting: Open, now: Open, least: float) -> list[str]:
    reasons: list[str] = []
    more = sorted(now.new_ids - waiting.new_ids)
    if more:
        reasons.append(f"more new lesions: {', '.join(more)}")
    elif _grew(waiting.new_mm, now.new_mm, least):
        rise = _between(waiting.new_mm, now.new_mm)
        reasons.append(f"the new lesions grew by {rise:.1f} mm since {waiting.visit} ({least:g} mm are needed)")
    then = dict(waiting.growing)
    grown = sorted(name for name, value in now.growing if name in then and value > then[name] + _NEAR)
    if grown:
        reasons.append(f"new lesion {', '.join(grown)}, which is not measured as a target, increased")
    return reasons


def _new_targets(
    course: Course, new: Sequence[Chosen], chosen: Sequence[Chosen], rules: IrecistRules
) -> frozenset[str]:
    """New lesions that are measured: measurable when first seen, up to five and two an organ, earliest first."""
    sizes = rules.recist.sizes
    ranked: list[tuple[int, str, Chosen]] = []
    for one in chosen:
        first = course.first_seen(one.lesion_id)
        if one.role is Role.NEW and first is not None:
            ranked.append((course.order[first], first, one))
    found: list[Chosen] = []
    for _, first, one in sorted(ranked, key=lambda item: item[0]):
        visit = _visit(course, first)
        organ = organ_of(one)
        room = (
            len(found) < sizes.most and sum(organ_of(other) == organ for other in found if organ) < sizes.most_an_organ
        )
        if room and not why_not_measurable(course.at(first, one.lesion_id), course.of(one.lesion_id), visit, sizes):
            found.append(one)
    present = {one.lesion_id for one in new}
    return frozenset(one.lesion_id for one in found if one.lesion_id in present)


def _visit(course: Course, name: str) -> Visit:
    return course.visits[course.order[name]]


def _grew(before: float | None, now: float | None, least: float) -> bool:
    return before is not None and now is not None and now - before >= least - _NEAR


def _smaller(one: float | None, other: float | None) -> float | None:
    known = [value for value in (one, other) if value is not None]
    return min(known, default=None)


def _between(before: float | None, now: float | None) -> float:
    return (now or 0.0) - (before or 0.0)


def _named(category: str) -> str:
    return category if category == "NE" else f"i{category}"


def _words(seen: Look) -> list[str]:
    parts = [part.words for part in (seen.target, seen.non_target) if part is not None]
    return parts or ["no lesion at baseline and none now"]


def _best(responses: Sequence[Response]) -> tuple[str, str]:
    """The best category before a confirmed progression; an unconfirmed one does not end the course."""
    until = [one for one in responses if one.category != "baseline" and not one.after_progression]
    if not until:
        return "NE", "no visit after baseline"
    best = min(until, key=lambda one: _RANK.get(one.category, 6))
    return best.category, f"{best.category} at {best.visit}"

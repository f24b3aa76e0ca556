"""PERCIST 1.0: how the hottest lesion's uptake changed, where PET and a liver reference are given.

Reference: Wahl et al. 2009, doi:10.2967/jnumed.108.057307.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lesionlocator.criteria.answer import Assessment, Chosen, Response, Share, percent
from lesionlocator.criteria.best import best_until
from lesionlocator.criteria.burden import add_up, roles
from lesionlocator.criteria.course import About, Course, Role, Seen, State, Visit
from lesionlocator.criteria.targets import choose
from lesionlocator.errors import Refused

_NEAR = 1e-6
_RANK = {"CMR": 0, "PMR": 1, "SMD": 2, "PMD": 3, "NE": 4}
_THERE = (State.MEASURED, State.TOO_SMALL)


@dataclass(frozen=True)
class PercistRules:
    """The numbers of PERCIST 1.0. Uptake in SUL (g/ml)."""

    change_percent: float = 30.0
    change_sul: float = 0.8
    glycolysis_percent: float = 75.0
    liver_factor: float = 1.5
    liver_sds: float = 2.0
    liver_percent: float = 20.0
    liver_sul: float = 0.3


def assess_percist(course: Course, rules: PercistRules | None = None) -> Assessment:
    """The category of every visit by PERCIST 1.0.

    Raises:
        Refused: No visit has both a peak uptake and a liver reference.
    """
    rules = rules or PercistRules()
    if course.baseline.liver_mean is None or not any(one.peak is not None for one in course.seen):
        raise Refused(
            found="no peak uptake, or no liver reference at baseline",
            needed="PET scans, and the liver's mean uptake and its standard deviation at every visit",
            do="give them with --reader (`liver` of each visit), or choose another criterion",
        )
    chosen = choose(course)
    responses = tuple(_responses(course, chosen, rules))
    best = best_until(responses[1:], "PMD", _RANK)
    return Assessment(
        criterion="percist-1.0",
        title="PERCIST 1.0",
        reference="Wahl et al. 2009, doi:10.2967/jnumed.108.057307",
        unit="SUL",
        quantity="peak uptake of the hottest lesion",
        responses=responses,
        chosen=chosen,
        best=best.category if best else "NE",
        best_reason=f"{best.category} at {best.visit}" if best else "no visit after baseline",
        notes=tuple(_notes(course)),
    )


def _notes(course: Course) -> Iterator[str]:
    if any(visit.uptake_unit != "SUL" for visit in course.visits):
        yield (
            "uptake is not said to be normalised to lean body mass (SUL), as PERCIST asks for: thresholds in percent "
            "hold, those in SUL are approximate"
        )
    yield "time from injection to scan, dose and scanner have to agree between visits; this was not checked"


def _responses(course: Course, chosen: Sequence[Chosen], rules: PercistRules) -> Iterator[Response]:
    known = [one for one in chosen if one.role in (Role.TARGET, Role.NON_TARGET)]
    first = _shares(course, known, course.baseline)
    base = _hottest(first)
    glycolysis = _glycolysis(course, known, course.baseline.name)
    measurable = _why_not_measurable(base, course.baseline, rules)
    for index, visit in enumerate(course.visits):
        shares = _shares(course, known, visit)
        hottest = _hottest(shares)
        if index == 0:
            words = measurable or f"baseline: the hottest lesion is {base.lesion_id if base else '-'}"
            category = "baseline"
        else:
            grown = percent(_glycolysis(course, known, visit.name), glycolysis)
            category, words = _judge(_Now(course, visit, chosen, shares, base, measurable, grown), rules)
        yield Response(
            visit.name,
            category,
            (words,),
            new_lesions=tuple(_new(course, chosen, visit)),
            sum=hottest.value if hottest else None,
            baseline=base.value if base else None,
            nadir=base.value if base else None,
            shares=shares,
        )


@dataclass(frozen=True, eq=False)
class _Now:
    course: Course
    visit: Visit
    chosen: Sequence[Chosen]
    shares: tuple[Share, ...]
    base: Share | None
    unmeasurable: str
    glycolysis_percent: float | None


def _judge(now: _Now, rules: PercistRules) -> tuple[str, str]:
    if worse := _worse_elsewhere(now):
        return "PMD", worse
    hottest, base = _hottest(now.shares), now.base
    why = _why_not_comparable(now, rules)
    if why or hottest is None or base is None or base.value is None or hottest.value is None:
        return "NE", why or "no peak uptake could be measured"
    change, rise = percent(hottest.value, base.value) or 0.0, hottest.value - base.value
    said = f"peak uptake of the hottest lesion went from {base.value:.1f} to {hottest.value:.1f} ({change:+.0f} %)"
    if change > rules.change_percent and rise >= rules.change_sul - _NEAR:
        return "PMD", f"{said}; more than {rules.change_percent:g} % and {rules.change_sul:g} SUL are a progression"
    if rise >= 0 and (now.glycolysis_percent or 0.0) >= rules.glycolysis_percent:
        grown = f"total lesion glycolysis rose by {now.glycolysis_percent:.0f} % without less uptake"
        return "PMD", f"{grown} ({rules.glycolysis_percent:g} % are needed)"
    return _not_worse(now, rules, change, rise, said)


def _worse_elsewhere(now: _Now) -> str:
    new = _new(now.course, now.chosen, now.visit)
    if new or now.visit.new_disease:
        return f"new lesion {', '.join(new)}" if new else f"new disease (a reader: {now.visit.new_disease})"
    said = now.visit.non_target_progression
    return f"other lesions progressed unequivocally (a reader: {said})" if said else ""


def _not_worse(now: _Now, rules: PercistRules, change: float, rise: float, said: str) -> tuple[str, str]:
    unknown = ", ".join(share.lesion_id for share in now.shares if share.value is None)
    if unknown:
        return "NE", f"{said}; lesion {unknown} could not be evaluated, which may be hotter"
    liver = now.visit.liver_mean or 0.0
    if all((share.value or 0.0) < liver - _NEAR for share in now.shares):
        return "CMR", f"no lesion has more uptake than the liver ({liver:.1f}): {said}"
    if change <= -rules.change_percent + _NEAR and -rise >= rules.change_sul - _NEAR:
        return "PMR", f"{said}; at least {rules.change_percent:g} % and {rules.change_sul:g} SUL are a response"
    return "SMD", f"{said}; neither a response nor a progression"


def _why_not_measurable(base: Share | None, visit: Visit, rules: PercistRules) -> str:
    if base is None or base.value is None:
        return "no peak uptake at baseline"
    least = rules.liver_factor * (visit.liver_mean or 0.0) + rules.liver_sds * (visit.liver_sd or 0.0)
    if base.value < least - _NEAR:
        return f"the hottest lesion's uptake of {base.value:.1f} is under {least:.1f}, 1.5 times the liver's and 2 SD"
    return ""


def _why_not_comparable(now: _Now, rules: PercistRules) -> str:
    before, here = now.course.baseline.liver_mean or 0.0, now.visit.liver_mean
    if now.visit.missed:
        return f"{now.visit.name} was missed"
    if now.unmeasurable:
        return f"not measurable at baseline: {now.unmeasurable}"
    if here is None:
        return "no liver reference at this visit"
    allowed = min(rules.liver_percent / 100 * before, rules.liver_sul)
    if abs(here - before) > allowed + _NEAR:
        return (
            f"the liver went from {before:.2f} to {here:.2f}: scans that differ by more than {rules.liver_percent:g} % "
            f"or {rules.liver_sul:g} SUL there are not comparable"
        )
    return ""


def _peak(seen: Seen, about: About) -> float | None:
    del about
    return 0.0 if seen.state is State.ABSENT else seen.peak


def _shares(course: Course, known: Sequence[Chosen], visit: Visit) -> tuple[Share, ...]:
    """Peaks of lesions; of one that broke up, the hottest part would count, so parts are shares of their own."""
    parts = [
        Chosen(part, one.role, one.why, one.organ, one.is_node)
        for one in known
        for part in course.parts(one.lesion_id)
        if part == one.lesion_id or course.at(visit.name, part).state in _THERE
    ]
    flat = Course(course.visits, course.seen)
    return add_up(flat, parts, visit.name, _peak, "SUL")


def _hottest(shares: Sequence[Share]) -> Share | None:
    found = [share for share in shares if share.value is not None]
    return max(found, key=lambda share: share.value or 0.0, default=None)


def _glycolysis(course: Course, known: Sequence[Chosen], visit: str) -> float | None:
    """Mean uptake times volume, summed over the lesions; None where one lacks either."""
    total = 0.0
    for one in known:
        for part in course.parts(one.lesion_id):
            seen = course.at(visit, part)
            if seen.state is State.MEASURED:
                if seen.mean is None or seen.volume_ml is None:
                    return None
                total += seen.mean * seen.volume_ml
    return total


def _new(course: Course, chosen: Sequence[Chosen], visit: Visit) -> list[str]:
    return [
        one.lesion_id
        for one in roles(chosen, Role.NEW)
        if course.at(visit.name, one.lesion_id).state in _THERE
        and visit.name not in course.of(one.lesion_id).doubtful_at
    ]

"""RECIST 1.1: sums of diameters, lesions that are watched, new lesions, and the category they make at each visit.

Reference: Eisenhauer et al. 2009, doi:10.1016/j.ejca.2008.10.026.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lesionlocator.criteria.answer import Assessment, Chosen, Response, Share, percent
from lesionlocator.criteria.best import best_response
from lesionlocator.criteria.burden import Burden, diameters, roles
from lesionlocator.criteria.course import Course, Role, Seen, State, Visit
from lesionlocator.criteria.targets import RECIST_SIZES, Sizes, choose, diameter_mm, warnings_about

_NEAR = 1e-6


@dataclass(frozen=True)
class RecistRules:
    """The numbers of RECIST 1.1, and what a protocol may add: whether responses have to be confirmed."""

    sizes: Sizes = RECIST_SIZES
    response_percent: float = 30.0
    progression_percent: float = 20.0
    progression_mm: float = 5.0
    confirm: bool = False
    confirm_days: int = 28
    stable_days: int = 42
    """Least time from baseline after which stable disease counts as a best response."""


@dataclass(frozen=True)
class Part:
    """One of the three parts of an answer: its category, and the rule in words."""

    category: str
    words: str


@dataclass(frozen=True)
class Look:
    """All that one visit shows: the three parts, and the sums behind them."""

    visit: Visit
    target: Part | None
    non_target: Part | None
    new: tuple[Chosen, ...]
    new_words: tuple[str, ...]
    sum_mm: float | None
    shares: tuple[Share, ...]
    watched_ml: float | None = None
    notes: tuple[str, ...] = ()


@dataclass
class History:
    """What earlier visits leave for later ones."""

    baseline_mm: float | None = None
    nadir_mm: float | None = None
    was_complete: bool = False
    watched_ml: float | None = None
    """Smallest volume of the non-target lesions so far."""


def assess_recist(course: Course, rules: RecistRules | None = None) -> Assessment:
    """The category of every visit by RECIST 1.1, and the best overall response."""
    rules = rules or RecistRules()
    chosen = choose(course, rules.sizes)
    responses = list(_responses(course, chosen, rules))
    best, why = best_response(responses, course, rules.confirm, rules.confirm_days, rules.stable_days)
    return Assessment(
        criterion="recist-1.1",
        title="RECIST 1.1",
        reference="Eisenhauer et al. 2009, doi:10.1016/j.ejca.2008.10.026",
        unit="mm",
        quantity="sum of diameters of the targets (short axis of nodes)",
        responses=tuple(responses),
        chosen=chosen,
        best=best,
        best_reason=why,
        notes=(*warnings_about(chosen, course, rules.sizes), *course.notes),
    )


def _responses(course: Course, chosen: Sequence[Chosen], rules: RecistRules) -> Iterator[Response]:
    history = History()
    progressed = ""
    for index, visit in enumerate(course.visits):
        seen = look(course, chosen, visit, history, rules)
        response = first_response(seen) if index == 0 else _overall(seen, history)
        if progressed:
            response = replace(response, after_progression=True, notes=(*response.notes, f"progressed at {progressed}"))
        yield response
        remember(history, seen, response.category, first=index == 0)
        progressed = progressed or (visit.name if response.category == "PD" else "")


def look(course: Course, chosen: Sequence[Chosen], visit: Visit, history: History, rules: RecistRules) -> Look:
    """The three parts of one visit's answer."""
    burden = diameters(course, roles(chosen, Role.TARGET), visit.name, rules.sizes)
    watched = diameters(course, roles(chosen, Role.NON_TARGET), visit.name, rules.sizes)
    new, words = new_lesions(course, chosen, visit, rules.sizes)
    known = bool(burden.shares) and not visit.missed
    watched_ml = _volume_ml(course, chosen, visit.name)
    return Look(
        visit=visit,
        target=_target(burden, history, rules) if burden.shares else None,
        non_target=_non_target(course, watched, visit, rules.sizes) if watched.shares or _said(visit) else None,
        new=new,
        new_words=words,
        sum_mm=burden.total if known else None,
        shares=(*burden.shares, *watched.shares, *_new_shares(course, new, visit, rules.sizes)),
        watched_ml=watched_ml,
        notes=_hints(course, chosen, visit, watched_ml, history.watched_ml),
    )


def first_response(seen: Look) -> Response:
    """The baseline: nothing to compare with."""
    count = sum(share.role is Role.TARGET for share in seen.shares)
    others = sum(share.role is Role.NON_TARGET for share in seen.shares)
    words = f"baseline: {count} target and {others} non-target lesion{'s' * (others != 1)}"
    return Response(seen.visit.name, "baseline", (words,), sum=seen.sum_mm, baseline=seen.sum_mm, shares=seen.shares)


def remember(history: History, seen: Look, category: str, *, first: bool) -> None:
    """Keep what the next visits are compared with."""
    if first:
        history.baseline_mm = seen.sum_mm
    if seen.sum_mm is not None:
        history.nadir_mm = seen.sum_mm if history.nadir_mm is None else min(history.nadir_mm, seen.sum_mm)
    if seen.watched_ml:
        history.watched_ml = min(seen.watched_ml, history.watched_ml or seen.watched_ml)
    history.was_complete = history.was_complete or category in ("CR", "iCR")


def answered(seen: Look, history: History, category: str, reasons: Sequence[str]) -> Response:
    """A response with the sums of this visit."""
    return Response(
        visit=seen.visit.name,
        category=category,
        reasons=tuple(reasons),
        target=seen.target.category if seen.target else "",
        non_target=seen.non_target.category if seen.non_target else "",
        new_lesions=tuple(one.lesion_id for one in seen.new),
        sum=seen.sum_mm,
        baseline=history.baseline_mm,
        nadir=history.nadir_mm,
        shares=seen.shares,
        notes=seen.notes,
    )


def _overall(seen: Look, history: History) -> Response:
    """Tables 1 and 2 of the guideline."""
    if seen.visit.missed:
        return answered(seen, history, "NE", [f"{seen.visit.name} was missed"])
    worse = progression(seen, history)
    if worse:
        return answered(seen, history, "PD", worse)
    category = without_progression(seen)
    parts = [part.words for part in (seen.target, seen.non_target) if part is not None]
    if category == "PR" and seen.target is not None and seen.target.category == "CR":
        parts.insert(0, "the targets are gone, but not all other lesions are known to be: PR, not CR")
    return answered(seen, history, category, parts or ["no lesion at baseline and none now"])


def progression(seen: Look, history: History) -> list[str]:
    """Every reason for which this visit is a progression; none if it is not."""
    parts = [part.words for part in (seen.target, seen.non_target) if part is not None and part.category == "PD"]
    reasons = [*parts, *seen.new_words]
    back = [
        share.lesion_id
        for share in seen.shares
        if share.value is not None and share.value > 0 and share.role in (Role.TARGET, Role.NON_TARGET)
    ]
    gone = (seen.target is None or seen.target.category == "CR") and (
        seen.non_target is None or seen.non_target.category in ("CR", "NE")
    )
    if history.was_complete and back and not gone:
        reasons.append(f"disease is back after a complete response: lesion {', '.join(back)}")
    return reasons


def without_progression(seen: Look) -> str:
    """The category of a visit at which nothing progressed."""
    target = seen.target.category if seen.target else None
    other = seen.non_target.category if seen.non_target else None
    if target is None:
        return other or "ND"
    if target == "CR":
        return "CR" if other in (None, "CR") else "PR"
    return target


def _target(burden: Burden, history: History, rules: RecistRules) -> Part:
    """Of the targets alone. Where some were not evaluable, only a progression of the others can be said."""
    total, baseline, nadir = burden.known, history.baseline_mm, history.nadir_mm
    normal = burden.gone and not burden.missing
    if nadir is not None and not normal and _has_risen(total, nadir, rules):
        return Part("PD", _risen(total, nadir, rules, burden.missing))
    if burden.missing:
        return Part("NE", f"target {', '.join(burden.missing)} could not be evaluated: no sum")
    if burden.gone:
        left = "all targets are gone" if total <= 0 else f"all targets are gone, nodes are normal ({total:.1f} mm)"
        return Part("CR", left)
    if baseline is None:
        return Part("NE", "no sum at baseline to compare with")
    if baseline - total >= baseline * rules.response_percent / 100 - _NEAR:
        fall = f"{-_percent(total, baseline):.0f} % from baseline ({baseline:.1f} to {total:.1f} mm)"
        return Part("PR", f"the sum of target diameters fell by {fall}; {rules.response_percent:g} % are needed")
    return Part("SD", _stable(total, baseline, nadir, rules))


def _has_risen(total: float, nadir: float, rules: RecistRules) -> bool:
    rise = total - nadir
    return rise >= rules.progression_mm - _NEAR and rise >= nadir * rules.progression_percent / 100 - _NEAR


def _risen(total: float, nadir: float, rules: RecistRules, missing: Sequence[str]) -> str:
    rise = (
        f"by {_percent(total, nadir):.0f} % and {total - nadir:.1f} mm" if nadir > 0 else f"by {total - nadir:.1f} mm"
    )
    needed = f"{rules.progression_percent:g} % and {rules.progression_mm:g} mm are needed"
    without = f"; even without target {', '.join(missing)}, which could not be evaluated" if missing else ""
    return (
        f"the sum of target diameters rose {rise} from its smallest ({nadir:.1f} to {total:.1f} mm; {needed}){without}"
    )


def _stable(total: float, baseline: float, nadir: float | None, rules: RecistRules) -> str:
    nadir = baseline if nadir is None else nadir
    rise = f"{_signed(_percent(total, nadir))} and {total - nadir:+.1f} mm from the smallest"
    short = (
        f"; the rise is under {rules.progression_mm:g} mm"
        if (nadir > 0 and total - nadir >= nadir * rules.progression_percent / 100 - _NEAR)
        else ""
    )
    return (
        f"the sum of target diameters is {total:.1f} mm: {_signed(_percent(total, baseline))} from baseline, "
        f"{rise}; neither a response nor a progression{short}"
    )


def _signed(value: float) -> str:
    return f"{value:+.0f} %"


def _percent(now: float, before: float) -> float:
    return percent(now, before) or 0.0


def _said(visit: Visit) -> bool:
    return bool(visit.non_target_progression)


def _non_target(course: Course, watched: Burden, visit: Visit, sizes: Sizes) -> Part:
    if visit.non_target_progression:
        return Part("PD", f"non-target lesions progressed unequivocally (a reader: {visit.non_target_progression})")
    missing = [one.lesion_id for one in watched.shares if one.value is None and not _is_there(course, visit, one)]
    left = [one.lesion_id for one in watched.shares if one.lesion_id not in missing]
    gone = [one.lesion_id for one in watched.shares if _is_gone(course, one, sizes)]
    there = [name for name in left if name not in gone]
    if missing:
        return Part("NE", f"non-target {', '.join(missing)} could not be evaluated")
    if there:
        return Part("Non-CR/Non-PD", f"non-target {', '.join(there)} still there, without unequivocal progression")
    if visit.markers == "raised":
        return Part("Non-CR/Non-PD", "all non-target lesions are gone, but tumour markers are raised")
    return Part("CR", "all non-target lesions are gone" if watched.shares else "no non-target lesions")


def _is_there(course: Course, visit: Visit, share: Share) -> bool:
    """Seen without a number: a lesion that cannot be measured may still be said to be there."""
    return share.value is None and course.at(visit.name, share.lesion_id).state is State.MEASURED


def _is_gone(course: Course, share: Share, sizes: Sizes) -> bool:
    is_node = course.of(share.lesion_id).is_node
    return share.value is not None and share.value < (sizes.enlarged_node_mm - _NEAR if is_node else _NEAR)


# ------------------------------------------------------------------------------------------------------- new lesions


def new_lesions(
    course: Course, chosen: Sequence[Chosen], visit: Visit, sizes: Sizes = RECIST_SIZES
) -> tuple[tuple[Chosen, ...], tuple[str, ...]]:
    """New lesions that are there at this visit, and why they count.

    A lesion of which a reader is not sure does not count until the reader is; then it counts from the visit at which it
    was first seen. A node is a new lesion only from a short axis of 10 mm.
    """
    found: list[Chosen] = []
    words: list[str] = []
    for one in roles(chosen, Role.NEW):
        seen = course.at(visit.name, one.lesion_id)
        if not _counts_as_new(course, one, visit, sizes):
            continue
        found.append(one)
        first = course.first_seen(one.lesion_id)
        since = "" if first == visit.name else f", first seen at {first}"
        words.append(f"new lesion {one.lesion_id}{_where(one)}{since}{_size_words(course, seen, sizes)}")
    if visit.new_disease:
        words.append(f"new disease (a reader: {visit.new_disease})")
    return tuple(found), tuple(words)


def _counts_as_new(course: Course, one: Chosen, visit: Visit, sizes: Sizes) -> bool:
    seen, about = course.at(visit.name, one.lesion_id), course.of(one.lesion_id)
    if seen.state not in (State.MEASURED, State.TOO_SMALL) or not _ever_sure(course, one.lesion_id):
        return False
    value = diameter_mm(seen, about, sizes)
    return not (about.is_node and value is not None and value < sizes.enlarged_node_mm - _NEAR)


def _ever_sure(course: Course, lesion_id: str) -> bool:
    """Whether a reader was sure of it at any visit at which it was there."""
    doubtful = course.of(lesion_id).doubtful_at
    if not doubtful:
        return True
    there = [visit.name for visit in course.visits if course.at(visit.name, lesion_id).state in _THERE]
    return any(name not in doubtful for name in there)


_THERE = (State.MEASURED, State.TOO_SMALL)


def _where(one: Chosen) -> str:
    return f" ({one.organ})" if one.organ else ""


def _size_words(course: Course, seen: Seen, sizes: Sizes) -> str:
    value = diameter_mm(seen, course.of(seen.lesion_id), sizes)
    return "" if value is None else f", {value:.1f} mm"


def _new_shares(course: Course, new: Sequence[Chosen], visit: Visit, sizes: Sizes) -> tuple[Share, ...]:
    return diameters(course, new, visit.name, sizes).shares


# --------------------------------------------------------------------------------------------------- what to look at


def _hints(
    course: Course, chosen: Sequence[Chosen], visit: Visit, watched_ml: float | None, smallest_ml: float | None
) -> tuple[str, ...]:
    """What the numbers suggest but only a reader can say."""
    hints: list[str] = []
    doubtful = [
        one.lesion_id
        for one in roles(chosen, Role.NEW)
        if course.at(visit.name, one.lesion_id).state in _THERE and not _ever_sure(course, one.lesion_id)
    ]
    if doubtful:
        hints.append(f"lesion {', '.join(doubtful)} may be new; a reader is not sure, so it does not count yet")
    if watched_ml and smallest_ml and watched_ml >= 1.73 * smallest_ml and not visit.non_target_progression:
        hints.append(
            f"the non-target lesions' volume rose by {_percent(watched_ml, smallest_ml):.0f} % from its smallest (73 % "
            "is what 20 % in diameter means): a reader should say whether this is unequivocal progression"
        )
    return tuple(hints)


def _volume_ml(course: Course, chosen: Sequence[Chosen], visit: str) -> float | None:
    """Volume of the non-target lesions that were measured; None if there is none or one has no volume."""
    names = [part for one in roles(chosen, Role.NON_TARGET) for part in course.parts(one.lesion_id)]
    volumes = [course.at(visit, name).volume_ml for name in names if course.at(visit, name).state is State.MEASURED]
    return None if not volumes or None in volumes else float(sum(volume for volume in volumes if volume is not None))

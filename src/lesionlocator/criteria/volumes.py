"""Response by the volume of all lesions: exploratory, no guideline has agreed on its limits.

The limits are those of RECIST 1.1 for balls: 30 % less in diameter is 65.7 % less in volume, 20 % more is 72.8 % more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lesionlocator.criteria.answer import Assessment, Chosen, Response
from lesionlocator.criteria.best import best_until
from lesionlocator.criteria.burden import add_up
from lesionlocator.criteria.course import About, Course, Role, Seen, State
from lesionlocator.criteria.recist import new_lesions
from lesionlocator.criteria.targets import choose

_NEAR = 1e-9
_RANK = {"CR": 0, "PR": 1, "SD": 2, "PD": 3, "ND": 2, "NE": 4}


@dataclass(frozen=True)
class VolumeRules:
    """Limits in percent of volume."""

    response_percent: float = 100 * (1 - 0.7**3)
    progression_percent: float = 100 * (1.2**3 - 1)


def assess_volumes(course: Course, rules: VolumeRules | None = None) -> Assessment:
    """The category of every visit by the sum of the volumes of all lesions of the baseline."""
    rules = rules or VolumeRules()
    chosen = choose(course)
    known = [one for one in chosen if one.role in (Role.TARGET, Role.NON_TARGET)]
    responses = tuple(_responses(course, chosen, known, rules))
    best = best_until(responses[1:], "PD", _RANK)
    return Assessment(
        criterion="volume",
        title="Volume of all lesions",
        reference="exploratory; limits are those of RECIST 1.1 for balls",
        unit="ml",
        quantity="volume of all lesions of the baseline",
        responses=responses,
        chosen=chosen,
        best=best.category if best else "NE",
        best_reason=f"{best.category} at {best.visit}" if best else "no visit after baseline",
        notes=("exploratory: no guideline has agreed on limits for volumes",),
        exploratory=True,
    )


def _responses(
    course: Course, chosen: Sequence[Chosen], known: Sequence[Chosen], rules: VolumeRules
) -> Iterator[Response]:
    baseline: float | None = None
    nadir: float | None = None
    for index, visit in enumerate(course.visits):
        shares = add_up(course, known, visit.name, _volume, "ml")
        missing = [share.lesion_id for share in shares if share.value is None]
        total = None if missing or visit.missed else float(sum(share.value or 0.0 for share in shares))
        new, words = new_lesions(course, chosen, visit)
        if index == 0:
            baseline = total
            category, said = "baseline", f"baseline: {len(shares)} lesions"
        elif words and not visit.missed:
            category, said = "PD", words[0]
        elif total is None:
            category, said = "NE", f"lesion {', '.join(missing)} could not be evaluated" if missing else "missed"
        else:
            category, said = _judge(total, baseline, nadir, rules)
        yield Response(
            visit.name,
            category,
            (said,),
            new_lesions=tuple(one.lesion_id for one in new),
            sum=total,
            baseline=baseline,
            nadir=nadir,
            shares=shares,
        )
        nadir = total if nadir is None else nadir if total is None else min(nadir, total)


def _judge(total: float, baseline: float | None, nadir: float | None, rules: VolumeRules) -> tuple[str, str]:
    if baseline is None or nadir is None:
        return "NE", "no volume at baseline to compare with"
    if baseline <= 0:
        return "ND", "no lesion at baseline and none now"
    said = f"{total:.1f} ml: {100 * (total / baseline - 1):+.0f} % from baseline"
    if total <= 0:
        return "CR", "all lesions are gone"
    if total > nadir and total - nadir >= nadir * rules.progression_percent / 100 - _NEAR:
        rise = f"{100 * (total / nadir - 1):+.0f} % from the smallest" if nadir > 0 else "lesions are back"
        return "PD", f"{said}, {rise} ({rules.progression_percent:.0f} % are a progression)"
    if baseline - total >= baseline * rules.response_percent / 100 - _NEAR:
        return "PR", f"{said} ({rules.response_percent:.0f} % less are a response)"
    return "SD", f"{said}; neither a response nor a progression"


def _volume(seen: Seen, about: About) -> float | None:
    del about
    return 0.0 if seen.state is State.ABSENT else seen.volume_ml

"""The best response of a course, with or without the confirmation that some protocols ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lesionlocator.criteria.answer import Response
from lesionlocator.criteria.course import Course

_RANK = {"CR": 0, "PR": 1, "Non-CR/Non-PD": 2, "SD": 2, "ND": 2, "PD": 3, "NE": 4}


def best_until(responses: Sequence[Response], progression: str, rank: Mapping[str, int]) -> Response | None:
    """The best of the responses up to the first progression, the earliest of equals; None where there are none."""
    until: list[Response] = []
    for one in responses:
        until.append(one)
        if one.category == progression:
            break
    return min(until, key=lambda one: rank[one.category], default=None)


def best_response(
    responses: Sequence[Response], course: Course, confirm: bool, confirm_days: int, stable_days: int
) -> tuple[str, str]:
    """The best overall response of RECIST 1.1 and the rule in words.

    Visits count up to the first progression. Stable disease counts if it was seen at least `stable_days` after
    baseline. With `confirm`, a response counts as such only if a later visit, at least `confirm_days` later and with
    nothing but visits that were not evaluable in between, shows it again.
    """
    until = _until_progression(responses)
    if not until:
        return "NE", "no visit after baseline"
    judged = [
        _confirmed(until, index, course, confirm_days) if confirm else until[index].category
        for index in range(len(until))
    ]
    judged = [_long_enough(until, index, category, course, stable_days) for index, category in enumerate(judged)]
    at = min(range(len(judged)), key=lambda index: _RANK.get(judged[index], 5))
    category, visit = judged[at], until[at]
    words = f"{category} at {visit.visit}"
    if visit.category != category and category not in ("NE", "PD"):
        words += f" ({visit.category} there was not confirmed)"
    if category in ("SD", "Non-CR/Non-PD") and course.days(course.baseline.name, visit.visit) is None:
        words += f"; dates are not known, so the {stable_days} days that it has to last were not checked"
    if confirm and category in ("CR", "PR"):
        words += ", confirmed"
    if category == "NE":
        words = "no visit before a progression gives a best response" if len(until) else words
    return category, words


def _until_progression(responses: Sequence[Response]) -> list[Response]:
    found: list[Response] = []
    for response in responses:
        if response.category != "baseline":
            found.append(response)
        if response.category == "PD":
            break
    return found


def _confirmed(until: Sequence[Response], index: int, course: Course, confirm_days: int) -> str:
    """What a response counts as, by the next visit that is not NE (table 3 of the guideline)."""
    now = until[index]
    if now.category not in ("CR", "PR"):
        return now.category
    for later in until[index + 1 :]:
        if later.category == "NE":
            continue
        days = course.days(now.visit, later.visit)
        if days is not None and days < confirm_days and later.category in ("CR", "PR"):
            continue
        if later.category == "CR" or (later.category == "PR" and now.category == "PR"):
            return now.category
        return "PR" if later.category == "PR" else "SD"
    return "SD"


def _long_enough(until: Sequence[Response], index: int, category: str, course: Course, stable_days: int) -> str:
    """Stable disease that was seen too early is no best response: what follows decides."""
    if category not in ("SD", "Non-CR/Non-PD"):
        return category
    days = course.days(course.baseline.name, until[index].visit)
    return "NE" if days is not None and days < stable_days else category

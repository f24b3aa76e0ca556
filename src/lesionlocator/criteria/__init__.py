"""Response to treatment: categories for every visit by published criteria, with the rows and the rule behind each."""

from __future__ import annotations

from collections.abc import Callable

from lesionlocator.criteria.answer import CATEGORIES, PROGRESSION, Assessment, Chosen, Response, Share
from lesionlocator.criteria.course import About, Course, Role, Seen, State, Visit, course_of
from lesionlocator.criteria.irecist import IrecistRules, assess_irecist
from lesionlocator.criteria.percist import PercistRules, assess_percist
from lesionlocator.criteria.recist import RecistRules, assess_recist
from lesionlocator.criteria.targets import Sizes, choose
from lesionlocator.criteria.volumes import VolumeRules, assess_volumes
from lesionlocator.errors import Refused

__all__ = [
    "CATEGORIES",
    "CRITERIA",
    "PROGRESSION",
    "About",
    "Assessment",
    "Chosen",
    "Course",
    "IrecistRules",
    "PercistRules",
    "RecistRules",
    "Response",
    "Role",
    "Seen",
    "Share",
    "Sizes",
    "State",
    "Visit",
    "VolumeRules",
    "assess",
    "assess_irecist",
    "assess_percist",
    "assess_recist",
    "assess_volumes",
    "choose",
    "course_of",
]


def assess(course: Course, criterion: str = "recist-1.1") -> Assessment:
    """A course by the criterion of this name, a row of `CRITERIA`."""
    if criterion not in CRITERIA:
        raise Refused(
            found=f"the criterion {criterion!r}", needed=f"one of {', '.join(CRITERIA)}", do="choose one of these"
        )
    return CRITERIA[criterion](course)


CRITERIA: dict[str, Callable[[Course], Assessment]] = {
    "recist-1.1": assess_recist,
    "recist-1.1-confirmed": lambda course: assess_recist(course, RecistRules(confirm=True)),
    "irecist": assess_irecist,
    "percist-1.0": assess_percist,
    "volume": assess_volumes,
}
"""Name of a criterion -> the function that applies it. Another criterion is one function and one row."""

"""What a response criterion answers: a category for every visit, with the rows and the rule that led to it."""

from __future__ import annotations

from dataclasses import dataclass

from lesionlocator.criteria.course import Role


@dataclass(frozen=True)
class Chosen:
    """What a lesion counts as, and why."""

    lesion_id: str
    role: Role
    why: str
    organ: str = ""
    is_node: bool = False
    proposed: bool = True
    """Whether the rules chose, and not a reader."""


@dataclass(frozen=True)
class Share:
    """What one lesion brings into the answer at one visit. `value` is None where it could not be evaluated."""

    lesion_id: str
    role: Role
    value: float | None
    words: str


@dataclass(frozen=True)
class Response:
    """The answer for one visit.

    `sum` is in `unit` (mm of diameters, ml of volumes, SUL of uptake); None where it is not known. `reasons` is the
    rule in words, the deciding one first.
    """

    visit: str
    category: str
    reasons: tuple[str, ...] = ()
    target: str = ""
    non_target: str = ""
    new_lesions: tuple[str, ...] = ()
    sum: float | None = None
    baseline: float | None = None
    nadir: float | None = None
    shares: tuple[Share, ...] = ()
    after_progression: bool = False
    notes: tuple[str, ...] = ()

    @property
    def from_baseline_percent(self) -> float | None:
        return percent(self.sum, self.baseline)

    @property
    def from_nadir_percent(self) -> float | None:
        return percent(self.sum, self.nadir)


@dataclass(frozen=True)
class Assessment:
    """A whole course by one criterion."""

    criterion: str
    title: str
    reference: str
    unit: str
    quantity: str
    """What the sum is a sum of, in words."""
    responses: tuple[Response, ...]
    chosen: tuple[Chosen, ...]
    best: str
    best_reason: str
    notes: tuple[str, ...] = ()
    exploratory: bool = False

    @property
    def progressed_at(self) -> str | None:
        """The first visit with progression."""
        return next((one.visit for one in self.responses if one.category in PROGRESSION), None)

    def at(self, visit: str) -> Response:
        return next(one for one in self.responses if one.visit == visit)


PROGRESSION = ("PD", "iCPD", "PMD")
"""The categories that end a course (iUPD is not confirmed)."""

CATEGORIES: dict[str, str] = {
    "baseline": "the scan that others are compared with",
    "CR": "complete response",
    "PR": "partial response",
    "SD": "stable disease",
    "PD": "progressive disease",
    "Non-CR/Non-PD": "lesions that cannot be measured are still there, without unequivocal progression",
    "NE": "not evaluable",
    "ND": "no disease",
    "iCR": "complete response",
    "iPR": "partial response",
    "iSD": "stable disease",
    "iUPD": "unconfirmed progression",
    "iCPD": "confirmed progression",
    "iNon-CR/Non-PD": "lesions that cannot be measured are still there, without unequivocal progression",
    "CMR": "complete metabolic response",
    "PMR": "partial metabolic response",
    "SMD": "stable metabolic disease",
    "PMD": "progressive metabolic disease",
}
"""What a category means, in words."""


def percent(now: float | None, before: float | None) -> float | None:
    """Change in percent; None where one is not known or there was nothing before."""
    return None if now is None or before is None or before <= 0 else 100.0 * (now / before - 1.0)

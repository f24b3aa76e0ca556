"""How many checks by a reader reach which detection rate, when the least sure answers are checked first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True)
class Answered:
    """One lesion at one visit, as it was answered.

    `confidence` is how sure the answer was (None: not said), `detected` whether the lesion was detected without help,
    `after_check` whether it is once a reader has checked it; `present` is False for one that is gone.
    """

    confidence: float | None
    detected: bool
    after_check: bool
    present: bool = True


@dataclass(frozen=True)
class Checks:
    """Detection of the lesions that are present, with this share of all answers checked."""

    share: float
    checks: int
    detection: float
    of_full: float
    """The detection as a share of what checking everything gives."""


def detection_by_checks(answers: Sequence[Answered], shares: Sequence[float] = SHARES) -> list[Checks]:
    """The least sure answers are checked first; those that say no confidence before all others.

    Answers about lesions that are gone cost a check like any other. Without a present lesion there is nothing to say.
    """
    ranked = sorted(answers, key=lambda one: -1.0 if one.confidence is None else one.confidence)
    present = np.array([one.present for one in ranked], bool)
    if not present.any():
        return []
    alone = np.array([one.detected for one in ranked], float)
    checked = np.array([one.after_check for one in ranked], float)
    full = float(checked[present].mean())
    found: list[Checks] = []
    for share in shares:
        count = int(np.ceil(share * len(ranked) - 1e-9))
        now = np.where(np.arange(len(ranked)) < count, checked, alone)
        detection = float(now[present].mean())
        found.append(Checks(share, count, detection, detection / full if full else 1.0))
    return found

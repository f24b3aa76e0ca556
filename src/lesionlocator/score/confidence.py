"""How well a model knows how good it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Bin:
    """Answers of about one confidence: how many, what was said on average, and the Dice that came true."""

    low: float
    high: float
    answers: int
    said: float | None
    came_true: float | None


@dataclass(frozen=True)
class ConfidenceScore:
    """How a model's own estimate of its Dice agrees with the Dice.

    `risk_by_coverage` holds (share of answers kept, mean 1 - Dice among them) when the least sure are left out first;
    `area_under_risk` is its mean: lower is better, and it rewards order, not calibration.
    """

    answers: int
    mean_absolute_difference: float | None
    reliability: tuple[Bin, ...]
    risk_by_coverage: tuple[tuple[float, float], ...]
    area_under_risk: float | None


def score_confidence(said: Sequence[float], dice: Sequence[float], bins: int = 5) -> ConfidenceScore:
    """Scores of confidences against the Dice that came true, one of each for every answer. No answers give no scores.

    Reference: risk against coverage, Geifman and El-Yaniv 2017, doi:10.48550/arXiv.1705.08500.
    """
    if not said:
        return ConfidenceScore(0, None, (), (), None)
    estimate, true = np.asarray(said, float), np.asarray(dice, float)
    order = np.argsort(-estimate, kind="stable")
    risk = np.cumsum(1 - true[order]) / np.arange(1, len(true) + 1)
    coverage = np.arange(1, len(true) + 1) / len(true)
    edges = np.linspace(0, 1, bins + 1)
    member = np.clip(np.digitize(estimate, edges[1:-1]), 0, bins - 1)
    return ConfidenceScore(
        len(estimate),
        float(np.mean(np.abs(estimate - true))),
        tuple(
            Bin(
                float(edges[b]),
                float(edges[b + 1]),
                int(np.count_nonzero(member == b)),
                float(estimate[member == b].mean()) if (member == b).any() else None,
                float(true[member == b].mean()) if (member == b).any() else None,
            )
            for b in range(bins)
        ),
        tuple((float(c), float(r)) for c, r in zip(coverage, risk, strict=True)),
        float(risk.mean()),
    )

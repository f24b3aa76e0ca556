"""One answer of one method about one lesion, with its scores: a line of every table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from lesionlocator.score import false_volumes, score_masks, score_retrieval
from lesionlocator.score.retrieval import Found
from lesionlocator.volume import Mask

Scores = Mapping[str, float | None]

SCORES: dict[str, str] = {
    "dice": "Dice",
    "nsd": "NSD",
    "hd95_mm": "HD95, mm",
    "volume_error_ml": "volume error, ml",
    "volume_error_percent": "volume error, %",
    "diameter_error_mm": "diameter error, mm",
    "centre_error_mm": "centre error, mm",
    "centre_error_x_mm": "centre error in x, mm",
    "centre_error_y_mm": "centre error in y, mm",
    "centre_error_z_mm": "centre error in z, mm",
    "cpm_10": "CPM@10",
    "cpm_25": "CPM@25",
    "detected": "detected",
    "false_positive_ml": "false positive, ml",
    "false_negative_ml": "false negative, ml",
}
"""Name in JSON and CSV -> name in tables."""


@dataclass(frozen=True)
class Row:
    """What one method said of one lesion when it was asked in one way. `amount` is the number on a curve's axis."""

    data: str
    case: str
    patient: str
    lesion: str
    kind: str
    modality: str
    method: str
    prompt: str
    visit: int = 0
    organ: str = ""
    amount: float | None = None
    reason: str = ""
    seconds: float | None = None
    confidence: float | None = None
    true_ml: float = 0.0
    predicted_ml: float = 0.0
    tolerance_mm: float | None = None
    scores: Scores = field(default_factory=dict[str, float | None])

    @property
    def question(self) -> tuple[str, int, str, str]:
        """What was asked, whoever answered: the same for every method."""
        return self.case, self.visit, self.lesion, self.prompt

    @property
    def family(self) -> str:
        """The prompt without its amount: what one curve shows."""
        return self.prompt.rsplit(":", 1)[0] if self.amount is not None else self.prompt

    @property
    def patient_key(self) -> str:
        """Patients of different data sets are different people, whatever they are called."""
        return f"{self.data}/{self.patient}"

    def to_json(self) -> dict[str, Any]:
        """All of it, flat."""
        plain = {name: value for name, value in asdict(self).items() if name != "scores"}
        return {**plain, **{name: self.scores.get(name) for name in SCORES}}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Row:
        """The row that gave this `to_json`."""
        own = {f.name: value[f.name] for f in fields(Row) if f.name != "scores" and f.name in value}
        return Row(**own, scores={name: value.get(name) for name in SCORES})


def score_all(predicted: Mask | None, truth: Mask) -> tuple[Scores, dict[str, float]]:
    """Every score of one answer, and its facts (true_ml, predicted_ml, tolerance_mm). No answer is an empty outline.

    Retrieval and false negatives are those of one lesion, so that their means are the shares over lesions; they are
    None for a lesion that is not there in truth.
    """
    answer = Mask.empty(truth.geometry) if predicted is None else predicted
    score = score_masks(answer, truth)
    false_positive_ml, false_negative_ml = false_volumes(answer, truth)
    retrieval = score_retrieval([] if truth.is_empty else [Found(truth, answer)])
    x, y, z = retrieval.centre_error_xyz_mm or (None, None, None)
    scores: dict[str, float | None] = {
        "dice": score.dice,
        "nsd": score.nsd,
        "hd95_mm": score.hd95_mm,
        "volume_error_ml": score.volume_error_ml,
        "volume_error_percent": score.volume_error_percent,
        "diameter_error_mm": score.diameter_error_mm,
        "centre_error_mm": retrieval.centre_error_mm,
        "centre_error_x_mm": x,
        "centre_error_y_mm": y,
        "centre_error_z_mm": z,
        "cpm_10": retrieval.cpm_10,
        "cpm_25": retrieval.cpm_25,
        "detected": retrieval.detected,
        "false_positive_ml": false_positive_ml,
        "false_negative_ml": false_negative_ml,
    }
    facts = {"true_ml": score.true_ml, "predicted_ml": score.predicted_ml, "tolerance_mm": score.tolerance_mm}
    return {name: None if value is None else float(np.float64(value)) for name, value in scores.items()}, facts

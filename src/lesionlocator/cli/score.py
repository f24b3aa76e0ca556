"""`lesionlocator score`: outlines against true ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lesionlocator.cli.answer import DONE, PARTLY, Answer, say

if TYPE_CHECKING:
    from lesionlocator.evaluate.files import ScoredLesion


def score(predicted: Path, truth: Path, /) -> Answer:
    """Score outlines against true ones: Dice, surface distance, HD95, volume and diameter error.

    Parameters
    ----------
    predicted
        A mask or label map, or a folder of them.
    truth
        The true one, or a folder with files of the same names.
    """
    from lesionlocator.evaluate.files import MISSING, mean_scores, score_files

    lesions = score_files(predicted, truth)
    means = mean_scores(lesions)
    for lesion in lesions:
        if lesion.reason:
            say(f"{lesion.name} {lesion.lesion_id}: {lesion.reason}".replace(" :", ":"))
    code = PARTLY if any(lesion.score is None or lesion.reason == MISSING for lesion in lesions) else DONE
    return Answer({**means, "lesions": [lesion.to_json() for lesion in lesions]}, _score_text(lesions, means), code)


def _score_text(lesions: Sequence[ScoredLesion], means: Mapping[str, float | None]) -> str:
    columns = ("dice", "nsd", "hd95_mm", "volume_error_ml", "diameter_error_mm")
    lines = [f"{'name':24} {'lesion':>8} " + " ".join(f"{column:>17}" for column in columns)]
    for lesion in lesions:
        values = lesion.to_json()
        lines.append(f"{lesion.name:24} {lesion.lesion_id:>8} " + _cells([values[column] for column in columns]))
    lines.append(f"{'mean':24} {'':>8} " + _cells([means[column] for column in columns]))
    return "\n".join(lines)


def _cells(values: Sequence[float | None]) -> str:
    return " ".join(f"{'' if value is None else format(value, '.3f'):>17}" for value in values)

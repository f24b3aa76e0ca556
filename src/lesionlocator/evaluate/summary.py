"""All rows of an evaluation put together: tables by stratum, paired differences, curves, events and confidence."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from lesionlocator.evaluate.rows import SCORES, Row
from lesionlocator.evaluate.statistics import Mean, area_under, mean_with_interval, paired_difference, volume_band
from lesionlocator.evaluate.tasks import Story
from lesionlocator.score import EventScore, score_confidence, score_events

STRATA = ("all", "modality", "kind", "size", "organ")
_IN_STRATA = ("dice", "nsd", "hd95_mm", "volume_error_percent", "detected")
PAIRED = ("dice", "nsd")

Entry = dict[str, Any]


def stratum(row: Row, by: str) -> str:
    """The group of a row: its modality, kind, organ, or the band of sizes of the true lesion."""
    if by == "all":
        return "all"
    return volume_band(row.true_ml) if by == "size" else str(getattr(row, by))


def summarise(rows: Sequence[Row], seed: int) -> list[Entry]:
    """A mean with intervals for every method, prompt, stratum and score. Strata of one group only are left out."""
    entries: list[Entry] = []
    for by in STRATA:
        names = list(dict.fromkeys(stratum(row, by) for row in _in_order(rows, by) if stratum(row, by)))
        if by != "all" and len(names) < 2:
            continue
        for name in names:
            inside = [row for row in rows if stratum(row, by) == name]
            for method, prompt, group in asked(inside):
                for score in SCORES if by == "all" else _IN_STRATA:
                    mean = mean_of(group, score, seed)
                    place = {"by": by, "stratum": name, "method": method, "prompt": prompt, "score": score}
                    entries.append({**place, **asdict(mean)})
    return entries


def _in_order(rows: Sequence[Row], by: str) -> list[Row]:
    """Bands of size from small to large; all else as it comes."""
    return sorted(rows, key=lambda row: row.true_ml) if by == "size" else list(rows)


def asked(rows: Iterable[Row]) -> Iterator[tuple[str, str, list[Row]]]:
    """(method, prompt, their rows), in the order in which they first come."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.method, row.prompt), []).append(row)
    for (method, prompt), group in groups.items():
        yield method, prompt, group


def mean_of(rows: Sequence[Row], score: str, seed: int) -> Mean:
    """Mean of one score over rows, resampled by patient."""
    return mean_with_interval([row.scores.get(score) for row in rows], [row.patient_key for row in rows], seed=seed)


def differences(rows: Sequence[Row], reference: str, seed: int) -> list[Entry]:
    """Every method against the reference, on the same questions."""
    entries: list[Entry] = []
    for score in PAIRED:
        known = {(method, prompt): _by_question(group, score) for method, prompt, group in asked(rows)}
        patients: dict[Hashable, Hashable] = {row.question: row.patient_key for row in rows}
        for (method, prompt), values in known.items():
            other = known.get((reference, prompt))
            if method == reference or other is None:
                continue
            found = paired_difference(values, other, patients, seed=seed)
            entries.append(
                {"method": method, "against": reference, "prompt": prompt, "score": score, **asdict(found.mean)}
            )
    return entries


def areas(rows: Sequence[Row], seed: int) -> list[Entry]:
    """For prompts with three amounts or more: the mean height of each lesion's curve of Dice, averaged."""
    entries: list[Entry] = []
    groups: dict[tuple[str, str], dict[Hashable, list[Row]]] = {}
    for row in rows:
        if row.amount is not None:
            lesion = (row.case, row.visit, row.lesion)
            groups.setdefault((row.family, row.method), {}).setdefault(lesion, []).append(row)
    for (family, method), lesions in groups.items():
        if max(len(curve) for curve in lesions.values()) < 3:
            continue
        heights = [
            area_under([row.amount or 0.0 for row in curve], [row.scores["dice"] or 0.0 for row in curve])
            for curve in lesions.values()
        ]
        patients = [curve[0].patient_key for curve in lesions.values()]
        mean = mean_with_interval(heights, patients, seed=seed)
        entries.append({"prompt": family, "method": method, "score": "dice", **asdict(mean)})
    return entries


def events(stories: Sequence[Story]) -> list[Entry]:
    """Precision, recall and F1 of every event and changes of name, for each method and kind of prompt."""
    entries: list[Entry] = []
    for method, prompt in dict.fromkeys((story.method, story.prompt) for story in stories):
        own = [story for story in stories if (story.method, story.prompt) == (method, prompt)]
        scores = score_events([one for story in own for one in story.said], [one for s in own for one in s.true])
        entries.append(
            {
                "method": method,
                "prompt": prompt,
                "identity_switches": sum(story.switches for story in own),
                "steps": sum(story.steps for story in own),
                "events": {name: _event(score) for name, score in scores.items() if score.said or score.true},
            }
        )
    return entries


def confidences(rows: Sequence[Row]) -> list[Entry]:
    """How well methods that say how sure they are know it."""
    entries: list[Entry] = []
    for method, prompt, group in asked(row for row in rows if row.confidence is not None):
        said = [row.confidence for row in group if row.confidence is not None]
        score = score_confidence(said, [row.scores["dice"] or 0.0 for row in group])
        entries.append({"method": method, "prompt": prompt, **asdict(score)})
    return entries


def _by_question(rows: Iterable[Row], score: str) -> dict[Hashable, float]:
    return {row.question: value for row in rows if (value := row.scores.get(score)) is not None}


def _event(score: EventScore) -> Entry:
    return {**asdict(score), "precision": score.precision, "recall": score.recall, "f1": score.f1}

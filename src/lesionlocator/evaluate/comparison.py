"""Two evaluations of one protocol side by side: what rose, what fell, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lesionlocator.errors import Refused
from lesionlocator.evaluate.rows import Row
from lesionlocator.evaluate.statistics import Difference, paired_difference
from lesionlocator.evaluate.summary import PAIRED


@dataclass(frozen=True)
class Compared:
    """One score of one method from one prompt: how much higher it is in the second evaluation."""

    method: str
    prompt: str
    score: str
    difference: Difference

    def to_json(self) -> dict[str, Any]:
        """Flat, with `fell` and `rose`."""
        fate = {"fell": self.difference.is_fall, "rose": self.difference.is_rise}
        return {
            "method": self.method,
            "prompt": self.prompt,
            "score": self.score,
            **fate,
            **asdict(self.difference.mean),
        }


def compare_results(first: Path, second: Path) -> list[Compared]:
    """Paired differences, second minus first, over the lesions and prompts that both have.

    Methods are matched by name. When each has exactly one that the other lacks, these two are compared as well, so
    that two models with their own names can be.

    Raises:
        Refused: A file is no result of `evaluate`, the protocols differ, or nothing is shared.
    """
    (one, seed), (other, _) = _read(first), _read(second)
    pairs = _pairs(one, other)
    found: list[Compared] = []
    for before, after, label in pairs:
        for prompt in dict.fromkeys(row.prompt for row in one if row.method == before):
            old = [row for row in one if (row.method, row.prompt) == (before, prompt)]
            new = [row for row in other if (row.method, row.prompt) == (after, prompt)]
            found += [Compared(label, prompt, score, _difference(new, old, score, seed)) for score in PAIRED]
    found = [entry for entry in found if entry.difference.mean.lesions]
    if not found:
        raise Refused(
            found=f"nothing that {first} and {second} share",
            needed="two results of one protocol, with a method in common",
            do="check the files",
        )
    return found


def _difference(new: Sequence[Row], old: Sequence[Row], score: str, seed: int) -> Difference:
    patients: dict[Hashable, Hashable] = {row.question: row.patient_key for row in (*new, *old)}
    return paired_difference(_values(new, score), _values(old, score), patients, seed=seed)


def _values(rows: Sequence[Row], score: str) -> dict[Hashable, float]:
    return {row.question: value for row in rows if (value := row.scores.get(score)) is not None}


def _pairs(one: Sequence[Row], other: Sequence[Row]) -> list[tuple[str, str, str]]:
    first, second = (list(dict.fromkeys(row.method for row in rows)) for rows in (one, other))
    pairs = [(method, method, method) for method in first if method in second]
    alone = [method for method in first if method not in second], [method for method in second if method not in first]
    if len(alone[0]) == len(alone[1]) == 1:
        pairs.append((alone[0][0], alone[1][0], f"{alone[0][0]} -> {alone[1][0]}"))
    return pairs


def _read(path: Path) -> tuple[list[Row], int]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [Row.from_json(row) for row in content["rows"]], int(content["protocol"]["seed"])
    except OSError as problem:
        raise Refused(
            found=f"{path}, which cannot be read ({problem.strerror})", needed="a results.json", do="check the path"
        ) from problem
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise Refused(
            found=f"{path}, which is no result of `evaluate`",
            needed="a results.json",
            do="name the file that evaluate wrote",
        ) from problem

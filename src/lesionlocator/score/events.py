"""Whether what happened to lesions was told rightly, and whether they kept their names."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lesionlocator.case import Event

SCORED = (Event.SAME, Event.NEW, Event.VANISHED, Event.SPLIT, Event.MERGED, Event.OUTSIDE)


@dataclass(frozen=True)
class EventScore:
    """Precision, recall and F1 of one kind of event; None where there is nothing to divide by."""

    event: str
    right: int
    said: int
    true: int

    @property
    def precision(self) -> float | None:
        return self.right / self.said if self.said else None

    @property
    def recall(self) -> float | None:
        return self.right / self.true if self.true else None

    @property
    def f1(self) -> float | None:
        return 2 * self.right / (self.said + self.true) if self.said + self.true else None


def score_events(said: Iterable[tuple[Hashable, str]], truth: Iterable[tuple[Hashable, str]]) -> dict[str, EventScore]:
    """Each event's score over (what it happened to, event) pairs.

    What it happened to is anything that names the lesion and the two scans, such as (case, from_scan, to_scan,
    lesion_id). An event is right when the same pair is in the truth; a pair that is said twice counts once. `unsure` is
    no answer: it is never right, and what it stood for is missed.
    """
    said_set, true_set = set(said), set(truth)
    return {
        event.value: EventScore(
            event.value,
            sum(1 for pair in said_set & true_set if pair[1] == event.value),
            sum(1 for pair in said_set if pair[1] == event.value),
            sum(1 for pair in true_set if pair[1] == event.value),
        )
        for event in SCORED
    }


def count_identity_switches(chain: Sequence[Mapping[str, str]]) -> tuple[int, int]:
    """How often a true lesion changed its name from one scan to the next in which it was found, and of how many steps.

    Args:
        chain: For each scan, true lesion id -> the id under which it was found; lesions that were not found are left
            out, and their name is compared at the next scan in which they are.

    Reference: the identity switches of Bernardin and Stiefelhagen 2008, CLEAR MOT, doi:10.1155/2008/246309.
    """
    last: dict[str, str] = {}
    switches = steps = 0
    for found in chain:
        for true_id, name in found.items():
            if true_id in last:
                steps += 1
                switches += int(last[true_id] != name)
            last[true_id] = name
    return switches, steps

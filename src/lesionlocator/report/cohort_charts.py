"""Curves of many cases: best change of each (waterfall), change over time (spider), and courses (swimmer)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lesionlocator.criteria import PROGRESSION, Assessment
from lesionlocator.report.charts import Frame
from lesionlocator.report.drawing import (
    BAD,
    GOOD,
    HAIR,
    INK,
    MUTED,
    PAPER,
    Disc,
    Drawing,
    Mark,
    Stroke,
    Words,
    bar,
    ticks,
)

_TOP_PERCENT = 100.0
_CATEGORY_COLOURS = {
    "CR": "#0b6b45",
    "PR": "#4fa77c",
    "SD": "#c9a227",
    "Non-CR/Non-PD": "#c9a227",
    "UPD": "#e08a5b",
    "PD": "#b3261e",
    "CPD": "#b3261e",
    "NE": "#9aa5b1",
    "ND": "#7f9fc4",
    "baseline": "#5d6975",
}
_MARKS = 120


@dataclass(frozen=True, eq=False)
class CourseOf:
    """One case of a cohort: its name, when its visits were, and its assessment."""

    name: str
    times: tuple[float, ...]
    in_days: bool
    assessment: Assessment

    @property
    def changes(self) -> list[tuple[float, float]]:
        """(time, change of the sum from baseline in percent), from baseline to the first progression."""
        found: list[tuple[float, float]] = []
        for at, one in zip(self.times, self.assessment.responses, strict=True):
            value = one.from_baseline_percent
            if value is not None:
                found.append((at, value))
            if one.category in PROGRESSION:
                break
        return found

    @property
    def best_percent(self) -> float | None:
        """The lowest change after baseline; None if there is none."""
        return min((change for _, change in self.changes[1:]), default=None)


def colour_of(category: str) -> str:
    """The colour of a category, the same in every drawing."""
    plain = {"CMR": "CR", "PMR": "PR", "SMD": "SD", "PMD": "PD"}.get(category, category)
    plain = plain[1:] if plain.startswith("i") else plain
    return _CATEGORY_COLOURS.get(plain, "#9aa5b1")


def draw_waterfall(courses: Sequence[CourseOf], width: float = 700.0) -> Drawing:
    """The best change of each case, largest growth first; bars beyond +100 % are cut, which is said."""
    ranked = sorted(((c.best_percent, c) for c in courses if c.best_percent is not None), key=lambda pair: -pair[0])
    height = 240.0
    high = max([20.0, *(min(value, _TOP_PERCENT) for value, _ in ranked)]) * 1.12
    frame = Frame(44, 14, width - 130, height - 40, (0, max(len(ranked), 1)), (-105.0, high))
    marks: list[Mark] = frame.grid(" %", 6)
    step = frame.width / max(len(ranked), 1)
    for index, (value, course) in enumerate(ranked):
        x, y = frame.left + index * step, frame.y(min(value, _TOP_PERCENT))
        zero = frame.y(0.0)
        gap = min(2.0, 0.15 * step)
        top, tall = min(y, zero), max(abs(y - zero), 1.0)
        marks.append(bar(x + gap / 2, top, step - gap, tall, colour_of(course.assessment.best)))
        if value > _TOP_PERCENT and step > 14:
            marks.append(Words((x + step / 2, top - 3), f"{value:+.0f}", 7, BAD, "middle"))
        if len(ranked) <= 24:
            name = (
                course.name
                if len(course.name) <= max(int(step / 4.2), 3)
                else f"{course.name[: max(int(step / 4.2) - 2, 1)]}.."
            )
            marks.append(Words((x + step / 2, height - 8), name, 7, MUTED, "middle"))
    marks += _limits(frame)
    return Drawing(width, height, tuple(marks), f"Best change of the sum of {len(ranked)} cases")


def draw_spider(courses: Sequence[CourseOf], width: float = 700.0) -> Drawing:
    """Change of the sum from baseline over time, a line for each case."""
    height = 240.0
    shown = [(course, course.changes) for course in courses if len(course.changes) > 1]
    last = max((changes[-1][0] for _, changes in shown), default=1.0)
    high = max([20.0, *(min(value, _TOP_PERCENT) for _, changes in shown for _, value in changes)]) * 1.12
    frame = Frame(44, 14, width - 130, height - 50, (0.0, last * 1.02), (-105.0, high))
    marks: list[Mark] = [*frame.grid(" %", 6), *_time_axis(frame, all(course.in_days for course, _ in shown))]
    faint = 1.0 if len(shown) <= 30 else 0.5 if len(shown) <= 150 else 0.25
    for course, changes in shown:
        colour = colour_of(course.assessment.best)
        points = tuple(frame.at(at, min(value, _TOP_PERCENT)) for at, value in changes)
        marks.append(Stroke(points, colour, 1.3, opacity=faint))
        if len(shown) <= _MARKS:
            marks.append(Disc(points[-1], 2.2, colour, PAPER, 0.6))
    marks += _limits(frame)
    return Drawing(width, height, tuple(marks), f"Change of the sum from baseline of {len(shown)} cases over time")


def draw_swimmer(courses: Sequence[CourseOf], width: float = 700.0, most: int = 60) -> Drawing:
    """Each case a bar from baseline to its last visit, longest first, with its responses and its progression."""
    ranked = sorted(courses, key=lambda course: -course.times[-1])[:most]
    tall = 15.0 if len(ranked) <= 25 else 10.0
    height = 40 + tall * max(len(ranked), 1)
    last = max((course.times[-1] for course in ranked), default=1.0)
    frame = Frame(110, 8, width - 196, tall * max(len(ranked), 1), (0.0, max(last * 1.04, 1.0)), (0.0, 1.0))
    marks: list[Mark] = list(_time_axis(frame, all(course.in_days for course in ranked)))
    for index, course in enumerate(ranked):
        y = frame.top + tall * index
        name = course.name if len(course.name) <= 20 else f"{course.name[:18]}.."
        marks.append(Words((frame.left - 6, y + tall * 0.7), name, min(8.5, tall * 0.75), INK, "end"))
        marks += _swim(frame, course, y, tall)
    return Drawing(width, height, tuple(marks), f"Courses of {len(ranked)} cases")


def _swim(frame: Frame, course: CourseOf, y: float, tall: float) -> list[Mark]:
    marks: list[Mark] = []
    responses, times = course.assessment.responses, course.times
    for i in range(1, len(responses)):
        left, right = frame.x(times[i - 1]), frame.x(times[i])
        marks.append(bar(left, y + tall * 0.2, max(right - left, 0.5), tall * 0.6, colour_of(responses[i].category)))
    at = next((i for i, one in enumerate(responses) if one.category in PROGRESSION), None)
    if at is not None:
        x, middle, half = frame.x(times[at]), y + tall / 2, tall * 0.32
        marks.append(Stroke(((x - half, middle - half), (x + half, middle + half)), INK, 1.4))
        marks.append(Stroke(((x - half, middle + half), (x + half, middle - half)), INK, 1.4))
    return marks


def _limits(frame: Frame) -> list[Mark]:
    right = frame.left + frame.width
    marks: list[Mark] = [Stroke(((frame.left, frame.y(0)), (right, frame.y(0))), INK, 0.9)]
    for value, words, colour in ((-30.0, "–30 %: response", GOOD), (20.0, "+20 %", BAD)):
        y = frame.y(value)
        marks.append(Stroke(((frame.left, y), (right, y)), colour, 0.9, (4, 3)))
        marks.append(Words((right + 6, y + 2.7), words, 7.8, colour))
    return marks


def _time_axis(frame: Frame, in_days: bool) -> list[Mark]:
    base = frame.top + frame.height
    marks: list[Mark] = [Stroke(((frame.left, base), (frame.left + frame.width, base)), HAIR, 0.8)]
    for value in ticks(*frame.x_range, 8):
        if not in_days and value != int(value):
            continue
        x = frame.x(value)
        marks.append(Stroke(((x, base), (x, base + 3)), MUTED, 0.6))
        marks.append(Words((x, base + 13), f"{value:g}", 7.5, MUTED, "middle"))
    words = "days from baseline" if in_days else "visits (dates are not known)"
    return [*marks, Words((frame.left + frame.width, base + 25), words, 7.5, MUTED, "end")]

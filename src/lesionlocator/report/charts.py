"""Curves of one case: each lesion's volume with its repeatability band, and the sum against baseline and smallest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lesionlocator.criteria import Assessment
from lesionlocator.report.drawing import (
    ACCENT,
    BAD,
    GOOD,
    HAIR,
    INK,
    MUTED,
    PAPER,
    Disc,
    Drawing,
    Mark,
    Number,
    Point,
    Stroke,
    Words,
    bar,
    number,
    signed_percent,
    ticks,
)


@dataclass(frozen=True)
class Times:
    """Where visits stand on the time axis: days since baseline, or just one after the other."""

    at: tuple[float, ...]
    names: tuple[str, ...]
    in_days: bool

    @property
    def words(self) -> str:
        return "days from baseline" if self.in_days else ""


@dataclass(frozen=True)
class Curve:
    """One lesion's volume at each visit: value, low and high end; None where it is not known."""

    title: str
    note: str
    colour: str
    values: tuple[float | None, ...]
    lows: tuple[float | None, ...]
    highs: tuple[float | None, ...]
    change: str = ""
    is_real: bool | None = None


@dataclass(frozen=True)
class Frame:
    """A plot's inner rectangle on the sheet, and the ranges it shows."""

    left: Number
    top: Number
    width: Number
    height: Number
    x_range: tuple[Number, Number]
    y_range: tuple[Number, Number]

    def x(self, value: Number) -> float:
        low, high = self.x_range
        return self.left + self.width * (value - low) / (high - low if high > low else 1.0)

    def y(self, value: Number) -> float:
        low, high = self.y_range
        return self.top + self.height * (1 - (value - low) / (high - low if high > low else 1.0))

    def at(self, x: Number, y: Number) -> Point:
        return self.x(x), self.y(y)

    def grid(self, unit: str = "", most: int = 4) -> list[Mark]:
        """Horizontal hair lines with their numbers."""
        marks: list[Mark] = []
        for value in ticks(*self.y_range, most):
            y = self.y(value)
            marks.append(Stroke(((self.left, y), (self.left + self.width, y)), HAIR, 0.6))
            marks.append(Words((self.left - 5, y + 2.7), f"{value:g}{unit}".replace("-", "–"), 7.5, MUTED, "end"))
        return marks


def draw_growth(curve: Curve, times: Times) -> Drawing:
    """Volume over time, with the band in which a reader who points a little differently would end."""
    width, height = 208.0, 138.0
    known = [value for value in (*curve.values, *curve.highs) if value is not None]
    frame = Frame(34, 34, width - 44, height - 58, _span(times.at), (0.0, max([*known, 1e-6]) * 1.08))
    marks: list[Mark] = [
        Words((4, 11), curve.title, 9.5, INK, bold=True),
        Words((4, 22.5), curve.note, 7.5, MUTED),
        Words((width - 6, 11), curve.change, 9.5, _change_colour(curve), "end", bold=curve.is_real is not False),
        *frame.grid(most=3),
        *_visit_labels(frame, times, height - 10),
    ]
    if curve.is_real is False:
        marks.append(Words((width - 6, 22.5), "within repeatability", 7.5, MUTED, "end"))
    for run in _runs(curve.lows):
        upper = [frame.at(times.at[i], curve.highs[i] or 0.0) for i in run]
        lower = [frame.at(times.at[i], curve.lows[i] or 0.0) for i in reversed(run)]
        if len(run) == 1:
            (x, top), (_, bottom) = upper[0], lower[0]
            upper, lower = [(x - 2, top), (x + 2, top)], [(x + 2, bottom), (x - 2, bottom)]
        marks.append(Stroke((*upper, *lower), curve.colour, 0.0, (), curve.colour, 0.18, closed=True))
    marks += _line(frame, times, curve.values, curve.colour)
    return Drawing(width, height, tuple(marks), f"{curve.title}: volume in ml at each visit")


def draw_sum(assessment: Assessment, times: Times, halves: Sequence[float | None], width: float = 700.0) -> Drawing:
    """The sum over time, with the limits that a response and a progression have to pass at each visit."""
    height = 210.0
    values = [one.sum for one in assessment.responses]
    nadirs = [one.nadir for one in assessment.responses]
    base = next((one.baseline for one in assessment.responses if one.baseline is not None), None)
    by_nadir = assessment.unit == "mm"
    limits = [_limit(nadir, by_nadir) for nadir in nadirs]
    known = [value for value in (*values, *limits, base) if value is not None]
    known += [value + half for value, half in zip(values, halves, strict=True) if value is not None and half]
    frame = Frame(44, 24, width - 150, height - 56, _span(times.at), (0.0, max([*known, 1.0]) * 1.1))
    marks: list[Mark] = [*frame.grid(), Words((6, 11), f"{assessment.quantity}, {assessment.unit}", 8.5, MUTED)]
    marks += _visit_labels(frame, times, height - 14)
    marks += _thresholds(frame, times, base if by_nadir else None, limits)
    for i, (value, half) in enumerate(zip(values, halves, strict=True)):
        if value is not None and half:
            x, top, bottom = frame.x(times.at[i]), frame.y(value + half), frame.y(max(value - half, 0.0))
            marks.append(Stroke(((x, top), (x, bottom)), ACCENT, 6.0, opacity=0.3))
    marks += _line(frame, times, values, ACCENT)
    for i, response in enumerate(assessment.responses):
        if response.sum is not None:
            x, y = frame.at(times.at[i], response.sum)
            change = signed_percent(response.from_baseline_percent) if i else f"{response.sum:.0f}"
            marks.append(Words((x, y - 8), change, 8.0, INK, "middle" if i else "start", bold=True))
    return Drawing(width, height, tuple(marks), f"{assessment.title}: {assessment.quantity} at each visit")


def _thresholds(frame: Frame, times: Times, base: float | None, limits: Sequence[float | None]) -> list[Mark]:
    """What a response has to fall under and a progression has to reach, with their names at the right."""
    marks: list[Mark] = []
    labels: list[tuple[float, str, str]] = []
    right = frame.left + frame.width
    if base is not None:
        y = frame.y(0.7 * base)
        marks.append(Stroke(((frame.left, y), (right, y)), GOOD, 1.0, (4, 3)))
        labels.append((y, "\u201330 % from baseline", GOOD))
    for i, limit in enumerate(limits[1:], start=1):
        if limit is not None:
            y = frame.y(limit)
            marks.append(Stroke(((frame.x(times.at[i - 1]), y), (frame.x(times.at[i]), y)), BAD, 1.0, (4, 3)))
    last = next((limit for limit in reversed(limits) if limit is not None), None)
    if last is not None:
        labels.append((frame.y(last), "+20 % over the smallest", BAD))
    return [*marks, *(Words((right + 8, y), text, 7.8, colour) for y, text, colour in _apart(labels))]


def _limit(nadir: float | None, by_nadir: bool) -> float | None:
    return None if nadir is None or not by_nadir else max(1.2 * nadir, nadir + 5.0)


def _apart(labels: Sequence[tuple[float, str, str]], least: float = 11.0) -> list[tuple[float, str, str]]:
    """Labels moved down until none covers another."""
    placed: list[tuple[float, str, str]] = []
    for y, text, colour in sorted(labels):
        low = max(y + 2.7, placed[-1][0] + least) if placed else y + 2.7
        placed.append((low, text, colour))
    return placed


def _span(at: Sequence[float]) -> tuple[float, float]:
    room = 0.04 * (at[-1] - at[0]) if len(at) > 1 else 1.0
    return at[0] - room, at[-1] + room


def _visit_labels(frame: Frame, times: Times, y: float) -> list[Mark]:
    """As many names as fit, the first and the last among them."""
    room = max(int(frame.width / 58), 2)
    every = max(1, -(-(len(times.names) - 1) // max(room - 1, 1)))
    last = len(times.names) - 1
    shown = [i for i in range(0, last + 1, every) if i == last or last - i >= every] + ([last] if last % every else [])
    marks: list[Mark] = []
    for i in dict.fromkeys([*shown, last]):
        x = frame.x(times.at[i])
        base = frame.top + frame.height
        marks.append(Stroke(((x, base), (x, base + 3)), MUTED, 0.6))
        name = times.names[i]
        text = name if len(name) <= 14 else f"{name[:12]}..."
        anchor = "middle" if 0 < i < last else "start" if i == 0 and last else "end" if last else "middle"
        marks.append(Words((x, y), text, 7.5, MUTED, anchor))
    return marks


def _runs(values: Sequence[float | None]) -> list[list[int]]:
    """Neighbouring visits that have a value."""
    runs: list[list[int]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(index)
    return [run for run in runs if run]


def _line(frame: Frame, times: Times, values: Sequence[float | None], colour: str) -> list[Mark]:
    """Solid between neighbouring visits, dotted over those without a value; gone is a ring on the ground."""
    known = [i for i, value in enumerate(values) if value is not None]
    marks: list[Mark] = []
    for one, other in zip(known, known[1:], strict=False):
        ends = (frame.at(times.at[one], values[one] or 0.0), frame.at(times.at[other], values[other] or 0.0))
        marks.append(Stroke(ends, colour, 1.8, () if other == one + 1 else (1.5, 3)))
    for i in known:
        gone = not values[i]
        at = frame.at(times.at[i], values[i] or 0.0)
        marks.append(
            Disc(at, 3.0, PAPER if gone else colour, colour, 1.5) if gone else Disc(at, 2.8, colour, PAPER, 0.8)
        )
    return marks


def _change_colour(curve: Curve) -> str:
    if curve.is_real is False or not curve.change:
        return MUTED
    return BAD if curve.change.startswith("+") else GOOD if curve.change.startswith("–") else INK


def legend(entries: Sequence[tuple[str, str]], width: float) -> Drawing:
    """Coloured squares and what they mean, in one line."""
    marks: list[Mark] = []
    x = 2.0
    for text, colour in entries:
        marks += [bar(x, 3, 9, 9, colour), Words((x + 13, 11), text, 8.5, MUTED)]
        x += 13 + 5.0 * len(text) + 18
    return Drawing(width, 16, tuple(marks), ", ".join(text for text, _ in entries))


def short(value: float | None, unit: str) -> str:
    """A value with its unit; nothing for nothing."""
    return "" if value is None else f"{number(value)} {unit}"

"""The report of one case: response, lesions at each visit, curves, events, warnings, and where all of it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lesionlocator.case import Status
from lesionlocator.criteria import CATEGORIES, Assessment, Course, Response, Role
from lesionlocator.measure import Row
from lesionlocator.repeatability import is_real
from lesionlocator.report.charts import Curve, Times, draw_growth, draw_sum
from lesionlocator.report.cohort_charts import colour_of
from lesionlocator.report.drawing import COLOURS, number, signed_percent
from lesionlocator.report.finished import FinishedCase
from lesionlocator.report.page import (
    Block,
    Cell,
    Facts,
    Figure,
    Gallery,
    Heading,
    Page,
    Paragraph,
    Picture,
    Pictures,
    Points,
    Series,
    Step,
    Strip,
    Table,
)
from lesionlocator.report.provenance import provenance
from lesionlocator.report.reader import ReaderNotes
from lesionlocator.report.thumbnails import Thumbnail, Thumbnails

FOOT = "Research software, not a medical device. Every number here has to be checked by a reader before it is used."
_GONE = (Status.ABSENT,)
_PICTURES_A_ROW = 5


@dataclass(frozen=True, eq=False)
class CaseReport:
    """All that the report of a case is made of."""

    case: FinishedCase
    course: Course
    notes: ReaderNotes
    assessments: Sequence[Assessment]
    thumbnails: Thumbnails
    warnings: Sequence[str] = ()

    @property
    def times(self) -> Times:
        """Of the visits of the course: days if all dates are known."""
        dates = [visit.date for visit in self.course.visits]
        names = tuple(visit.name for visit in self.course.visits)
        first = dates[0]
        if first is None or any(day is None for day in dates) or len(set(dates)) < len(dates):
            return Times(tuple(float(i) for i in range(len(names))), names, in_days=False)
        return Times(tuple(float((day - first).days) for day in dates if day is not None), names, in_days=True)

    @property
    def colours(self) -> Mapping[str, str]:
        return lesion_colours(self.case)


def lesion_colours(case: FinishedCase) -> dict[str, str]:
    """The colour of each lesion, the same in pictures, curves and tables."""
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(case.lesion_ids)}


def case_page(report: CaseReport) -> Page:
    """The whole report."""
    case, notes = report.case, report.notes
    visits = len(case.scans)
    lead = f"{len(case.lesion_ids)} lesion{'s' * (len(case.lesion_ids) != 1)} at {visits} visit{'s' * (visits != 1)}"
    facts = [("Case", case.name), ("Model", str(case.run.get("model", {}).get("id", "")) or "not said")]
    facts += [("Outlined", str(case.run.get("finished", ""))[:10]), ("Reader", notes.reader or "none")]
    blocks: list[Block] = []
    for part in (_summary, _pictures, _curves, _responses, _table, _events, _warnings, _provenance):
        blocks += part(report)
    title = f"Lesion report: {notes.patient or case.name}"
    return Page(title, lead, tuple(facts), blocks, FOOT, sign=True)


# ------------------------------------------------------------------------------------------------------------- summary


def _summary(report: CaseReport) -> Iterator[Block]:
    if not report.assessments:
        return
    main = report.assessments[0]
    yield Heading(f"Response by {main.title}")
    dates = {visit.name: visit.date for visit in report.course.visits}
    yield Strip(tuple(_step(one, main, str(dates[one.visit] or "")) for one in main.responses))
    yield Paragraph(
        f"Best response: {main.best}, {CATEGORIES.get(main.best, main.best)} ({main.best_reason}).", "strong"
    )
    for note in main.notes:
        yield Paragraph(_sentence(note), "warning" if "proposed" in note or "nobody" in note else "muted")
    if any(one.sum is not None for one in main.responses):
        yield Figure(draw_sum(main, report.times, _halves(report, main)), _sum_caption(report))


def _step(response: Response, assessment: Assessment, date: str) -> Step:
    change = signed_percent(response.from_baseline_percent) if response.category != "baseline" else ""
    size = "" if response.sum is None else f"{number(response.sum)} {assessment.unit}"
    return Step(
        response.visit,
        date,
        response.category,
        colour_of(response.category),
        "  ".join(part for part in (size, change) if part) or "no sum",
    )


def _sum_caption(report: CaseReport) -> str:
    words = (
        "Bold: change from baseline. Dashed: what a response has to fall under, and what a progression has to reach."
    )
    if report.case.spreads:
        words += " Bars: repeatability of the sum (95 %)."
    return words


def _halves(report: CaseReport, assessment: Assessment) -> list[float | None]:
    """Half of the sum's interval at each visit, where every target that is there has one."""
    if assessment.unit != "mm":
        return [None] * len(assessment.responses)
    return [_half(report, one) for one in assessment.responses]


def _half(report: CaseReport, response: Response) -> float | None:
    squares: list[float] = []
    for share in response.shares:
        if share.role is not Role.TARGET or not share.value:
            continue
        spread = report.case.spread(response.visit, share.lesion_id)
        axis = "short_axis" if report.course.of(share.lesion_id).is_node else "long_axis"
        interval = spread.interval(axis) if spread is not None else None
        if interval is None:
            return None
        squares.append((interval[2] - interval[0]) ** 2)
    return float(np.sqrt(sum(squares))) if squares else None


# ------------------------------------------------------------------------------------------------------------ pictures


def _pictures(report: CaseReport) -> Iterator[Block]:
    case, thumbnails = report.case, report.thumbnails
    yield Heading("Lesions at each visit")
    if thumbnails.unread:
        names = "; ".join(f"{scan} ({why})" for scan, why in thumbnails.unread.items())
        yield Paragraph(f"There are no pictures of scans that could not be read: {names}", "warning")
    if len(thumbnails.unread) == len(case.scans):
        return
    yield Paragraph(
        "Axial slice of the longest diameter (dotted), the patient's right on the left. One zoom and one grey scale "
        "for each lesion over all visits (MR: a grey scale for each scan). Without an outline: the estimated place "
        "of a lesion that is not outlined at that visit.",
        "muted",
    )
    chosen = {one.lesion_id: one for assessment in report.assessments[:1] for one in assessment.chosen}
    for start in range(0, len(case.scans), _PICTURES_A_ROW):
        scans = case.scans[start : start + _PICTURES_A_ROW]
        rows: list[Series] = []
        for lesion_id in case.lesion_ids:
            what = chosen[lesion_id].role.value if lesion_id in chosen else _part_of(report, lesion_id)
            note = ", ".join(part for part in (what, _where(report, lesion_id)) if part)
            shown = tuple(_picture(report, scan, lesion_id) for scan in scans)
            rows.append(Series(f"Lesion {lesion_id}", note, report.colours[lesion_id], shown))
        yield Pictures(tuple(scans), tuple(rows))


def _part_of(report: CaseReport, lesion_id: str) -> str:
    root = report.course.root(lesion_id)
    return f"broke off from {root}" if root != lesion_id else ""


def _where(report: CaseReport, lesion_id: str) -> str:
    about = report.course.of(lesion_id)
    return "lymph node" if about.is_node else about.organ


def _picture(report: CaseReport, scan: str, lesion_id: str) -> Picture:
    thumbnail = report.thumbnails.shown.get((scan, lesion_id), Thumbnail(None, "not there yet"))
    row = report.case.row(scan, lesion_id)
    if row is None or row.volume_ml is None or row.long_axis_mm is None or row.short_axis_mm is None:
        merged = report.course.at(scan, lesion_id).into if row is not None else ""
        words = f"merged into {merged}" if merged else thumbnail.words
        return Picture(None if merged else thumbnail.drawing, words)
    axes = f"{row.long_axis_mm:.0f} x {row.short_axis_mm:.0f} mm"
    change = signed_percent(_volume_change(report, scan, lesion_id))
    return Picture(thumbnail.drawing, thumbnail.words, (axes,), f"{number(row.volume_ml)} ml  {change}".strip())


def _volume_change(report: CaseReport, scan: str, lesion_id: str) -> float | None:
    """From the first outline of the lesion, in percent; None at that visit itself."""
    for earlier in report.case.scans:
        first = report.case.row(earlier, lesion_id)
        if first is not None and first.volume_ml:
            now = report.case.row(scan, lesion_id)
            known = earlier != scan and now is not None and now.volume_ml is not None
            return 100.0 * ((now.volume_ml or 0.0) / first.volume_ml - 1.0) if known and now is not None else None
    return None


# -------------------------------------------------------------------------------------------------------------- curves


def _curves(report: CaseReport) -> Iterator[Block]:
    if len(report.course.visits) < 2:
        return
    yield Heading("Growth of each lesion")
    if report.case.spreads:
        words = (
            "Volume in ml. The band is where it would be if a reader had pointed a little differently (95 %, from "
            "repeated outlines); a change counts as real only when it is more than both bands together. A ring: gone."
        )
    else:
        words = (
            "Volume in ml. A ring: gone. How far a measurement would move with another reader is not known; run with "
            "--repeats 8 to measure it."
        )
    yield Paragraph(words, "muted")
    yield Gallery(tuple(draw_growth(_curve(report, name), report.times) for name in report.case.lesion_ids))


def _curve(report: CaseReport, lesion_id: str) -> Curve:
    values: list[float | None] = []
    lows: list[float | None] = []
    highs: list[float | None] = []
    for visit in report.course.visits:
        row, spread = report.case.row(visit.name, lesion_id), report.case.spread(visit.name, lesion_id)
        interval = spread.interval("volume") if spread is not None else None
        gone = row is not None and row.status in _GONE
        values.append(0.0 if gone else row.volume_ml if row is not None else None)
        lows.append(interval[1] if interval else None)
        highs.append(interval[2] if interval else None)
    change, real = _whole_change(report, lesion_id, values)
    note = ", ".join(part for part in (_where(report, lesion_id), _part_of(report, lesion_id)) if part)
    colour = report.colours[lesion_id]
    return Curve(f"Lesion {lesion_id}", note, colour, tuple(values), tuple(lows), tuple(highs), change, real)


def _whole_change(report: CaseReport, lesion_id: str, values: Sequence[float | None]) -> tuple[str, bool | None]:
    """From the first to the last known volume: in words, and whether it is more than repeatability."""
    known = [i for i, value in enumerate(values) if value is not None]
    if len(known) < 2 or not values[known[0]]:
        return "", None
    first, last = values[known[0]] or 0.0, values[known[-1]] or 0.0
    names = [report.course.visits[i].name for i in (known[0], known[-1])]
    spreads = [report.case.spread(name, lesion_id) for name in names]
    intervals = [spread.interval("volume") for spread in spreads if spread is not None]
    both = [interval for interval in intervals if interval is not None]
    real = is_real(both[0], both[1]) if len(both) == 2 else None
    return signed_percent(100.0 * (last / first - 1.0)), real


# ------------------------------------------------------------------------------------------------------------ response


def _responses(report: CaseReport) -> Iterator[Block]:
    for index, assessment in enumerate(report.assessments):
        yield Heading(f"{assessment.title}, visit by visit")
        yield Paragraph(f"{assessment.reference}.", "muted")
        if index:
            yield Paragraph(f"Best response: {assessment.best} ({assessment.best_reason}).", "strong")
            for note in assessment.notes:
                yield Paragraph(_sentence(note), "muted")
        yield _response_table(assessment)
        yield Heading("What each lesion brought in", 3)
        yield _share_table(assessment)


def _response_table(assessment: Assessment) -> Table:
    rows: list[tuple[Cell | str, ...]] = []
    for one in assessment.responses:
        badge = Cell(one.category, badge=colour_of(one.category))
        after = ("after progression",) if one.after_progression else ()
        reasons = "; ".join((*one.reasons, *one.notes, *after))
        size = "" if one.sum is None else f"{one.sum:.1f}"
        nadir = "" if one.category == "baseline" else signed_percent(one.from_nadir_percent)
        change = "" if one.category == "baseline" else signed_percent(one.from_baseline_percent)
        rows.append((one.visit, badge, size, change, nadir, _sentence(reasons)))
    head = ("visit", "response", f"sum, {assessment.unit}", "from baseline", "from smallest", "why")
    return Table(head, tuple(rows), "llrrrl", (0.14, 0.13, 0.09, 0.1, 0.1, 0.44))


def _share_table(assessment: Assessment) -> Table:
    """A row for each lesion, a column for each visit: what it counts as, and its value in words."""
    shares = {(one.visit, share.lesion_id): share for one in assessment.responses for share in one.shares}
    rows: list[tuple[Cell | str, ...]] = []
    for chosen in assessment.chosen:
        cells: list[Cell | str] = []
        for one in assessment.responses:
            share = shares.get((one.visit, chosen.lesion_id))
            value = "" if share is None else "?" if share.value is None else f"{share.value:.1f}"
            plain = (
                share is None or share.words.endswith(f"axis {share.value or 0.0:.1f} mm") and " + " not in share.words
            )
            cells.append(Cell(value, "" if plain or share is None else share.words))
        role = f"{chosen.role.value}{' (proposed)' if chosen.proposed and chosen.role is Role.TARGET else ''}"
        rows.append((Cell(chosen.lesion_id, tone="strong"), Cell(role, chosen.why.removeprefix("proposed: ")), *cells))
    head = ("lesion", "counts as", *(one.visit for one in assessment.responses))
    count = len(assessment.responses)
    return Table(head, tuple(rows), "ll" + "r" * count, (0.09, 0.27, *([0.64 / count] * count)))


# --------------------------------------------------------------------------------------------------------------- table


def _table(report: CaseReport) -> Iterator[Block]:
    yield Heading("Measurements")
    order = {lesion_id: index for index, lesion_id in enumerate(report.case.lesion_ids)}
    rows = [_measured(report, row) for row in sorted(report.case.rows, key=lambda row: order[row.lesion_id])]
    head = ("lesion", "visit", "status", "volume, ml", "long axis, mm", "short axis, mm", "mean", "volume change")
    yield Table(head, tuple(rows), "lllrrrrr", (0.08, 0.14, 0.2, 0.14, 0.14, 0.14, 0.09, 0.09))
    if report.case.spreads:
        yield Paragraph("In brackets: the interval in which a repeated outline would be (95 %).", "muted")


def _measured(report: CaseReport, row: Row) -> tuple[Cell | str, ...]:
    spread = report.case.spread(row.scan, row.lesion_id)
    mean = "" if row.mean is None else f"{row.mean:.{1 if row.unit == 'SUV' else 0}f} {row.unit}".replace("-", "–")
    sure = "" if row.confidence is None else f"confidence {row.confidence:.2f}"
    numbers = [
        Cell(
            "" if value is None else f"{value:.{digits}f}",
            _brackets(spread.interval(name) if spread is not None else None, digits),
        )
        for name, value, digits in (
            ("volume", row.volume_ml, 2),
            ("long_axis", row.long_axis_mm, 1),
            ("short_axis", row.short_axis_mm, 1),
        )
    ]
    status = Cell(row.status.value, row.reason or sure, "" if row.status is Status.OUTLINED else "bad")
    change = signed_percent(_volume_change(report, row.scan, row.lesion_id))
    return (Cell(row.lesion_id, tone="strong"), row.scan, status, *numbers, mean, change)


def _brackets(interval: tuple[float, float, float] | None, digits: int) -> str:
    return "" if interval is None else f"({interval[1]:.{digits}f} to {interval[2]:.{digits}f})"


# -------------------------------------------------------------------------------------------------------------- events


def _events(report: CaseReport) -> Iterator[Block]:
    links = [link for link in report.case.links if link["event"] != "same"]
    if len(report.case.scans) < 2:
        return
    yield Heading("Events")
    same = len(report.case.links) - len(links)
    yield Paragraph(f"{same} link{'s' * (same != 1)} say{'s' * (same == 1)} that a lesion is still the same.", "muted")
    if not links:
        return
    rows = tuple(
        (
            Cell(str(link["lesion_id"]), tone="strong"),
            f"{link['from_scan'] or '-'} to {link['to_scan']}",
            Cell(str(link["event"]), _becomes(link)),
            str(link["reason"] or ""),
            _sure(link),
        )
        for link in links
    )
    yield Table(("lesion", "visits", "event", "reason", "decided by"), rows, "lllll", (0.09, 0.27, 0.2, 0.28, 0.16))


def _becomes(link: Mapping[str, str]) -> str:
    other = link["to_lesion_id"]
    return f"now lesion {other}" if other and other != link["lesion_id"] else ""


def _sure(link: Mapping[str, str]) -> str:
    return f"{link['decided_by']} ({float(link['confidence']):.2f})" if link["confidence"] else str(link["decided_by"])


def _warnings(report: CaseReport) -> Iterator[Block]:
    said = [*(str(one) for one in report.case.run.get("warnings", [])), *report.warnings]
    yield Heading("Warnings")
    yield Points(tuple(said)) if said else Paragraph("None.", "muted")


def _provenance(report: CaseReport) -> Iterator[Block]:
    yield Heading("Where this came from")
    yield Facts(tuple(provenance(report.case.run)))


def _sentence(text: str) -> str:
    dashed = re.sub(r"(?<!\w)-(?=\d)", "\u2013", text).replace(" %", "\u00a0%").replace(" mm", "\u00a0mm")
    return f"{dashed[:1].upper()}{dashed[1:].rstrip('.')}." if text else ""

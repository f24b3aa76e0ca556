"""The report of a cohort: who responded, best changes, changes over time, and the course of each case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from lesionlocator.criteria import CATEGORIES
from lesionlocator.report.charts import legend
from lesionlocator.report.cohort_charts import CourseOf, colour_of, draw_spider, draw_swimmer, draw_waterfall
from lesionlocator.report.drawing import signed_percent
from lesionlocator.report.page import Block, Cell, Figure, Heading, Page, Paragraph, Table

_FOOT = "Research software, not a medical device. Categories were made by rule; a reader has to agree with each."
_ORDER = ("CR", "PR", "SD", "Non-CR/Non-PD", "ND", "PD", "NE")


def cohort_page(name: str, courses: Sequence[CourseOf], failed: Mapping[str, str], *, linked: bool = True) -> Page:
    """The page. With `linked`, each case leads to its own page."""
    title = courses[0].assessment.title if courses else "no criterion"
    facts = (
        ("Cases with a follow-up", str(len(courses))),
        ("Criterion", title),
        ("Visits", str(sum(len(course.times) for course in courses))),
    )
    blocks: list[Block] = [*_summary(courses), *_plots(courses), *_cases(courses, linked), *_failed(failed)]
    return Page(f"Cohort report: {name}", f"Best response and course of each case, by {title}", facts, blocks, _FOOT)


def _summary(courses: Sequence[CourseOf]) -> Iterator[Block]:
    yield Heading("Best response")
    if not courses:
        yield Paragraph("No case has a baseline and a follow-up to which the criterion could be applied.", "warning")
        return
    counts = Counter(course.assessment.best for course in courses)
    order = sorted(counts, key=lambda category: (_rank(category), category))
    rows = tuple(
        (
            Cell(category, badge=colour_of(category)),
            CATEGORIES.get(category, category),
            str(counts[category]),
            f"{100 * counts[category] / len(courses):.0f} %",
        )
        for category in order
    )
    yield Table(("best", "means", "cases", "share"), rows, "llrr", (0.2, 0.5, 0.15, 0.15))
    if any(any("proposed" in note for note in course.assessment.notes) for course in courses):
        yield Paragraph("Targets of some or all cases were proposed by rule, not chosen by a reader.", "warning")


def _rank(category: str) -> int:
    plain = {"CMR": "CR", "PMR": "PR", "SMD": "SD", "PMD": "PD", "iUPD": "PD", "iCPD": "PD"}.get(category, category)
    plain = plain.removeprefix("i")
    return _ORDER.index(plain) if plain in _ORDER else len(_ORDER)


def _plots(courses: Sequence[CourseOf]) -> Iterator[Block]:
    if not courses:
        return
    quantity = courses[0].assessment.quantity
    known = sorted({course.assessment.best for course in courses}, key=_rank)
    yield Heading("Best change (waterfall)")
    yield Figure(legend([(category, colour_of(category)) for category in known], 700.0))
    unknown = sum(course.best_percent is None for course in courses)
    words = f"Largest decrease, or smallest increase, of the {quantity} from baseline; colour: best response."
    if unknown:
        words += f" Left out for want of a sum to compare: {unknown}."
    yield Figure(draw_waterfall(courses), f"{words} Bars over +100 % are cut.")
    yield Heading("Change over time (spider)")
    yield Figure(draw_spider(courses), "Up to the first progression; lines over +100 % are cut.")
    yield Heading("Courses (swimmer)")
    most = 60
    cut = f" The {most} longest of {len(courses)}." if len(courses) > most else ""
    yield Figure(
        draw_swimmer(courses, most=most),
        f"Colour: response at the end of each interval. Cross: first progression.{cut}",
    )


def _cases(courses: Sequence[CourseOf], linked: bool) -> Iterator[Block]:
    if not courses:
        return
    yield Heading("Cases")
    rows = tuple(
        (
            Cell(course.name, link=f"cases/{quote(course.name)}.html" if linked else "", tone="strong"),
            str(len(course.times)),
            Cell(course.assessment.best, badge=colour_of(course.assessment.best)),
            signed_percent(course.best_percent),
            course.assessment.progressed_at or "",
        )
        for course in courses
    )
    head = ("case", "visits", "best", "best change", "progressed at")
    yield Table(head, rows, "lrlrl", (0.34, 0.1, 0.18, 0.14, 0.24))


def _failed(failed: Mapping[str, str]) -> Iterator[Block]:
    if failed:
        yield Heading("Cases without a report")
        yield Table(("case", "reason"), tuple(failed.items()), "ll", (0.3, 0.7))

"""From an output folder to the documents that a reader signs: a page for a case, one for a cohort, as HTML and PDF."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

from lesionlocator.criteria import CRITERIA, Assessment, Course, Seen, assess
from lesionlocator.errors import Refused
from lesionlocator.formats import open_timepoint
from lesionlocator.report.case_page import CaseReport, case_page, lesion_colours
from lesionlocator.report.cohort_charts import CourseOf
from lesionlocator.report.cohort_page import cohort_page
from lesionlocator.report.finished import FinishedCase, as_date, find_finished, read_finished
from lesionlocator.report.html import to_html
from lesionlocator.report.outputs import write_text
from lesionlocator.report.page import Page
from lesionlocator.report.peaks import measure_peak
from lesionlocator.report.reader import ReaderNotes, course_for, read_notes
from lesionlocator.report.settings import ReportSettings
from lesionlocator.report.thumbnails import Read, Thumbnails, draw_thumbnails, scan_reader

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Documents:
    """What was written, and which cases could not be, with their reasons."""

    written: tuple[Path, ...]
    assessments: dict[str, Sequence[Assessment]]
    failed: dict[str, str]
    warnings: tuple[str, ...] = ()


def write_documents(folder: Path, settings: ReportSettings, say: Say = lambda _: None) -> Documents:
    """The report of a finished case, or of all cases of a batch and of the cohort that they are.

    Raises:
        Refused: No finished case, an unknown criterion, or a reader's file that cannot be used.
    """
    unknown = [name for name in settings.criteria if name not in CRITERIA]
    if unknown or not settings.criteria:
        found = f"the criteria {', '.join(unknown)}" if unknown else "no criterion"
        raise Refused(found=found, needed=f"some of {', '.join(CRITERIA)}", do="choose from these with --criteria")
    cases = find_finished(folder)
    settings.out.mkdir(parents=True, exist_ok=True)
    if cases == [folder]:
        return _one(folder, settings, say)
    return _cohort(folder, cases, settings, say)


def assess_case(
    case: FinishedCase, notes: ReaderNotes, criteria: Sequence[str], read: Read
) -> tuple[Course, list[Assessment], list[str]]:
    """The course of a case and its assessments; a criterion that cannot be applied to it is a warning in words."""
    dates, warnings = _dates(case)
    course = course_for(case, notes, dates, _peaks(case, notes, read) if "percist-1.0" in criteria else ())
    found: list[Assessment] = []
    if len(course.visits) < 2:
        return course, found, warnings
    for name in criteria:
        try:
            found.append(assess(course, name))
        except Refused as problem:
            warnings.append(f"{name} was not applied: {problem}")
    return course, found, warnings


def _one(folder: Path, settings: ReportSettings, say: Say) -> Documents:
    case = read_finished(folder)
    notes = read_notes(settings.reader) if settings.reader is not None else ReaderNotes()
    report = _report(case, notes, settings.criteria, say)
    written = _write(case_page(report), settings.out / "report", settings.pdf)
    return Documents(tuple(written), {case.name: report.assessments}, {}, tuple(report.warnings))


def _cohort(folder: Path, paths: Sequence[Path], settings: ReportSettings, say: Say) -> Documents:
    written: list[Path] = []
    courses: list[CourseOf] = []
    failed: dict[str, str] = {}
    all_found: dict[str, Sequence[Assessment]] = {}
    warnings: list[str] = []
    for path in paths:
        try:
            case = read_finished(path)
            notes = _notes_of(case, settings.reader)
            if settings.cohort_only:
                course, found, said = assess_case(case, notes, settings.criteria, scan_reader(case))
                report = CaseReport(case, course, notes, found, Thumbnails({}, {}), said)
            else:
                report = _report(case, notes, settings.criteria, say)
                written += _write(case_page(report), settings.out / "cases" / case.name, settings.pdf)
        except Refused as problem:
            failed[path.name] = str(problem)
            say(f"{path.name}: {problem}")
            continue
        all_found[case.name] = report.assessments
        warnings += [f"{case.name}: {warning}" for warning in report.warnings]
        if report.assessments:
            courses.append(CourseOf(case.name, report.times.at, report.times.in_days, report.assessments[0]))
    say(f"{folder.name}: {len(courses)} courses of {len(paths)} cases")
    page = cohort_page(folder.resolve().name, courses, failed, linked=not settings.cohort_only)
    written = [*_write(page, settings.out / "report", settings.pdf), *written]
    return Documents(tuple(written), all_found, failed, tuple(warnings))


def _report(case: FinishedCase, notes: ReaderNotes, criteria: Sequence[str], say: Say) -> CaseReport:
    say(f"{case.name}: reading {len(case.scans)} scans")
    read = lru_cache(maxsize=1)(scan_reader(case))
    course, found, warnings = assess_case(case, notes, criteria, read)
    thumbnails = draw_thumbnails(case, lesion_colours(case), read)
    for scan, why in thumbnails.unread.items():
        say(f"warning: no pictures of {scan}: {why}")
    return CaseReport(case, course, notes, found, thumbnails, warnings)


def _write(page: Page, stem: Path, pdf: bool) -> Iterator[Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    # A case may have a dot in its name, which with_suffix would take for an ending.
    html = stem.parent / f"{stem.name}.html"
    write_text(html, to_html(page))
    yield html
    if pdf:
        from lesionlocator.report.pdf import write_pdf

        path = stem.parent / f"{stem.name}.pdf"
        write_pdf(page, path)
        yield path


def _notes_of(case: FinishedCase, folder: Path | None) -> ReaderNotes:
    if folder is None:
        return ReaderNotes()
    if not folder.is_dir():
        raise Refused(found=f"{folder} for a cohort", needed="a folder of CASE.json files", do="name that folder")
    path = folder / f"{case.name}.json"
    return read_notes(path) if path.is_file() else ReaderNotes()


def _dates(case: FinishedCase) -> tuple[dict[str, date], list[str]]:
    """Dates of the scans that say them (DICOM); none if they contradict the order of the visits."""
    found: dict[str, date] = {}
    for scan in case.scans:
        path = case.input(scan).get("path")
        try:
            said = open_timepoint(Path(str(path))).date if path else None
            found |= {scan: as_date(said, scan)} if said else {}
        except (Refused, OSError):
            continue
    if list(found.values()) != sorted(found.values()):
        return {}, ["the scans' own dates contradict the order in which they were given: dates were left out"]
    return found, []


def _peaks(case: FinishedCase, notes: ReaderNotes, read: Read) -> list[Seen]:
    """Peak uptake of every outline in PET, where a reader gave a liver reference."""
    if not any(visit.liver_mean is not None for visit in notes.visits):
        return []
    peaks: list[Seen] = []
    for scan in case.scans:
        try:
            volume = read(scan)
        except (Refused, OSError):
            continue
        for lesion_id in case.lesion_ids if volume.modality == "PT" else ():
            mask = case.mask(scan, lesion_id)
            if mask is not None:
                peaks.append(Seen(scan, lesion_id, peak=measure_peak(volume, mask)))
    return peaks

"""`lesionlocator report`: the document that a reader signs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from lesionlocator.cli.answer import DONE, PARTLY, Answer, Flat, say
from lesionlocator.report.settings import ReportSettings

_MOST_LINES = 20


def report(folder: Path, /, *, settings: Annotated[ReportSettings, Flat]) -> Answer:
    """Write the report of a finished case or batch: lesions, growth, response, events, provenance.

    Parameters
    ----------
    folder
        Output folder of segment, track or batch.
    """
    from dataclasses import asdict

    from lesionlocator.report.documents import write_documents

    found = write_documents(folder, settings, say)
    value = {
        "written": [str(path) for path in found.written],
        "responses": {
            case: [asdict(assessment) for assessment in assessments] for case, assessments in found.assessments.items()
        },
        "failed": found.failed,
        "warnings": list(found.warnings),
    }
    for warning in found.warnings:
        say(f"warning: {warning}")
    best = [
        f"{case}: {one.title}: {one.best} ({one.best_reason})"
        for case, assessments in found.assessments.items()
        for one in assessments
    ]
    more = [f"... and {len(best) - _MOST_LINES} more"] if len(best) > _MOST_LINES else []
    text = "\n".join([*best[:_MOST_LINES], *more, f"written to {found.written[0]}"])
    return Answer(value, text, PARTLY if found.failed else DONE)

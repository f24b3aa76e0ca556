"""What a command answers, and how it speaks while it works."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from lesionlocator.run import Finished

DONE, NOTHING, PARTLY, INTERRUPTED = 0, 2, 3, 130
"""Exit codes: all done, nothing could be done, some lesions or cases failed, interrupted."""

Flat = Parameter(name="*")
"""For a settings value whose fields are the flags of the command."""


class Answer:
    """What a command has to say: text for a person, a value for a script, and the exit code."""

    def __init__(self, value: Any, text: str = "", code: int = DONE) -> None:
        self.value, self.text, self.code = value, text, code


def say(text: str) -> None:
    """One line of progress, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def outlined(finished: Finished) -> Answer:
    """The answer of a command that outlined lesions and wrote its folder."""
    from lesionlocator.report import link_rows

    for warning in finished.record.warnings:
        say(f"warning: {warning}")
    for row in finished.failed:
        say(f"lesion {row.lesion_id} in {row.scan}: {row.status.value}: {row.reason}")
    value = {
        "out": str(finished.folder),
        "lesions": [asdict(row) for row in finished.rows],
        "links": link_rows(finished.case),
        "warnings": finished.record.warnings,
    }
    return Answer(value, _table_text(finished), PARTLY if finished.failed else DONE)


def checked(checks: list[Any]) -> Answer:
    """The answer of a command that checked things: one line for each."""
    lines = [f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.finding}" for check in checks]
    code = DONE if all(check.ok for check in checks) else NOTHING
    return Answer([asdict(check) for check in checks], "\n".join(lines), code)


def _table_text(finished: Finished) -> str:
    lines = [f"{'scan':24} {'lesion':>8} {'status':10} {'ml':>9} {'long mm':>8} {'short mm':>8}"]
    for row in finished.rows:
        numbers = (row.volume_ml, row.long_axis_mm, row.short_axis_mm)
        cells = [
            "" if number is None else f"{number:.{digits}f}" for number, digits in zip(numbers, (2, 1, 1), strict=True)
        ]
        who = f"{row.scan:24} {row.lesion_id:>8} {row.status.value:10}"
        lines.append(f"{who} {cells[0]:>9} {cells[1]:>8} {cells[2]:>8}  {row.reason}")
    return "\n".join([*(line.rstrip() for line in lines), "", f"written to {finished.folder}"])

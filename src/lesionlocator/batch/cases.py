"""The cases that a reader asks for, found in a folder or in a small table."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lesionlocator.errors import Refused

BATCH_TABLE = "batch.csv"

_OPTIONS = {"as": ("box", "click", "mask"), "modality": ("CT", "MR", "PT")}
_COLUMNS = ("case", "scan", "followups", "followup_1, followup_2, ...", "prompts", "as", "modality", "note")
_FOLLOWUP = re.compile(r"followup_(\d+)")
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]')
_TAKEN = (BATCH_TABLE, "batch.lock", "lesions.csv", "links.csv")
_SHOWN = 20
"""Problems named in one message; the others are counted."""


Entry = TypeVar("Entry")


@dataclass(frozen=True)
class CaseJob:
    """One case to do: its scans, oldest first, the prompts on the first of them, and how to read both.

    `options` are what this case says for itself, as (name, value): `as` and `modality`, words of the command line. They
    go before what was said for the whole batch.
    """

    name: str
    scans: tuple[Path, ...]
    prompts: Path
    options: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if complaint := _unsafe(self.name):
            raise Refused(found=f"a case named {self.name!r}", needed="a name that can be a folder", do=complaint)
        if not self.scans:
            raise Refused(found=f"case {self.name!r} without a scan", needed="one scan or more", do="name its scans")


def find_cases(path: Path) -> tuple[CaseJob, ...]:
    """The cases of a folder of cases or of a table (CSV, TSV), in order of their names; their paths are absolute.

    Folder: every folder in it is a case, read as `read_case` reads one: scans (files, or folders of DICOM) oldest first
    by name, and one prompt file for the first. Names that put 10 before 2 are refused.

    Table: columns `case`, `scan`, `followups` (paths separated by `;`) or `followup_1`, `followup_2`, ..., `prompts`,
    and if wanted `as`, `modality`, `note`. Paths are relative to the table.

    Everything that is wrong is said at once, before any case is started.
    """
    path = path.absolute()
    if path.is_dir():
        jobs = _from_folder(path)
    elif path.is_file():
        jobs = _from_table(path)
    else:
        raise Refused(
            found=f"nothing at {path}", needed="a folder of cases or a table of them", do="check the path of the cases"
        )
    if alike := _alike(job.name for job in jobs):
        raise Refused(
            found=f"cases named alike in {path}: {alike}",
            needed="names that differ in more than upper and lower case",
            do="rename all but one of them",
        )
    return tuple(sorted(jobs, key=lambda job: job.name))


def _from_folder(folder: Path) -> list[CaseJob]:
    # An earlier output of ours may lie among the cases.
    cases = [entry for entry in _visible(folder) if entry.is_dir() and not (entry / BATCH_TABLE).exists()]
    if not cases:
        raise Refused(
            found=f"no folder in {folder}",
            needed="a folder for each case, with its scans and its prompts",
            do="give the folder that holds the cases, or a table of them",
        )
    return _all_or_refused(folder, cases, _case_of_folder)


def _case_of_folder(folder: Path) -> CaseJob:
    from lesionlocator.formats.case_folder import find_case_files

    try:
        scans, prompts = find_case_files(folder)
    except Refused as refusal:
        raise ValueError(f"case {folder.name}: {refusal.found}") from refusal
    # Scans are in the order of their names, in which visit_10 comes before visit_2: a follow-up before its baseline.
    by_number = sorted(scans, key=_by_number)
    if list(scans) != by_number:
        first = next(name for name, other in zip(scans, by_number, strict=True) if name != other)
        raise ValueError(f"case {folder.name}: {first.name} comes too early by its name; write numbers as 02, 10")
    return CaseJob(folder.name, scans, prompts)


def _by_number(entry: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", entry.name)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def _from_table(table: Path) -> list[CaseJob]:
    header, rows = _read_table(table)
    known = {"case", "scan", "followups", "prompts", *_OPTIONS, "note"}
    unknown = [name for name in header if name not in known and not _FOLLOWUP.fullmatch(name)]
    missing = [name for name in ("case", "scan", "prompts") if name not in header]
    both = "followups" in header and any(_FOLLOWUP.fullmatch(name) for name in header)
    if unknown or missing or both or len(set(header)) < len(header):
        raise Refused(
            found=f"the columns {', '.join(header)} in {table}",
            needed=f"case, scan and prompts, and of the others only {', '.join(_COLUMNS)}, each once, "
            "follow-ups in one way",
            do="rename or remove columns" if unknown or both else "add the missing columns, one heading each",
        )
    if not rows:
        raise Refused(found=f"no case in {table}", needed="a line for each case", do="add the cases")
    jobs = _all_or_refused(table, rows, lambda row: _case_of_row(table.parent, row))
    if twice := [name for name, count in sorted(Counter(job.name for job in jobs).items()) if count > 1]:
        raise Refused(
            found=f"more than one line in {table} for {', '.join(twice[:_SHOWN])}",
            needed="one line for each case, with all its scans",
            do="put follow-ups in the line of their baseline, or give the cases names of their own",
        )
    return jobs


def _read_table(table: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names and (line number, cells) of every line that is not empty."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            heading = file.readline()
            # No column of ours has one of these in its name, so the heading tells how cells are separated.
            separators = [mark for mark in ("\t", ";", ",") if mark in heading]
            if len(separators) != 1:
                raise Refused(
                    found=f"{heading.strip()[:80]!r} as first line of {table}",
                    needed="column names separated by commas (or by tabs, or by semicolons)",
                    do="save the table as CSV or TSV, with the names of the columns in its first line",
                )
            file.seek(0)
            lines = csv.reader(file, delimiter=separators[0], strict=True)
            header = [name.strip().lower() for name in next(lines)]
            rows = [_cells(table, lines.line_num, header, line) for line in lines if any(cell.strip() for cell in line)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Refused(
            found=f"{table}, which is no table ({error})", needed="CSV or TSV in UTF-8", do="save it so"
        ) from error
    return header, rows


def _cells(table: Path, number: int, header: Sequence[str], line: Sequence[str]) -> tuple[int, dict[str, str]]:
    if len(line) > len(header):
        raise Refused(
            found=f"{len(line)} cells in line {number} of {table}",
            needed=f"{len(header)}, as many as there are column names",
            do="put quotes around a cell that holds the separator",
        )
    padded = [cell.strip() for cell in line] + [""] * (len(header) - len(line))
    return number, dict(zip(header, padded, strict=True))


def _case_of_row(folder: Path, row: tuple[int, dict[str, str]]) -> CaseJob:
    number, cells = row
    numbered = sorted((int(found[1]), cell) for name, cell in cells.items() if (found := _FOLLOWUP.fullmatch(name)))
    later = [*cells.get("followups", "").split(";"), *(cell for _, cell in numbered)]
    written = [cells["scan"], *(cell.strip() for cell in later if cell.strip()), cells["prompts"]]
    complaints = [f"line {number}: no {name}" for name in ("case", "scan", "prompts") if not cells[name]]
    complaints += [f"line {number}: no file {path}" for path in written if path and not (folder / path).exists()]
    for name, allowed in _OPTIONS.items():
        if cells.get(name) and cells[name] not in allowed:
            complaints.append(f"line {number}: {name} is {cells[name]}, not one of {', '.join(allowed)}")
    if cells.get("as") == "mask" and len(written) == 2:
        complaints.append(f"line {number}: as is mask, an outline that stays as it is, and no follow-up to carry it to")
    if cells["case"] and (unsafe := _unsafe(cells["case"])):
        complaints.append(f"line {number}: case {cells['case']}: {unsafe}")
    if complaints:
        raise ValueError("; ".join(complaints))
    *scans, prompts = (folder / path for path in written)
    options = tuple((name, cells[name]) for name in _OPTIONS if cells.get(name))
    return CaseJob(cells["case"], tuple(scans), prompts, options)


def _all_or_refused(where: Path, entries: Iterable[Entry], read: Callable[[Entry], CaseJob]) -> list[CaseJob]:
    jobs: list[CaseJob] = []
    problems: list[str] = []
    for entry in entries:
        try:
            jobs.append(read(entry))
        except (ValueError, Refused) as problem:
            problems.append(str(problem))
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise Refused(
            found=f"in {where}: {'; '.join(problems[:_SHOWN])}{more}",
            needed="cases that can be read in one way only",
            do="correct these and start again; no case was begun",
        )
    return jobs


def _unsafe(name: str) -> str:
    """What to change about the name of a case before it can name a folder; nothing if it can."""
    if _UNSAFE.search(name) or name != name.strip() or len(name) > 120:
        return "use letters, digits, - and _, at most 120 of them"
    if not name or name.startswith(".") or name.endswith(".") or name.lower() in _TAKEN:
        return "use a name that neither starts nor ends with a dot and is not a file of the batch itself"
    return ""


def _alike(names: Iterable[str]) -> str:
    seen: dict[str, list[str]] = {}
    for name in names:
        seen.setdefault(name.casefold(), []).append(name)
    return "; ".join(", ".join(same) for same in seen.values() if len(same) > 1)


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))

"""An evaluation from protocol to page: case by case, taken up where it stopped, written as JSON, CSV and HTML."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from lesionlocator.demo.archive import cache_folder, public_scans
from lesionlocator.errors import Refused
from lesionlocator.evaluate import summary
from lesionlocator.evaluate.data import Available, FoundCase, find_data
from lesionlocator.evaluate.journal import Journal, Line
from lesionlocator.evaluate.methods import COPIED, TRACKED, find_card, method_label
from lesionlocator.evaluate.protocol import Protocol, read_protocol
from lesionlocator.evaluate.rows import SCORES, Row
from lesionlocator.evaluate.settings import EvaluateSettings
from lesionlocator.evaluate.tasks import TASKS, Answer, task_methods
from lesionlocator.report import table, write_text

RESULTS, TABLE, PAGE = "results.json", "results.csv", "report.html"
WORST = 10
_JOURNAL, _PICTURES = "journal.jsonl", "pictures"
_LIBRARIES = ("lesionlocator", "numpy", "scipy", "scikit-image", "SimpleITK", "surface-distance")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Evaluated:
    """What came of it. `problems` are the cases that could not be measured, each with its reason."""

    page: Path
    results: dict[str, Any]
    rows: Sequence[Row]
    problems: dict[str, str]


def run_evaluation(name: str, settings: EvaluateSettings, say: Say = lambda _: None) -> Evaluated:
    """Measure everything that a protocol asks for and write the folder.

    Raises:
        Refused: No such protocol or model, no data, a folder of another evaluation, or no case that can be measured.
    """
    from lesionlocator.evaluate.page import write_page

    protocol = read_protocol(name)
    protocol = replace(protocol, methods=task_methods(protocol, settings.model))
    cards = _cards(protocol)
    available = find_data(protocol, settings.data, public=_public_folder)
    for data, reason in available.skipped.items():
        say(f"skipped {data}: {reason}")
    if not available.cases:
        reasons = "; ".join(available.skipped.values()) or "no case"
        raise Refused(
            found=f"no data for {protocol.name} ({reasons})", needed="one case", do="name the data with --data"
        )
    journal = Journal(
        settings.out / _JOURNAL, protocol.fingerprint(cards=cards, version=metadata.version("lesionlocator"))
    )
    problems = dict(available.missing)
    for data_case, reason in available.missing.items():
        say(f"{data_case}: {reason}")
    _measure(available, protocol, journal, settings.out / _PICTURES, problems, say)
    lines = journal.in_order([case.files.name for case in available.cases])
    if not lines:
        raise Refused(
            found=f"no case that could be measured ({'; '.join(problems.values())})", needed="one", do="see the reasons"
        )
    rows = [row for line in lines for row in line.rows]
    say("putting the tables together")
    results = _results(protocol, available, lines, problems, settings)
    results["models"] = cards
    write_text(settings.out / RESULTS, json.dumps(results, indent=1, allow_nan=False) + "\n")
    columns = [*(key for key in rows[0].to_json() if key not in SCORES), *SCORES]
    write_text(settings.out / TABLE, table(columns, (row.to_json() for row in rows)))
    worst = [(row, settings.out / _PICTURES / picture_name(row)) for row in worst_rows(rows, protocol)]
    page = write_page(settings.out / PAGE, results, rows, worst)
    return Evaluated(page, results, rows, problems)


def pictured(row: Row, protocol: Protocol) -> bool:
    """Whether a row may be among the worst cases: the last method's answers to the first prompt, as they ended."""
    if row.method != method_label(protocol.methods[-1]):
        return False
    if protocol.task == "correct":
        return row.prompt == f"{protocol.prompts[0]} corrected:5"
    return row.prompt == protocol.prompts[0]


def worst_rows(rows: Sequence[Row], protocol: Protocol) -> list[Row]:
    """The ten lowest Dice among the rows that may be pictured."""
    shown = [row for row in rows if pictured(row, protocol)]
    return sorted(shown, key=lambda row: (row.scores["dice"] or 0.0, row.question))[:WORST]


def picture_name(row: Row) -> str:
    """The file of a row's picture."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", f"{row.case}_{row.visit}_{row.lesion}") + ".png"


def _measure(  # noqa: PLR0913
    available: Available, protocol: Protocol, journal: Journal, pictures: Path, problems: dict[str, str], say: Say
) -> None:
    todo = [case for case in available.cases if case.files.name not in journal.lines]
    known = len(available.cases) - len(todo)
    if known:
        say(f"{known} of {len(available.cases)} cases were measured before")
    started = time.perf_counter()
    for number, case in enumerate(todo, start=1):
        line, answers = _one(case, protocol)
        journal.add(line)
        if line.problem:
            problems[line.case] = line.problem
        rows = [row for other in journal.lines.values() for row in other.rows]
        _draw(answers, worst_rows(rows, protocol), pictures)
        spent = time.perf_counter() - started
        left = spent / number * (len(todo) - number)
        what = line.problem or f"{len(line.rows)} answers in {line.seconds:.1f} s"
        say(f"{known + number}/{len(available.cases)} {line.case}: {what}; about {_minutes(left)} left")


def _one(case: FoundCase, protocol: Protocol) -> tuple[Line, list[Answer]]:
    started = time.perf_counter()
    try:
        done = TASKS[protocol.task](case, protocol)
    except Refused as refused:
        return Line(case.files.name, problem=str(refused)), []
    seconds = time.perf_counter() - started
    rows = tuple(answer.row for answer in done.answers)
    return Line(case.files.name, rows, tuple(done.stories), "", seconds), done.answers


def _draw(answers: Sequence[Answer], worst: Sequence[Row], folder: Path) -> None:
    """Pictures of the answers that are among the worst so far: what is among the worst at the end was so before."""
    from lesionlocator.evaluate.figures import draw_case

    wanted = {picture_name(row) for row in worst}
    folder.mkdir(exist_ok=True)
    questions = {(row.question, row.method) for row in worst}
    for answer in answers:
        if (answer.row.question, answer.row.method) in questions:
            picture = draw_case(answer.scan, answer.truth, answer.outline)
            (folder / picture_name(answer.row)).write_bytes(picture)
    for file in folder.glob("*.png"):
        if file.name not in wanted:
            file.unlink()


def _results(
    protocol: Protocol,
    available: Available,
    lines: Sequence[Line],
    problems: dict[str, str],
    settings: EvaluateSettings,
) -> dict[str, Any]:
    rows = [row for line in lines for row in line.rows]
    measured = {line.case for line in lines}
    used = {case.files.data for case in available.cases if case.files.name in measured}
    command = ["lesionlocator", "evaluate", protocol.name, "--out", settings.out.name]
    command += [word for model in settings.model for word in ("--model", method_label(model))]
    command += ["--data", settings.data.name] if settings.data is not None else []
    plain = {key: value for key, value in asdict(protocol).items() if key != "data"}
    return {
        "version": 1,
        "protocol": plain,
        "command": " ".join(command),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": round(sum(line.seconds for line in lines), 1),
        "machine": {"system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count()},
        "versions": {"python": sys.version.split()[0], **{name: metadata.version(name) for name in _LIBRARIES}},
        "data": [_about(data.name, protocol, rows) for data in protocol.data if data.name in used],
        "skipped": available.skipped,
        "problems": problems,
        "summary": summary.summarise(rows, protocol.seed),
        "paired": summary.differences(rows, protocol.reference, protocol.seed),
        "areas": summary.areas(rows, protocol.seed),
        "events": summary.events([story for line in lines for story in line.stories]),
        "confidence": summary.confidences(rows),
        "rows": [row.to_json() for row in rows],
    }


def _about(name: str, protocol: Protocol, rows: Sequence[Row]) -> dict[str, Any]:
    data = next(data for data in protocol.data if data.name == name)
    own = [row for row in rows if row.data == name]
    return {
        "name": name,
        "about": data.about,
        "licence": data.licence,
        "citation": data.citation,
        "patients": len({row.patient for row in own}),
        "scans": len({(row.case, row.visit) for row in own}),
        "lesions": len({(row.case, row.visit, row.lesion) for row in own}),
    }


def _cards(protocol: Protocol) -> list[dict[str, Any]]:
    """What the models of the protocol are; refuses one that is not there before anything is measured."""
    names = [method.removeprefix(TRACKED) for method in protocol.methods if method not in COPIED]
    cards = [find_card(name) for name in dict.fromkeys(names)]
    return [{**card.to_json(), "settings": dict(card.settings)} for card in cards]


def _public_folder() -> Path:
    folder = cache_folder()
    public_scans(folder)
    return folder


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

"""What has been measured so far, case by case, so that an evaluation goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lesionlocator.errors import Refused
from lesionlocator.evaluate.following import Told
from lesionlocator.evaluate.rows import Row
from lesionlocator.evaluate.tasks import Story


@dataclass(frozen=True)
class Line:
    """One case: its rows and stories, or why it could not be measured."""

    case: str
    rows: tuple[Row, ...] = ()
    stories: tuple[Story, ...] = ()
    problem: str = ""
    seconds: float = 0.0


class Journal:
    """A file with one line for each case, added as soon as the case is measured."""

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Reads what is there.

        Raises:
            Refused: The file is of another evaluation.
        """
        self.path = path
        self.lines: dict[str, Line] = {}
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"fingerprint": fingerprint}) + "\n", encoding="utf-8")
            return
        text = path.read_text(encoding="utf-8")
        first, *rest = text.splitlines() or [""]
        if _parsed(first).get("fingerprint") != fingerprint:
            raise Refused(
                found=f"another evaluation in {path.parent}",
                needed="a folder of this protocol, these methods and this version, or a new one",
                do="choose another --out, or empty the folder",
            )
        if not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")
        for one in rest:
            # A line that was cut off when the run was killed is no line: its case is measured again.
            entry = _parsed(one)
            if entry and not entry["problem"]:
                self.lines[entry["case"]] = _line(entry)

    def add(self, line: Line) -> None:
        """Keep a case."""
        self.lines[line.case] = line
        entry: dict[str, Any] = {
            "case": line.case,
            "problem": line.problem,
            "seconds": round(line.seconds, 3),
            "rows": [row.to_json() for row in line.rows],
            "stories": [asdict(story) for story in line.stories],
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")

    def in_order(self, cases: Sequence[str]) -> list[Line]:
        """The lines of these cases, in their order, whatever the order in which they were measured."""
        return [self.lines[case] for case in cases if case in self.lines]


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _line(entry: dict[str, Any]) -> Line:
    stories = [_story(story) for story in entry["stories"]]
    rows = tuple(Row.from_json(row) for row in entry["rows"])
    return Line(entry["case"], rows, tuple(stories), "", float(entry["seconds"]))


def _story(entry: dict[str, Any]) -> Story:
    entry["said"], entry["true"] = _told(entry["said"]), _told(entry["true"])
    return Story(**entry)


def _told(pairs: list[Any]) -> list[Told]:
    return [((str(case), int(visit), str(lesion)), str(event)) for (case, visit, lesion), event in pairs]

"""What a report is made of, whether it ends as HTML or as PDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lesionlocator.report.drawing import Drawing

Tone = Literal["", "muted", "good", "bad", "warning", "strong"]


@dataclass(frozen=True)
class Heading:
    """Opens a section (level 2) or a part of one (level 3)."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Running text; a warning stands in a box."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Points:
    """A list of short texts."""

    items: tuple[str, ...]
    tone: Tone = ""


@dataclass(frozen=True)
class Facts:
    """Names and what they stand for, in two columns."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cell:
    """A cell of a table: text, a smaller note below it, and a coloured badge instead of the text if it has one."""

    text: str
    note: str = ""
    tone: Tone = ""
    badge: str = ""
    link: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under a head. `align` has a letter for each column: l, c or r. `widths` are shares of the page."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    align: str
    widths: tuple[float, ...] = ()


@dataclass(frozen=True)
class Step:
    """One visit in the strip on top: its name, its category as a badge, and a number."""

    name: str
    note: str
    badge: str
    colour: str
    number: str = ""


@dataclass(frozen=True)
class Strip:
    """Visits from left to right."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, eq=False)
class Figure:
    """A drawing as wide as the page, with a line below it."""

    drawing: Drawing
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Drawings side by side, as many in a row as fit."""

    drawings: tuple[Drawing, ...]


@dataclass(frozen=True, eq=False)
class Picture:
    """A small drawing with lines below it; without a drawing, an empty frame with words in it."""

    drawing: Drawing | None
    words: str = ""
    lines: tuple[str, ...] = ()
    strong: str = ""


@dataclass(frozen=True, eq=False)
class Series:
    """A row of pictures of one lesion, and who it is."""

    title: str
    note: str
    colour: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Rows of pictures under the names of their visits."""

    heads: tuple[str, ...]
    rows: tuple[Series, ...]


Block = Heading | Paragraph | Points | Facts | Table | Strip | Figure | Gallery | Pictures


@dataclass(frozen=True, eq=False)
class Page:
    """A whole report."""

    title: str
    lead: str
    facts: tuple[tuple[str, str], ...]
    blocks: Sequence[Block]
    foot: str
    sign: bool = False
    """Whether a reader signs it."""

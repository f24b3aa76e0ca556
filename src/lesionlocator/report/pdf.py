"""A report as PDF, A4: the same blocks as on the page of HTML, with their own page breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    CondPageBreak,
    Flowable,
    KeepTogether,
    SimpleDocTemplate,
    Spacer,
)
from reportlab.platypus import Paragraph as Text
from reportlab.platypus import Table as Grid

from lesionlocator.formats.disk import whole
from lesionlocator.report.drawing import BAD, FAINT, GOOD, HAIR, INK, MUTED, Drawing, Number, Stroke, Words
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
from lesionlocator.report.pdf_drawing import Drawn, font_for

WIDTH = 510.0
_SIDE_MARGIN = (A4[0] - WIDTH) / 2
_TONES = {"muted": MUTED, "good": GOOD, "bad": BAD, "warning": INK, "strong": INK, "": INK}
_ALIGN: dict[str, Any] = {"l": 0, "c": 1, "r": 2}
_STEPS_A_ROW, _DRAWINGS_A_ROW, _NAME_WIDTH = 5, 3, 84.0
_HEADING_ROOM, _ROW_ROOM = 40.0, 160.0


def write_pdf(page: Page, path: Path) -> None:
    """The page as a PDF file that is either whole or not there. Text stays text, in any script."""
    flow: list[Flowable] = [*_header(page), *_flow(page.blocks)]
    if page.sign:
        flow.append(KeepTogether([Spacer(1, 46), _sign()]))
    with whole(path) as beside:
        document = SimpleDocTemplate(
            str(beside),
            pagesize=A4,
            # Frames pad their contents by 6 points.
            leftMargin=_SIDE_MARGIN - 6,
            rightMargin=_SIDE_MARGIN - 6,
            topMargin=46,
            bottomMargin=50,
            title=page.title,
            author="lesionlocator",
            invariant=1,
        )
        document.build(flow, canvasmaker=_numbered(page))


def _header(page: Page) -> list[Flowable]:
    facts = [[_text(name, 7, MUTED), _text(value, 9.5, bold=True)] for name, value in page.facts]
    grid = Grid(
        [[fact[0] for fact in facts], [fact[1] for fact in facts]],
        colWidths=[WIDTH / max(len(facts), 1)] * len(facts),
        style=[
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 0),
            ("BOTTOMPADDING", (0, 0), (-1, 0), 1),
            ("LINEBELOW", (0, 1), (-1, 1), 1.4, HexColor(INK)),
            ("BOTTOMPADDING", (0, 1), (-1, 1), 9),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ],
    )
    return [
        _text(page.title, 18, bold=True),
        Spacer(1, 5),
        _text(page.lead, 9.5, MUTED),
        Spacer(1, 9),
        grid,
        Spacer(1, 6),
    ]


def _flow(blocks: Sequence[Block]) -> list[Flowable]:
    """All blocks; a heading goes to the next page where what follows it would."""
    flow: list[Flowable] = []
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if isinstance(block, Heading):
            flow.append(CondPageBreak(_HEADING_ROOM + _room(following)))
        flow += _WRITERS[type(block)](block)
    return flow


def _room(block: Block | None) -> float:
    """The height that a block needs at least to begin on a page."""
    if isinstance(block, Figure):
        return block.drawing.height * min(WIDTH / block.drawing.width, 1.0) + 30
    return _ROW_ROOM if isinstance(block, Pictures) else 60.0


def _heading(block: Heading) -> list[Flowable]:
    size, above = (12.5, 16) if block.level == 2 else (10, 8)
    text = _text(block.text, size, bold=True)
    if block.level > 2:
        return [Spacer(1, above), text, Spacer(1, 3)]
    line = Drawn(Drawing(WIDTH, 3, (Stroke(((0, 1), (WIDTH, 1)), HAIR, 0.8),)), WIDTH)
    return [Spacer(1, above), text, Spacer(1, 4), line, Spacer(1, 4)]


def _paragraph(block: Paragraph) -> list[Flowable]:
    size = 8.5 if block.tone == "muted" else 9.5
    text = _text(block.text, size, _TONES[block.tone], bold=block.tone == "strong")
    if block.tone != "warning":
        return [text, Spacer(1, 5)]
    style = [
        ("BACKGROUND", (0, 0), (-1, -1), HexColor("#fdf6ea")),
        ("LINEBEFORE", (0, 0), (0, -1), 2.2, HexColor("#c77700")),
    ]
    return [Grid([[text]], colWidths=[WIDTH], style=style), Spacer(1, 6)]


def _points(block: Points) -> list[Flowable]:
    rows = [[_text("\u2022", 9), _text(item, 9)] for item in block.items]
    if not rows:
        return []
    style = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("TOPPADDING", (0, 0), (-1, -1), 1),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
        ("LEFTPADDING", (0, 0), (0, -1), 2),
    ]
    return [Grid(rows, colWidths=[14, WIDTH - 14], style=style, hAlign="LEFT"), Spacer(1, 4)]


def _facts(block: Facts) -> list[Flowable]:
    rows = [[_text(name, 8, MUTED), _text(value, 8)] for name, value in block.rows]
    style = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("TOPPADDING", (0, 0), (-1, -1), 1.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5),
        ("LEFTPADDING", (0, 0), (0, -1), 0),
    ]
    return [Grid(rows, colWidths=[92, WIDTH - 92], style=style), Spacer(1, 4)] if rows else []


def _table(block: Table) -> list[Flowable]:
    count = len(block.head)
    widths = block.widths or (1 / count,) * count
    size = 8.3 if count <= 9 else 7.0
    head = [_text(text, 7.6, MUTED, align=letter) for text, letter in zip(block.head, block.align, strict=True)]
    rows = [[_cell(cell, letter, size) for cell, letter in zip(row, block.align, strict=True)] for row in block.rows]
    style = [
        ("LINEBELOW", (0, 0), (-1, 0), 0.8, HexColor(INK)),
        ("LINEBELOW", (0, 1), (-1, -1), 0.4, HexColor(HAIR)),
        ("VALIGN", (0, 0), (-1, 0), "BOTTOM"),
        ("VALIGN", (0, 1), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 3),
        ("LEFTPADDING", (0, 0), (0, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 3),
        ("TOPPADDING", (0, 0), (-1, -1), 3),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
    ]
    return [
        Grid([head, *rows], colWidths=[WIDTH * w / sum(widths) for w in widths], style=style, repeatRows=1),
        Spacer(1, 6),
    ]


def _cell(cell: Cell | str, align: str, size: Number) -> list[Flowable]:
    if isinstance(cell, str):
        return [_text(cell, size, align=align)]
    main: Flowable = (
        _badge(cell.text, cell.badge, size)
        if cell.badge
        else _text(cell.text, size, _TONES[cell.tone], bold=cell.tone == "strong", align=align)
    )
    return [main, *([_text(cell.note, 7, MUTED, align=align)] if cell.note else [])]


def _badge(text: str, colour: str, size: Number) -> Flowable:
    font = font_for(text, bold=True)
    width = pdfmetrics.stringWidth(text, font, size) + 9
    height = size + 4.6
    shape = _rounded(0, 0, width, height, colour)
    words = Words((width / 2, height - 4.0), text, size, "#ffffff", "middle", bold=True)
    return Drawn(Drawing(width, height, (shape, words), text), width)


def _rounded(x: Number, y: Number, width: Number, height: Number, fill: str) -> Stroke:
    r, turn = 2.0, np.linspace(0, np.pi / 2, 5)
    centres = (
        (x + width - r, y + r, -np.pi / 2),
        (x + width - r, y + height - r, 0.0),
        (x + r, y + height - r, np.pi / 2),
        (x + r, y + r, np.pi),
    )
    points = tuple(
        (float(cx + r * np.cos(start + a)), float(cy + r * np.sin(start + a)))
        for cx, cy, start in centres
        for a in turn
    )
    return Stroke(points, fill, 0.0, (), fill, closed=True)


def _strip(block: Strip) -> list[Flowable]:
    flow: list[Flowable] = []
    width = WIDTH / _STEPS_A_ROW
    for start in range(0, len(block.steps), _STEPS_A_ROW):
        steps = block.steps[start : start + _STEPS_A_ROW]
        style = [
            ("BACKGROUND", (0, 0), (-1, -1), HexColor(FAINT)),
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("TOPPADDING", (0, 0), (-1, -1), 6),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 7),
            ("INNERGRID", (0, 0), (-1, -1), 4, HexColor("#ffffff")),
        ]
        flow += [
            Grid([[_step(step) for step in steps]], colWidths=[width] * len(steps), style=style, hAlign="LEFT"),
            Spacer(1, 6),
        ]
    return flow


def _step(step: Step) -> list[Flowable]:
    note = [_text(step.note, 7.5, MUTED)] if step.note else []
    badge = _badge(step.badge, step.colour, 8.5)
    return [_text(step.name, 9, bold=True), *note, Spacer(1, 3), badge, Spacer(1, 3), _text(step.number, 8.5)]


def _figure(block: Figure) -> list[Flowable]:
    caption = [_text(block.caption, 8, MUTED)] if block.caption else []
    return [CondPageBreak(_room(block)), Drawn(block.drawing, WIDTH), Spacer(1, 3), *caption, Spacer(1, 6)]


def _gallery(block: Gallery) -> list[Flowable]:
    width = WIDTH / _DRAWINGS_A_ROW
    drawn = [Drawn(drawing, width - 8) for drawing in block.drawings]
    rows = [drawn[start : start + _DRAWINGS_A_ROW] for start in range(0, len(drawn), _DRAWINGS_A_ROW)]
    rows = [[*row, *[""] * (_DRAWINGS_A_ROW - len(row))] for row in rows]
    style = [
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 8),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
    ]
    return [Grid(rows, colWidths=[width] * _DRAWINGS_A_ROW, style=style), Spacer(1, 4)] if rows else []


def _pictures(block: Pictures) -> list[Flowable]:
    count = len(block.heads)
    width = min((WIDTH - _NAME_WIDTH) / max(count, 1), 112.0)
    head = ["", *(_text(name, 8, MUTED) for name in block.heads)]
    rows = [_series(series, width) for series in block.rows]
    style = [
        ("LINEBELOW", (0, 0), (-1, 0), 0.8, HexColor(INK)),
        ("LINEBELOW", (0, 1), (-1, -1), 0.4, HexColor(HAIR)),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 5),
        ("TOPPADDING", (0, 1), (-1, -1), 5),
        ("BOTTOMPADDING", (0, 1), (-1, -1), 5),
    ]
    widths = [_NAME_WIDTH, *[width] * count]
    return [Grid([head, *rows], colWidths=widths, style=style, repeatRows=1, hAlign="LEFT"), Spacer(1, 8)]


def _series(series: Series, width: Number) -> list[list[Flowable]]:
    mark = Drawn(
        Drawing(22, 5, (Stroke(((0, 0), (22, 0), (22, 3), (0, 3)), series.colour, 0, (), series.colour, closed=True),)),
        22,
    )
    name: list[Flowable] = [mark, _text(series.title, 9, bold=True), _text(series.note, 7.5, MUTED)]
    return [name, *(_picture(picture, width - 5) for picture in series.pictures)]


def _picture(picture: Picture, width: Number) -> list[Flowable]:
    if picture.drawing is None:
        frame = Stroke(((0, 0), (width, 0), (width, width), (0, width)), "#b4bec8", 0.7, (2, 2), closed=True)
        words = _lines(picture.words, width - 8, 7.5)
        top = width / 2 - 4.5 * (len(words) - 1) + 2.5
        said = tuple(Words((width / 2, top + 9 * i), line, 7.5, MUTED, "middle") for i, line in enumerate(words))
        shown: list[Flowable] = [Drawn(Drawing(width, width, (frame, *said), picture.words), width)]
    else:
        shown = [Drawn(picture.drawing, width)]
        shown += [_text(picture.words, 7.5, MUTED)] if picture.words else []
    strong = [_text(picture.strong, 8.5, bold=True)] if picture.strong else []
    return [*shown, Spacer(1, 1.5), *strong, *(_text(line, 7.5, MUTED) for line in picture.lines)]


def _lines(text: str, width: Number, size: Number) -> list[str]:
    from reportlab.lib.utils import simpleSplit

    return list(simpleSplit(text, font_for(text), size, width))


def _sign() -> Flowable:
    style = [
        ("LINEABOVE", (0, 0), (0, 0), 0.8, HexColor(INK)),
        ("LINEABOVE", (2, 0), (2, 0), 0.8, HexColor(INK)),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
    ]
    cells = [_text("Read and agreed by", 8, MUTED), "", _text("Date", 8, MUTED)]
    return Grid([cells], colWidths=[WIDTH * 0.55, WIDTH * 0.1, WIDTH * 0.35], style=style)


def _text(text: str, size: Number, colour: str = INK, *, bold: bool = False, align: str = "l") -> Any:
    """Text that wraps. Everything in it is escaped, and words too long for a line are broken."""
    style = ParagraphStyle(
        "text",
        fontName=font_for(text, bold=bold),
        fontSize=size,
        leading=size * 1.32,
        textColor=HexColor(colour),
        alignment=_ALIGN[align],
        splitLongWords=1,
    )
    return Text(escape(text), style)


_WRITERS: dict[type[Block], Callable[[Any], list[Flowable]]] = {
    Heading: _heading,
    Paragraph: _paragraph,
    Points: _points,
    Facts: _facts,
    Table: _table,
    Strip: _strip,
    Figure: _figure,
    Gallery: _gallery,
    Pictures: _pictures,
}


def _numbered(page: Page) -> type[Canvas]:
    """A canvas that writes the foot of every page when it knows how many there are."""

    class Numbered(Canvas):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._kept: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802, the name is reportlab's
            self._kept.append(dict(self.__dict__))
            self._startPage()  # pyright: ignore[reportAttributeAccessIssue]

        def save(self) -> None:
            for number, state in enumerate(self._kept, start=1):
                self.__dict__.update(state)
                _foot(self, page, number, len(self._kept))
                super().showPage()
            super().save()

    return Numbered


def _foot(canvas: Any, page: Page, number: int, count: int) -> None:
    canvas.setFillColor(HexColor(MUTED))
    canvas.setFont(font_for(page.foot), 7.5)
    canvas.drawString(_SIDE_MARGIN, 28, page.foot)
    title = page.title if len(page.title) < 60 else f"{page.title[:58]}..."
    words = f"{title}   {number} / {count}"
    canvas.setFont(font_for(words), 7.5)
    canvas.drawRightString(_SIDE_MARGIN + WIDTH, 18, words)

"""Drawings and fonts of a PDF: the marks of a drawing put on a page of reportlab."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from reportlab.lib.colors import HexColor
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.platypus import Flowable

from lesionlocator.report.drawing import Disc, Drawing, Grey, Mark, Number, Stroke, Words


class Drawn(Flowable):
    """A drawing on the page, made as wide as it may be, never wider than drawn."""

    def __init__(self, drawing: Drawing, width: Number) -> None:
        super().__init__()
        self.drawing = drawing
        self.scale = min(width / drawing.width, 1.0)
        self.width, self.height = drawing.width * self.scale, drawing.height * self.scale

    def wrap(self, aW: Number, aH: Number) -> tuple[Number, Number]:
        del aW, aH
        return self.width, self.height

    def draw(self) -> None:
        self.canv.saveState()
        self.canv.translate(0, self.height)
        self.canv.scale(self.scale, -self.scale)
        for mark in self.drawing.marks:
            _put(self.canv, mark)
        self.canv.restoreState()


def _put(canvas: Any, mark: Mark) -> None:
    canvas.saveState()
    if isinstance(mark, Stroke):
        _put_stroke(canvas, mark)
    elif isinstance(mark, Words):
        _put_words(canvas, mark)
    elif isinstance(mark, Disc):
        canvas.setFillColor(HexColor(mark.fill))
        canvas.setStrokeColor(HexColor(mark.colour or mark.fill))
        canvas.setLineWidth(mark.width)
        canvas.circle(*mark.at, mark.radius, stroke=int(bool(mark.colour)), fill=1)
    else:
        _put_image(canvas, mark)
    canvas.restoreState()


def _put_stroke(canvas: Any, mark: Stroke) -> None:
    path = canvas.beginPath()
    path.moveTo(*mark.points[0])
    for point in mark.points[1:]:
        path.lineTo(*point)
    if mark.closed:
        path.close()
    canvas.setStrokeColor(HexColor(mark.colour))
    canvas.setStrokeAlpha(mark.opacity)
    canvas.setLineWidth(mark.width)
    canvas.setLineJoin(1)
    if mark.dash:
        canvas.setDash(list(mark.dash))
    if mark.fill:
        canvas.setFillColor(HexColor(mark.fill))
        canvas.setFillAlpha(mark.opacity)
    canvas.drawPath(path, stroke=int(mark.width > 0), fill=int(bool(mark.fill)))


def _put_words(canvas: Any, mark: Words) -> None:
    font = font_for(mark.text, bold=mark.bold)
    width = pdfmetrics.stringWidth(mark.text, font, mark.size)
    shift = {"start": 0.0, "middle": width / 2, "end": width}[mark.anchor]
    canvas.translate(mark.at[0] - shift, mark.at[1])
    canvas.scale(1, -1)
    canvas.setFont(font, mark.size)
    canvas.setFillColor(HexColor(mark.colour))
    canvas.drawString(0, 0, mark.text)


def _put_image(canvas: Any, mark: Grey) -> None:
    from PIL import Image

    canvas.translate(mark.at[0], mark.at[1] + mark.size[1])
    canvas.scale(1, -1)
    canvas.drawImage(ImageReader(Image.fromarray(mark.array, "L")), 0, 0, *mark.size)


def font_for(text: str, *, bold: bool = False) -> str:
    """Helvetica for Western text, DejaVu (which matplotlib brings, embedded) for what it lacks."""
    try:
        text.encode("cp1252")
    except UnicodeEncodeError:
        return _wide_font(bold)
    return "Helvetica-Bold" if bold else "Helvetica"


@cache
def _wide_font(bold: bool) -> str:
    import matplotlib
    from reportlab.pdfbase.ttfonts import TTFont

    name = "DejaVuSans-Bold" if bold else "DejaVuSans"
    pdfmetrics.registerFont(TTFont(name, str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf")))
    return name

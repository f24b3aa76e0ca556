"""Drawings made of few marks, so that a page on screen and a page on paper show the same lines."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import UInt8

INK, MUTED, HAIR, FAINT, PAPER = "#17212b", "#5d6975", "#d5dce3", "#f1f4f7", "#ffffff"
ACCENT, GOOD, BAD = "#1f5fae", "#11734b", "#b3261e"
COLOURS = ("#c77700", "#1f6fc2", "#b8336a", "#2e8b57", "#7a4fb5", "#0f8b8d", "#8a6d1f", "#5b6b7a")
"""Colours of lesions, in order of appearance, and again from the start."""

Number = int | float
Point = tuple[Number, Number]


@dataclass(frozen=True)
class Stroke:
    """A line through points, or an area if it has a fill."""

    points: tuple[Point, ...]
    colour: str = INK
    width: Number = 1.0
    dash: tuple[Number, ...] = ()
    fill: str = ""
    opacity: Number = 1.0
    closed: bool = False


@dataclass(frozen=True)
class Words:
    """Text on one line; `at` is on its base line."""

    at: Point
    text: str
    size: Number = 9.0
    colour: str = INK
    anchor: str = "start"
    bold: bool = False


@dataclass(frozen=True)
class Disc:
    """A dot, or a ring if the fill is paper."""

    at: Point
    radius: Number
    fill: str
    colour: str = ""
    width: Number = 1.0


@dataclass(frozen=True, eq=False)
class Grey:
    """An image in shades of grey, its corner at `at`."""

    at: Point
    size: Point
    array: UInt8[np.ndarray, "h w"]


Mark = Stroke | Words | Disc | Grey


@dataclass(frozen=True, eq=False)
class Drawing:
    """Marks on a sheet of this size (points); y runs down. `says` is what it shows, for those who cannot see it."""

    width: Number
    height: Number
    marks: tuple[Mark, ...]
    says: str = ""


def bar(x: Number, y: Number, width: Number, height: Number, fill: str, opacity: Number = 1.0) -> Stroke:
    """A filled rectangle."""
    corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
    return Stroke(corners, fill, 0.0, (), fill, opacity, closed=True)


def to_svg(drawing: Drawing) -> str:
    """The drawing as SVG for a page of HTML; every text in it is escaped."""
    inside = "".join(_svg(mark) for mark in drawing.marks)
    size = f'viewBox="0 0 {drawing.width:g} {drawing.height:g}" width="{drawing.width:g}" height="{drawing.height:g}"'
    return f'<svg role="img" {size}><title>{escape(drawing.says)}</title>{inside}</svg>'


def to_png(array: UInt8[np.ndarray, "h w"]) -> bytes:
    """Shades of grey as PNG."""
    height, width = array.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), array], axis=1).tobytes()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines, 7)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _svg(mark: Mark) -> str:
    if isinstance(mark, Stroke):
        return _stroke(mark)
    if isinstance(mark, Words):
        bold = ' font-weight="650"' if mark.bold else ""
        style = f'font-size="{mark.size:g}" fill="{mark.colour}" text-anchor="{mark.anchor}"{bold}'
        return f'<text x="{mark.at[0]:.1f}" y="{mark.at[1]:.1f}" {style}>{escape(mark.text)}</text>'
    if isinstance(mark, Disc):
        ring = f' stroke="{mark.colour}" stroke-width="{mark.width:g}"' if mark.colour else ""
        return f'<circle cx="{mark.at[0]:.1f}" cy="{mark.at[1]:.1f}" r="{mark.radius:g}" fill="{mark.fill}"{ring}/>'
    data = base64.b64encode(to_png(mark.array)).decode("ascii")
    place = f'x="{mark.at[0]:g}" y="{mark.at[1]:g}" width="{mark.size[0]:g}" height="{mark.size[1]:g}"'
    return f'<image {place} preserveAspectRatio="none" href="data:image/png;base64,{data}"/>'


def _stroke(mark: Stroke) -> str:
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in mark.points) + ("Z" if mark.closed else "")
    paint = f'fill="{mark.fill or "none"}"'
    if mark.width:
        paint += f' stroke="{mark.colour}" stroke-width="{mark.width:g}" stroke-linejoin="round"'
    if mark.dash:
        paint += f' stroke-dasharray="{" ".join(f"{part:g}" for part in mark.dash)}"'
    if mark.opacity < 1:
        paint += f' opacity="{mark.opacity:g}"'
    return f'<path d="{path}" {paint}/>'


def ticks(low: Number, high: Number, most: int = 5) -> Sequence[float]:
    """Round numbers from low to high."""
    span = max(high - low, 1e-9)
    step = 10.0 ** np.floor(np.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
    # Adding nought makes -0 a 0.
    return [
        float(number) + 0.0
        for number in np.round(np.arange(np.ceil(low / step - 1e-9) * step, high + step * 1e-6, step), 9)
    ]


def number(value: Number) -> str:
    """A number with as many digits as one reads: 0.42, 3.1, 27, 1280."""
    size = abs(value)
    digits = 0 if size == 0 or size >= 10 else 2 if size < 1 else 1
    return f"{value:.{digits}f}".replace("-", "–")


def signed_percent(value: Number | None) -> str:
    """+12 % or –8 %; nothing for nothing."""
    if value is None:
        return ""
    return f"{value:+.0f} %".replace("-", "–").replace("+0 %", "0 %").replace("–0 %", "0 %")

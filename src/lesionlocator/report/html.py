"""A report as one page of HTML that holds everything, needs no network, runs no script and prints well."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from lesionlocator.report.drawing import to_svg
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
    Strip,
    Table,
)


def to_html(page: Page) -> str:
    """The page. Every text is escaped: names may hold anything."""
    body = "\n".join(_WRITERS[type(block)](block) for block in page.blocks)
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in page.facts)
    sign = _SIGN if page.sign else ""
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'unsafe-inline'\">\n"
        f"<title>{escape(page.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<header>\n"
        f"<h1>{escape(page.title)}</h1>\n<p class=lead>{escape(page.lead)}</p>\n<dl class=head>{facts}</dl>\n"
        f"</header>\n"
        f"<main>\n{body}\n{sign}</main>\n<footer>{escape(page.foot)}</footer>\n</body>\n</html>\n"
    )


def _heading(block: Heading) -> str:
    return f"<h{block.level}>{escape(block.text)}</h{block.level}>"


def _paragraph(block: Paragraph) -> str:
    return f'<p class="{block.tone or "plain"}">{escape(block.text)}</p>'


def _points(block: Points) -> str:
    items = "".join(f"<li>{escape(item)}</li>" for item in block.items)
    return f'<ul class="{block.tone or "plain"}">{items}</ul>'


def _facts(block: Facts) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in block.rows)
    return f"<dl class=facts>{rows}</dl>"


def _table(block: Table) -> str:
    aligned = list(block.align)
    head = "".join(f"<th class={name}>{escape(text)}</th>" for name, text in zip(aligned, block.head, strict=True))
    rows = "".join(
        "<tr>" + "".join(_cell(cell, name) for cell, name in zip(row, aligned, strict=True)) + "</tr>"
        for row in block.rows
    )
    whole = sum(block.widths) or 1.0
    columns = "".join(f'<col style="width:{100 * width / whole:.1f}%">' for width in block.widths)
    return f"<div class=wide><table>{columns}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _cell(cell: Cell | str, column: str) -> str:
    if isinstance(cell, str):
        return f"<td class={column}>{escape(cell)}</td>"
    text = escape(cell.text)
    if cell.link:
        text = f'<a href="{escape(cell.link, quote=True)}">{text}</a>'
    if cell.badge:
        text = f'<span class=badge style="background:{cell.badge}">{text}</span>'
    note = f"<small>{escape(cell.note)}</small>" if cell.note else ""
    tone = f" {cell.tone}" if cell.tone else ""
    return f'<td class="{column}{tone}">{text}{note}</td>'


def _strip(block: Strip) -> str:
    steps = "".join(
        f"<li><b>{escape(step.name)}</b><small>{escape(step.note)}</small>"
        f'<span class=badge style="background:{step.colour}">{escape(step.badge)}</span>'
        f"<i>{escape(step.number)}</i></li>"
        for step in block.steps
    )
    return f"<ol class=strip>{steps}</ol>"


def _figure(block: Figure) -> str:
    caption = f"<figcaption>{escape(block.caption)}</figcaption>" if block.caption else ""
    return f"<figure>{to_svg(block.drawing)}{caption}</figure>"


def _gallery(block: Gallery) -> str:
    return f"<div class=gallery>{''.join(to_svg(drawing) for drawing in block.drawings)}</div>"


def _pictures(block: Pictures) -> str:
    heads = "".join(f"<th>{escape(head)}</th>" for head in block.heads)
    rows = "".join(_series(series) for series in block.rows)
    head = f"<thead><tr><th></th>{heads}</tr></thead>"
    return f"<div class=wide><table class=pictures>{head}<tbody>{rows}</tbody></table></div>"


def _series(series: Series) -> str:
    cells = "".join(_picture(picture) for picture in series.pictures)
    mark = f'<span class=mark style="background:{series.colour}"></span>'
    return f"<tr><th>{mark}{escape(series.title)}<small>{escape(series.note)}</small></th>{cells}</tr>"


def _picture(picture: Picture) -> str:
    shown = to_svg(picture.drawing) if picture.drawing else f"<div class=empty>{escape(picture.words)}</div>"
    words = f"<em>{escape(picture.words)}</em>" if picture.drawing and picture.words else ""
    strong = f"<b>{escape(picture.strong)}</b>" if picture.strong else ""
    lines = "".join(f"<small>{escape(line)}</small>" for line in picture.lines)
    return f"<td>{shown}{words}{strong}{lines}</td>"


_WRITERS: dict[type[Block], Callable[[Any], str]] = {
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

_SIGN = "<div class=sign><span>Read and agreed by</span><span>Date</span></div>\n"

"""A case shown in a notebook: a picture of every lesion at every visit and its numbers, in one piece of HTML."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from io import BytesIO

from lesionlocator.case import Case, Event, Place, Status
from lesionlocator.measure import Row, measure_case, measure_changes
from lesionlocator.picture import draw_case

_HEADS = ("Scan", "Lesion", "Volume, ml", "Long axis, mm", "Short axis, mm", "Mean", "Change", "What happened")
_STATUSES = {
    Status.ASKED: "not outlined yet",
    Status.ABSENT: "vanished",
    Status.OUTSIDE: "outside the scan",
    Status.FAILED: "no outline found",
}


@dataclass(frozen=True, eq=False)
class Shown:
    """A case as a notebook shows it. `html` needs no server, no network and no script, and can be kept as a file."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def show(case: Case, *, title: str = "", most: int = 6) -> Shown:
    """The case for the last line of a notebook's cell: its picture, as `demo` draws it, and a table under it.

    Where there is no notebook, the same table is shown as text.

    Args:
        case: With or without outlines.
        title: Said on top.
        most: Lesions in the picture at most, the largest at baseline; the table has all.
    """
    drawn = BytesIO()
    draw_case(case, drawn, title=title, most=most)
    rows = list(_table(case))
    picture = b64encode(drawn.getvalue()).decode("ascii")
    said = escape(title or ", ".join(timepoint.name for timepoint in case.timepoints), quote=True)
    html = (
        f'<figure style="margin:0"><img alt="Each lesion at each visit: {said}" '
        f'style="max-width:100%" src="data:image/png;base64,{picture}">'
        f"<table><thead>{_line('th', _HEADS)}</thead><tbody>{''.join(_line('td', row) for row in rows)}</tbody></table>"
        "</figure>"
    )
    return Shown(html, "\n".join("\t".join(cells) for cells in (_HEADS, *rows)))


def _table(case: Case) -> Iterator[tuple[str, ...]]:
    rows = measure_case(case)
    happened = _happened(case)
    index = {timepoint.name: at for at, timepoint in enumerate(case.timepoints)}
    for row, change in zip(rows, measure_changes(rows, case.merged()), strict=True):
        percent = change.volume_from_baseline_percent
        yield (
            row.scan,
            row.lesion_id,
            *(_number(value) for value in (row.volume_ml, row.long_axis_mm, row.short_axis_mm)),
            _mean(row),
            "" if percent is None else f"{percent:+.0f} %".replace("-", "−"),
            happened.get((index[row.scan], row.lesion_id)) or _STATUSES.get(row.status, ""),
        )


def _happened(case: Case) -> dict[Place, str]:
    """What is to be said of each lesion of a scan, also of one that is a part of another one now."""
    words: dict[Place, str] = {}
    for one in case.events():
        place: Place = (one.to_scan, one.to_lesion_id or one.lesion_id)
        words.setdefault(place, one.event.value)
        if one.to_lesion_id in (None, one.lesion_id):
            continue
        if one.event is Event.MERGED:
            words[one.to_scan, one.lesion_id] = f"merged into {one.to_lesion_id}"
        elif one.event is Event.SPLIT:
            words[place] = f"part of {one.lesion_id}"
    return words


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _mean(row: Row) -> str:
    return "" if row.mean is None else f"{row.mean:.1f} {row.unit}".strip()


def _line(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

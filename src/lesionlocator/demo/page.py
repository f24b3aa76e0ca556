"""What the demo shows: a table for the terminal, and one page that holds everything and needs no network."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lesionlocator.measure import Row, measure_changes
from lesionlocator.run import Finished


@dataclass(frozen=True)
class Story:
    """What the demo says about the scans that it ran on."""

    title: str
    source: str


@dataclass(frozen=True)
class Checked:
    """One lesion of one scan against the truth."""

    scan: str
    lesion_id: str
    truth_ml: float
    dice: float


_COLUMNS = ("scan", "lesion", "status", "volume ml", "truth ml", "axes mm", "change", "true change", "Dice")


def format_table(rows: Sequence[Row], checked: Sequence[Checked]) -> str:
    """The lesions as lines of text, columns aligned."""
    lines = [_COLUMNS, *_cells(rows, checked)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    aligned = [
        "  ".join(_padded(cell, width, i) for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    return "\n".join([aligned[0], "-" * len(aligned[0]), *aligned[1:]])


def write_page(path: Path, story: Story, finished: Finished, checked: Sequence[Checked], picture: Path) -> Path:
    """The page, with the picture inside it."""
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>"
        for line in _cells(finished.rows, checked)
    )
    content = _PAGE.format(
        title=html.escape(story.title),
        source=html.escape(story.source),
        picture=base64.b64encode(picture.read_bytes()).decode("ascii"),
        columns="".join(f"<th>{html.escape(name)}</th>" for name in _COLUMNS),
        rows=rows,
        verdict=html.escape(_verdict(checked)),
        model=html.escape(str(finished.record.model.get("id", ""))),
        seconds=f"{sum(finished.record.timings_s.values()):.0f}",
    )
    path.write_text(content, encoding="utf-8")
    return path


def _cells(rows: Sequence[Row], checked: Sequence[Checked]) -> list[tuple[str, ...]]:
    truths = {(one.scan, one.lesion_id): one for one in checked}
    first: dict[str, float] = {}
    lines: list[tuple[str, ...]] = []
    for row, change in zip(rows, measure_changes(rows), strict=True):
        truth = truths.get((row.scan, row.lesion_id))
        before = first.setdefault(row.lesion_id, truth.truth_ml) if truth else None
        true_change = 100 * (truth.truth_ml / before - 1) if truth and before and truth.truth_ml != before else None
        axes = "" if row.long_axis_mm is None else f"{row.long_axis_mm:.0f} x {row.short_axis_mm:.0f}"
        lines.append(
            (
                row.scan,
                row.lesion_id,
                row.status.value,
                _number(row.volume_ml),
                _number(truth.truth_ml if truth else None),
                axes,
                _percent(change.volume_from_baseline_percent),
                _percent(true_change),
                f"{truth.dice:.3f}" if truth else "",
            )
        )
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:+.0f} %"


def _padded(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column < 3 else cell.rjust(width)


def _verdict(checked: Sequence[Checked]) -> str:
    worst = min((one.dice for one in checked), default=0.0)
    return (
        f"Against the truth, the lowest Dice is {worst:.2f} (1 is the same outline, 0 is no overlap). "
        "The later visits were made, so this shows that it works, not how well on patients."
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ color-scheme: dark; }}
  body {{ margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 62rem; background: #0e1117; color: #eef1f5;
         font: 16px/1.55 system-ui, sans-serif; }}
  h1 {{ font-size: 1.7rem; margin: 0 0 .3rem; }}  h2 {{ font-size: 1.1rem; margin: 2.2rem 0 .5rem; }}
  p {{ max-width: 46rem; }}  .muted {{ color: #a3acb9; }}
  img {{ display: block; width: 100%; max-width: 56rem; margin: 1.2rem 0; border: 1px solid #2b313c;
        border-radius: 6px; }}
  .wide {{ overflow-x: auto; }}
  table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
  th, td {{ padding: .35rem .9rem .35rem 0; text-align: right; border-bottom: 1px solid #2b313c; white-space: nowrap; }}
  th {{ color: #a3acb9; font-weight: 500; }}  th:nth-child(-n+3), td:nth-child(-n+3) {{ text-align: left; }}
  code, pre {{ font: .88em/1.5 ui-monospace, monospace; background: #171b23; border-radius: 4px; }}
  code {{ padding: .1em .35em; }}  pre {{ padding: .8rem 1rem; overflow-x: auto; }}
  a {{ color: #4cc9f0; }}
</style>
<h1>{title}</h1>
<p class="muted">{source}</p>
<img alt="Each lesion at both visits: axial slice with its outline, the truth dashed, volume and change"
     src="data:image/png;base64,{picture}">
<h2>What was found</h2>
<div class="wide"><table>
<tr>{columns}</tr>
{rows}
</table></div>
<p>{verdict}</p>
<p class="muted">Model {model}; {seconds} s for outlining, following and measuring. All that was given is a box
around each lesion in the baseline scan.</p>
<h2>The same from the command line</h2>
<pre>lesionlocator track scans/baseline.nii.gz scans/followup.nii.gz scans/followup_2.nii.gz \\
    --prompts scans/prompts.json --out result --modality CT</pre>
<h2>Look at it in a viewer</h2>
<p>Open a scan from <code>scans/</code> together with the mask of the same name from <code>result/</code>
(<code>followup.nii.gz</code> with <code>followup_lesion_1.nii.gz</code>). In 3D Slicer: drag both in and load the mask
as Segmentation. In ITK-SNAP: open the scan as main image and the mask as segmentation. The true masks are in
<code>truth/</code>, the tables in <a href="result/lesions.csv">result/lesions.csv</a> and
<a href="result/links.csv">result/links.csv</a>.</p>
<p class="muted">Research software. Not a medical device.</p>
</html>
"""

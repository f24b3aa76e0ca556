"""The report of an evaluation: one page that opens anywhere, with tables, curves and the worst cases."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lesionlocator.evaluate.figures import draw_confidence, draw_curves, draw_scores
from lesionlocator.evaluate.rows import SCORES, Row
from lesionlocator.evaluate.summary import stratum
from lesionlocator.report import write_text

Results = dict[str, Any]

READERS_FILE = Path(__file__).parent / "readers.json"
_FEW = 10
_MORE = {
    "volume error, ml": ("volume_error_ml",),
    "centre error in x, y, z, mm": ("centre_error_x_mm", "centre_error_y_mm", "centre_error_z_mm"),
    "CPM@10": ("cpm_10",),
    "CPM@25": ("cpm_25",),
    "false positive, ml": ("false_positive_ml",),
    "false negative, ml": ("false_negative_ml",),
}
_MAIN = ("dice", "nsd", "hd95_mm", "volume_error_percent", "diameter_error_mm", "centre_error_mm", "detected")


def write_page(path: Path, results: Results, rows: Sequence[Row], worst: Sequence[tuple[Row, Path]]) -> Path:
    """One HTML file with everything in it; gives its path back."""
    sections = [section for make in SECTIONS for section in make(results, rows)]
    sections += list(_worst(worst))
    sections += list(_how(results))
    title = escape(results["protocol"]["title"])
    lead = escape(" ".join(results["protocol"]["about"].split()))
    page = _PAGE.replace("{title}", title).replace("{lead}", lead).replace("{body}", "\n".join(sections))
    write_text(path, page.replace("{facts}", _facts(results)))
    return path


def _facts(results: Results) -> str:
    data = "; ".join(f"{one['name']}: {_patients(one)}" for one in results["data"])
    return escape(f"{data}. {len(results['rows'])} answers in {results['seconds']:.0f} s. {results['written'][:10]}.")


def _patients(one: Results) -> str:
    lesions, patients = int(one["lesions"]), int(one["patients"])
    outlines = "outline" if lesions == 1 else "outlines"
    return f"{lesions} true {outlines} of {patients} patient{'s' * (patients != 1)}"


def _left_out(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    listed = [(name, reason) for part in ("problems", "skipped") for name, reason in results[part].items()]
    if listed:
        cells = [[escape(name), escape(reason)] for name, reason in listed]
        yield f"<h2>Not measured</h2>{_table(['case or data', 'reason'], cells, numbers=False)}"


def _headline(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    """Dice by prompt and method, a column for each group of the data; kinds have a line each."""
    by, groups = _groups(rows)
    shown = [row for row in rows if row.family not in _swept(rows)]
    if not shown:
        return
    prompts = list(dict.fromkeys(row.prompt for row in shown))
    of_prompts = [(prompt, [row for row in shown if row.prompt == prompt]) for prompt in prompts]
    of_groups = [(name, _of(shown, by, name)) for name in groups]
    yield "<h2>Dice</h2>"
    yield draw_scores(*((of_prompts, "kind") if by == "kind" else (of_groups, "prompt")), _seed(results))
    yield (
        "<p class=note>Dot: mean over lesions; bar: 95 % interval, resampled by patient (too narrow with fewer than "
        "ten); faint: each lesion.</p>"
    )
    if by == "kind":
        for prompt in prompts:
            yield f"<h3>{escape(prompt)}</h3>" + _by_stratum(results, by, prompt)
        return
    found = {(e["prompt"], e["method"], e["stratum"]): e for e in results["summary"] if _is(e, by=by, score="dice")}
    pairs = sorted(dict.fromkeys((row.prompt, row.method) for row in shown), key=lambda pair: prompts.index(pair[0]))
    cells = [
        [escape(prompt), escape(method), *(_mean(found.get((prompt, method, name))) for name in groups)]
        for prompt, method in pairs
    ]
    yield _table(["prompt", "method", *groups], cells, labels=2)


def _by_stratum(results: Results, by: str, prompt: str) -> str:
    """A line for each stratum, a column for each method."""
    entries = [e for e in results["summary"] if _is(e, by=by, prompt=prompt, score="dice")]
    methods = list(dict.fromkeys(e["method"] for e in entries))
    found = {(e["stratum"], e["method"]): e for e in entries}
    cells = [
        [escape(name), _count(found[name, methods[0]]), *(_mean(found.get((name, m))) for m in methods)]
        for name in dict.fromkeys(e["stratum"] for e in entries)
        if (name, methods[0]) in found
    ]
    return _table(["volume" if by == "size" else by, "lesions (patients)", *methods], cells)


def _curves(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    by, groups = _groups(rows)
    for family in _swept(rows):
        own = [row for row in rows if row.family == family]
        yield f"<h2>{escape(_spoken(family))}</h2>"
        yield draw_curves(own, [(name, _of(own, by, name)) for name in groups], family, _seed(results))
        areas = [area for area in results["areas"] if area["prompt"] == family]
        cells = [[escape(area["method"]), _mean(area), _steps(own, area["method"])] for area in areas]
        yield _table(["method", "area under the curve", "mean Dice at each step"], cells)


def _all_scores(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    prompt = rows[0].prompt
    found = {(e["method"], e["score"]): e for e in results["summary"] if _is(e, by="all", prompt=prompt)}
    methods = dict.fromkeys(row.method for row in rows if row.prompt == prompt)
    cells = [[escape(method), *(_mean(found.get((method, score))) for score in _MAIN)] for method in methods]
    yield f"<h2>All scores, {escape(prompt)}</h2>" + _table(["method", *(SCORES[score] for score in _MAIN)], cells)
    cells = [
        [escape(method), _over_patients(found.get((method, "dice"))), _over_patients(found.get((method, "nsd")))]
        + [_plain(found, method, scores) for scores in _MORE.values()]
        for method in methods
    ]
    yield _table(["method", "Dice over patients", "NSD over patients", *_MORE], cells)
    tolerances = sorted({round(row.tolerance_mm, 1) for row in rows if row.tolerance_mm is not None})
    used = f"{tolerances[0]:g} to {tolerances[-1]:g} mm"
    yield (
        "<p class=note>Mean over lesions [95 % interval, resampled by patient], or mean of the patients' means. "
        f"NSD at a tolerance of 2 mm or the largest voxel spacing, here {used}. Errors are answer minus truth. CPM@10, "
        "CPM@25: share of lesions whose centre was met within min(radius, 10 mm) and within 25 mm. Detected: Dice "
        "above 0.3. No answer counts as an empty outline.</p>"
    )


def _against(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    swept = _swept(rows)
    paired = [e for e in results["paired"] if e["score"] == "dice" and e["prompt"].rsplit(":", 1)[0] not in swept]
    if paired:
        cells = [[escape(e["prompt"]), escape(e["method"]), _mean(e, signed=True)] for e in paired]
        yield f"<h2>Dice, gained over {escape(results['protocol']['reference'])}</h2>"
        yield _table(["prompt", "method", "paired difference"], cells, labels=2)


def _strata(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    prompt = rows[0].prompt
    for by, title in (("size", "volume"), ("kind", "kind"), ("modality", "modality"), ("organ", "organ")):
        if by != _groups(rows)[0] and any(_is(e, by=by, prompt=prompt, score="dice") for e in results["summary"]):
            yield f"<h2>Dice by {title}, {escape(prompt)}</h2>" + _by_stratum(results, by, prompt)


def _events(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    if not results["events"]:
        return
    cells = [
        [
            escape(one["method"]),
            escape(one["prompt"]),
            escape(name),
            *(_number(s[k]) for k in ("precision", "recall", "f1")),
        ]
        + [f"{s['right']} / {s['said']} / {s['true']}", f"{one['identity_switches']} of {one['steps']}"]
        for one in results["events"]
        for name, s in one["events"].items()
    ]
    columns = ["method", "prompt", "event", "precision", "recall", "F1", "right / said / true", "names changed"]
    yield "<h2>What was said to have happened</h2>" + _table(columns, cells, labels=3)


def _confidence(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    for one in results["confidence"]:
        own = [r for r in rows if (r.method, r.prompt) == (one["method"], one["prompt"]) and r.confidence is not None]
        yield f"<h2>How well {escape(one['method'])} knows it, {escape(one['prompt'])}</h2>"
        yield draw_confidence([row.confidence or 0.0 for row in own], [row.scores["dice"] or 0.0 for row in own])
        said, area = one["mean_absolute_difference"], one["area_under_risk"]
        yield (
            f"<p>{one['answers']} answers; said and true Dice differ by {said:.3f} on average. Mean of 1 - Dice when "
            f"the least sure are left out first, over all shares kept: {area:.3f}.</p>"
        )


def _people(results: Results, rows: Sequence[Row]) -> Iterator[str]:
    if not READERS_FILE.is_file():
        return
    readers = json.loads(READERS_FILE.read_text(encoding="utf-8"))
    everyone, ellipsoid = readers["agreement"]["all"], readers["ellipsoid"]["all"]
    mean = {name: entry["over_lesions"] for name, entry in everyone.items()}
    yield (
        "<h2>People</h2><p>Two radiologists who outlined the same lung nodule on CT agree with a mean Dice of "
        f"<b>{mean['dice']:.2f}</b> and a mean NSD of {mean['nsd']:.2f} at 2 mm or the slice thickness; their longest "
        f"diameters differ by {mean['diameter_mm']:.1f} mm and their centres by {mean['centre_mm']:.1f} mm on average "
        f"({everyone['dice']['lesions']} nodules that all four outlined, {everyone['dice']['patients']} patients). The "
        "ellipsoid in one reader's box agrees with another reader's outline with "
        f"{ellipsoid['dice']['over_lesions']:.2f}. By volume: {_bands(readers)}.</p>"
        f"<p class=note>{escape(readers['source'])} {escape(readers['licence'])}</p>"
    )


def _bands(readers: Results) -> str:
    bands = [(name, entry) for name, entry in readers["agreement"].items() if name != "all"]
    return "; ".join(
        f"{escape(name)}: {entry['dice']['over_lesions']:.2f} ({entry['dice']['lesions']})" for name, entry in bands
    )


def _worst(worst: Sequence[tuple[Row, Path]]) -> Iterator[str]:
    shown = [(row, path) for row, path in worst if path.is_file()]
    if not shown:
        return
    first = shown[0][0]
    yield f"<h2>The {len(shown)} worst, {escape(first.method)}, {escape(first.prompt)}</h2><div class=cases>"
    for row, path in shown:
        picture = base64.b64encode(path.read_bytes()).decode()
        about = f"Dice {row.scores['dice'] or 0:.2f}; {row.predicted_ml:.1f} ml, truth {row.true_ml:.1f} ml"
        name = f"{row.case}, lesion {row.lesion}"
        yield (
            f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{picture}"><figcaption><b>{escape(name)}</b>'
            f"<br>{escape(about)}<br>{escape(row.reason)}</figcaption></figure>"
        )
    yield "</div><p class=note>Orange: the answer; green, dashed: the truth; the slice with most of the lesion.</p>"


def _how(results: Results) -> Iterator[str]:
    sources = [_source(one) for one in results["data"]]
    yield f"<h2>Data</h2>{_table(['data', 'what', 'licence and source'], sources, numbers=False)}"
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    models = [[escape(one["id"]), escape(one["title"]), escape(one["licence"])] for one in results["models"]]
    yield f"<h2>Methods</h2>{_table(['name', 'what', 'licence'], models, numbers=False)}"
    yield (
        f"<h2>How to repeat it</h2><pre>{escape(results['command'])}</pre><p>Seed {results['protocol']['seed']}. "
        f"{escape(results['machine']['system'])}, {results['machine']['cores']} cores. {escape(versions)}. All rows "
        "and tables are in results.json, the rows in results.csv.</p>"
    )


def _source(one: Results) -> list[str]:
    few = " <b>Few: no more than an impression.</b>" if one["patients"] < _FEW else ""
    return [
        escape(one["name"]),
        f"{escape(one['about'])} Measured: {_patients(one)}.{few}",
        f"{escape(one['licence'])}. {escape(one['citation'])}",
    ]


def _groups(rows: Sequence[Row]) -> tuple[str, list[str]]:
    """By what the columns are split: kinds where there are several, else modalities, else not at all."""
    for by in ("kind", "modality"):
        names = list(dict.fromkeys(stratum(row, by) for row in rows))
        if len(names) > 1:
            return by, names
    return "all", ["all"]


def _swept(rows: Sequence[Row]) -> list[str]:
    """Prompts with three amounts or more: those are drawn as curves."""
    families = dict.fromkeys(row.family for row in rows if row.amount is not None)
    return [one for one in families if len({row.amount for row in rows if row.family == one}) >= 3]


def _of(rows: Sequence[Row], by: str, name: str) -> list[Row]:
    return [row for row in rows if stratum(row, by) == name]


def _steps(rows: Sequence[Row], method: str) -> str:
    own = [row for row in rows if row.method == method]
    amounts = sorted({row.amount for row in own if row.amount is not None})
    means: list[str] = []
    for amount in amounts:
        dice = [row.scores["dice"] or 0.0 for row in own if row.amount == amount]
        means.append(f"{amount:g}: {sum(dice) / len(dice):.3f}")
    return "&ensp;".join(means)


def _spoken(family: str) -> str:
    return {
        "shifted-box": "The box beside its place",
        "scaled-box": "The box too small or too large",
        "shifted-click": "The click beside its place",
    }.get(family, family)


def _seed(results: Results) -> int:
    return int(results["protocol"]["seed"])


def _is(entry: Results, **wanted: str) -> bool:
    return all(entry[name] == value for name, value in wanted.items())


def _count(entry: Results) -> str:
    return f"{entry['lesions']} ({entry['patients']})"


def _mean(entry: Results | None, *, signed: bool = False) -> str:
    if entry is None or entry["over_lesions"] is None:
        return ""
    value, *ends = (_number(number, entry["score"], signed) for number in (entry["over_lesions"], *_ends(entry)))
    if not ends:
        return value
    text = f"{value}<span class=interval> [{', '.join(ends)}]</span>"
    sure = signed and (entry["interval"][0] > 0 or entry["interval"][1] < 0)
    return f"<b>{text}</b>" if sure else text


def _over_patients(entry: Results | None) -> str:
    return "" if entry is None else _number(entry["over_patients"])


def _ends(entry: Results) -> Sequence[float]:
    return entry["interval"] or ()


def _plain(found: dict[tuple[str, str], Results], method: str, scores: Sequence[str]) -> str:
    known = [(score, found[method, score]["over_lesions"]) for score in scores if (method, score) in found]
    return ", ".join(_number(value, score) for score, value in known)


def _number(value: float | None, score: str = "dice", signed: bool = False) -> str:
    """Shares with three digits behind the point, lengths and volumes with one."""
    if value is None:
        return ""
    text = format(value, ("+" if signed else "") + (".1f" if score.endswith(("_mm", "_ml", "_percent")) else ".3f"))
    return text.replace("-", "\u2212")


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]], *, labels: int = 1, numbers: bool = True) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in cells)
    kind = f"numbers labels{labels}" if numbers else "words"
    return f'<div class=wide><table class="{kind}"><tr>{head}</tr>{lines}</table></div>'


SECTIONS: tuple[Callable[[Results, Sequence[Row]], Iterator[str]], ...] = (
    _left_out,
    _headline,
    _curves,
    _all_scores,
    _against,
    _strata,
    _events,
    _confidence,
    _people,
)
"""What is on the page, in this order: each gives its pieces of HTML, or none."""

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  body { margin: 0 auto; padding: 2.2rem 1.4rem 4rem; max-width: 74rem; background: #fbfcfd; color: #1c2733;
         font: 15px/1.5 system-ui, sans-serif; }
  h1 { font-size: 1.7rem; margin: 0 0 .3rem; }  h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem; }
  h3 { font-size: .95rem; margin: 1.2rem 0 .3rem; }
  p { max-width: 52rem; }  .lead { color: #43505e; margin: .2rem 0; }  .note { color: #66727f; font-size: .88em; }
  svg { display: block; max-width: 100%; height: auto; }
  .wide { overflow-x: auto; margin: .6rem 0; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92em; }
  th, td { padding: .28rem 1.1rem .28rem 0; border-bottom: 1px solid #e3e8ed; vertical-align: top; text-align: left; }
  th { color: #66727f; font-weight: 500; }
  table.numbers th, table.numbers td { text-align: right; white-space: nowrap; }
  table.labels1 tr > :first-child, table.labels2 tr > :nth-child(-n+2), table.labels3 tr > :nth-child(-n+3)
    { text-align: left; }
  .interval { color: #8a95a1; font-size: .86em; font-weight: 400; }
  .cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(12.5rem, 1fr)); gap: 1.1rem; }
  figure { margin: 0; }  figure img { width: 100%; display: block; border-radius: 5px; background: #000; }
  figcaption { font-size: .84em; color: #43505e; padding-top: .3rem; }
  pre { background: #eef2f5; border-radius: 4px; padding: .7rem 1rem; overflow-x: auto; }
</style>
<h1>{title}</h1>
<p class="lead">{lead}</p>
<p class="note">{facts}</p>
{body}
<p class="note">Research software. Not a medical device.</p>
</html>
"""

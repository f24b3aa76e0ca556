"""Drawings of an evaluation: scores with their intervals, curves, and single cases with both outlines."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from lesionlocator.evaluate.rows import Row
from lesionlocator.evaluate.summary import asked, mean_of
from lesionlocator.geometry import Geometry
from lesionlocator.measure import axial_axis
from lesionlocator.resample import resample
from lesionlocator.volume import Mask, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#9aa3ad", "#c98500", "#1f6feb", "#0f8a5f", "#a1409b", "#d1495b", "#4d5863", "#00838f")
_KNOWN = {"filled-box": _COLOURS[0], "ellipsoid": _COLOURS[1], "intensity": _COLOURS[2]}
_INK, _GRID = "#1c2733", "#dfe4ea"
_STYLE: Any = {
    "font.size": 9.0,
    "font.family": "sans-serif",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": "#b5bec8",
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lesionlocator",
}
_PIXELS = 260
_PANEL_INCH = 2.3


def colours(methods: Sequence[str]) -> dict[str, str]:
    """Each method's colour: the same in every drawing of a page, and of every page for the methods in most tables."""
    free = [colour for colour in _COLOURS if colour not in [_KNOWN.get(method) for method in methods]]
    others = [method for method in methods if method not in _KNOWN]
    return _KNOWN | {method: free[index % len(free)] for index, method in enumerate(others)}


def draw_scores(groups: Sequence[tuple[str, Sequence[Row]]], by: str, seed: int) -> str:
    """SVG: Dice of every method, a panel for each group: a dot a lesion, the mean and its interval.

    `by` says what the lines of a panel are: one for each `prompt`, or for each `kind`.
    """
    from matplotlib import rc_context

    rows = [row for _, inside in groups for row in inside]
    names = list(dict.fromkeys(str(getattr(row, by)) for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    paint = colours(methods)
    with rc_context(_STYLE):
        figure, axes = _panels(len(groups), 0.85 + len(names) * (0.16 * len(methods) + 0.14))
        for axis, (title, inside) in zip(axes, groups, strict=True):
            for name in names:
                for method, _, group in asked(row for row in inside if getattr(row, by) == name):
                    at = names.index(name) + 0.8 * ((methods.index(method) + 0.5) / len(methods) - 0.5)
                    _dot(axis, group, at, paint[method], seed)
            axis.set_title(title, loc="left", fontsize=9.5, fontweight="bold")
            axis.set_yticks(range(len(names)), names if axis is axes[0] else [""] * len(names))
            axis.set_ylim(len(names) - 0.45, -0.55)
            axis.set_xlim(-0.02, 1.02)
            axis.set_xlabel("Dice")
            axis.grid(axis="x", color=_GRID, linewidth=0.7)
            axis.set_axisbelow(True)
            axis.tick_params(axis="y", length=0)
        _legend(figure, [(method, paint[method]) for method in methods])
        return _svg(figure)


def draw_curves(rows: Sequence[Row], groups: Sequence[tuple[str, Sequence[Row]]], family: str, seed: int) -> str:
    """SVG: mean Dice against the amount of one kind of prompt, with its interval, one panel for each group."""
    from matplotlib import rc_context

    methods = list(dict.fromkeys(row.method for row in rows))
    paint = colours(methods)
    with rc_context(_STYLE):
        figure, axes = _panels(len(groups), 2.7)
        for axis, (title, inside) in zip(axes, groups, strict=True):
            for method in methods:
                own = [row for row in inside if row.method == method and row.family == family]
                _curve(axis, own, paint[method], seed)
            axis.set_title(title, loc="left", fontsize=9.5, fontweight="bold")
            axis.set_ylim(0, 1.0)
            axis.set_xlabel(_axis_of(family))
            axis.set_ylabel("Dice" if axis is axes[0] else "")
            axis.grid(color=_GRID, linewidth=0.7)
            axis.set_axisbelow(True)
        _legend(figure, [(method, paint[method]) for method in methods])
        return _svg(figure)


def draw_confidence(said: Sequence[float], dice: Sequence[float]) -> str:
    """SVG: what was said to be the Dice, and what it was."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        figure, (axis,) = _panels(1, 3.0)
        axis.plot([0, 1], [0, 1], color=_GRID, linewidth=1)
        axis.scatter(said, dice, s=12, color=_COLOURS[2], alpha=0.6, linewidths=0)
        axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="said", ylabel="Dice")
        return _svg(figure)


def draw_case(scan: Volume, truth: Mask, outline: Mask | None) -> bytes:
    """PNG: the slice in which most of the lesion lies, the true outline dashed and the answer solid."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    plane = _plane(truth if not truth.is_empty else outline or truth)
    image = resample(scan, plane, outside=float(np.nanmin(scan.array)))[0]
    low, high = _shown(scan, image)
    with rc_context(_STYLE):
        figure = Figure((_PANEL_INCH, _PANEL_INCH), dpi=130)
        axis = figure.add_axes((0, 0, 1, 1))
        axis.imshow(image, cmap="gray_r" if scan.modality == "PT" else "gray", vmin=low, vmax=high, aspect="auto")
        for mask, colour, dashes in ((outline, "#ff9d00", "solid"), (truth, "#2fd66f", (0, (3, 2)))):
            if mask is not None and not mask.is_empty:
                soft = _on_plane(mask, plane)
                if soft.max() > 0.5:
                    axis.contour(soft, levels=[0.5], colors=[colour], linewidths=1.6, linestyles=[dashes])
        axis.set_axis_off()
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _panels(number: int, height: float) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure((3.4 if number > 1 else 6.4, height), layout="constrained")
    figure.set_size_inches(min(11.5, max(6.4, 0.9 + 3.2 * number)), height)
    return figure, list(np.atleast_1d(figure.subplots(1, number)))


def _dot(axis: Axes, rows: Sequence[Row], at: float, colour: str, seed: int) -> None:
    dice = [row.scores["dice"] or 0.0 for row in rows]
    axis.scatter(dice, [at] * len(dice), s=5, color=colour, alpha=0.28, linewidths=0)
    mean = mean_of(rows, "dice", seed)
    if mean.over_lesions is None:
        return
    if mean.interval is not None:
        axis.plot(mean.interval, [at, at], color=colour, linewidth=1.8, solid_capstyle="butt")
    axis.plot([mean.over_lesions], [at], marker="o", markersize=4.6, color=colour, markeredgecolor="white")


def _curve(axis: Axes, rows: Sequence[Row], colour: str, seed: int) -> None:
    amounts = sorted({row.amount for row in rows if row.amount is not None})
    means = [mean_of([row for row in rows if row.amount == amount], "dice", seed) for amount in amounts]
    values = [mean.over_lesions or 0.0 for mean in means]
    low, high = (
        [mean.interval[end] if mean.interval else value for mean, value in zip(means, values, strict=True)]
        for end in (0, 1)
    )
    axis.fill_between(amounts, low, high, color=colour, alpha=0.14, linewidth=0)
    axis.plot(amounts, values, color=colour, linewidth=1.6, marker="o", markersize=3.2)


def _axis_of(family: str) -> str:
    if family.endswith("corrected"):
        return "corrections"
    if family.startswith("shifted"):
        return "moved by, mm"
    return "edges times" if family.startswith("scaled") else "amount"


def _legend(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, marker="o", linewidth=1.8, markersize=4) for _, colour in entries]
    figure.legend(
        handles, [name for name, _ in entries], loc="outside upper left", ncols=4, frameon=False, borderaxespad=0.0
    )


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _plane(mask: Mask) -> Geometry:
    """An axial square round the lesion, in the slice with most of it; the patient's right on the left."""
    points = mask.points_mm if not mask.is_empty else mask.geometry.centre_mm[None]
    at_mm = (points.min(axis=0) + points.max(axis=0)) / 2
    if not mask.is_empty:
        axis = axial_axis(mask.geometry)
        fullest = int(np.argmax(mask.array.sum(axis=tuple(a for a in range(3) if a != axis))))
        where = np.argwhere(mask.array)
        at_mm[2] = mask.geometry.index_to_world(where[where[:, axis] == fullest].astype(float))[:, 2].mean()
    field_mm = float(np.clip(1.7 * np.ptp(points[:, :2], axis=0).max() + 10, 40, 300))
    step = field_mm / _PIXELS
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = 0.5, step, step
    affine[3, 3] = 1.0
    affine[:3, 3] = at_mm - np.array([1.0, 1.0, 0.0]) * step * (_PIXELS - 1) / 2
    return Geometry((1, _PIXELS, _PIXELS), affine)


def _on_plane(mask: Mask, plane: Geometry) -> Float[np.ndarray, "h w"]:
    d, h, w = mask.geometry.shape
    padded = mask.geometry.crop((-1, -1, -1), (d + 1, h + 1, w + 1))
    return resample(Volume(np.pad(mask.array, 1).astype(np.float32), padded, "CT"), plane, outside=0.0)[0]


def _shown(scan: Volume, image: Float[np.ndarray, "h w"]) -> tuple[float, float]:
    if scan.modality == "CT":
        aerated = float(np.mean((image > -980) & (image < -500)))
        return (-1350.0, 250.0) if aerated > 0.25 else (-160.0, 240.0)
    if scan.modality == "PT":
        return 0.0, float(np.clip(np.nanmax(image), 4.0, 15.0))
    low, high = np.nanquantile(image, (0.01, 0.995))
    return float(low), float(max(high, low + 1e-6))

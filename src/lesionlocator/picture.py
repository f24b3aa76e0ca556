"""A picture of a case: each lesion at each visit, at one zoom, with its outline, its size and how it changed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from lesionlocator.case import Case, Lesion, Place, Status, Timepoint
from lesionlocator.geometry import Geometry
from lesionlocator.measure import measure_diameters
from lesionlocator.resample import resample
from lesionlocator.volume import Mask, Volume

Image = Float[np.ndarray, "_ _"]

_BACKGROUND, _PANEL, _TEXT, _MUTED, _LINE = "#0e1117", "#171b23", "#eef1f5", "#8d97a5", "#2b313c"
_GROWN, _SHRUNK = "#ff8a75", "#7ddc9c"
_COLOURS = ("#ffb52e", "#4cc9f0", "#ff6fa3", "#9be564", "#c79bff", "#f6e27f")
_PIXELS = 420
_NEAREST_FIELD_MM, _WIDEST_FIELD_MM = 50.0, 220.0
_PANEL_INCH, _GAP_INCH, _LEFT_INCH, _RIGHT_INCH = 2.8, 0.14, 0.62, 0.2
_TITLE_INCH, _OVERVIEW_INCH, _CAPTION_INCH, _FOOT_INCH, _VISIT_INCH = 0.62, 2.0, 0.56, 0.36, 0.34
_OVERVIEW_STEP_MM = 2.0


@dataclass(frozen=True, eq=False)
class _Panel:
    """What one lesion looks like at one visit. Coordinates are mm from the middle: x to the left, y to the back."""

    size: str
    detail: str = ""
    note: str = ""
    volume_ml: float | None = None
    image: Image | None = None
    window: tuple[float, float] = (0.0, 1.0)
    outlines: tuple[Image, ...] = ()
    truth: tuple[Image, ...] = ()
    long_axis: Float[np.ndarray, "2 2"] | None = None


@dataclass(frozen=True, eq=False)
class _Overview:
    """The whole scan from the front, and where its lesions are: (row, x and z in mm of their voxels)."""

    image: Image
    extent_mm: tuple[float, float, float, float]
    lesions: tuple[tuple[int, Float[np.ndarray, "_ 2"]], ...]


@dataclass(frozen=True, eq=False)
class _Visit:
    name: str
    overview: _Overview
    panels: tuple[_Panel, ...]


Target = TypeVar("Target", Path, BytesIO)
Truth = Mapping[Place, Mask]
"""What is known to be right: (index of the timepoint, lesion id) -> mask."""


def draw_case(case: Case, path: Target, *, title: str = "", truth: Truth | None = None, most: int = 6) -> Target:
    """A PNG with one column for each visit and one row for each lesion; the file that was written.

    Axial slices are those of the longest diameter, as a radiologist looks at them: the patient's right is on the left.
    Lesions that merged or split share a row. Of more than `most` rows the largest at baseline are shown.

    Args:
        case: With outlines.
        path: Where to write the picture: a path, or a file in memory.
        title: Said on top.
        truth: Outlines to compare with, drawn dashed.
        most: Rows at most.
    """
    shown = [track for track in case.tracks() if track[0][0] == 0 or _volume_ml(case, track) > 0]
    tracks = sorted(shown, key=lambda track: -_volume_ml(case, track))[:most]
    tracks.sort(key=lambda track: _first_position(case, track))
    left_out = len(shown) - len(tracks)
    fields_mm = [_field_mm(case, track) for track in tracks]
    visits: list[_Visit] = []
    for index, timepoint in enumerate(case.timepoints):
        volume = timepoint.load()
        panels = tuple(
            _panel(_Scene(case, track, index, volume, field_mm, truth or {}))
            for track, field_mm in zip(tracks, fields_mm, strict=True)
        )
        visits.append(_Visit(_visit_name(timepoint), _overview(volume, _marks(case, tracks, index)), panels))
    names = [" + ".join(name for index, name in track if index == track[0][0]) for track in tracks]
    notes = [f"and {left_out} smaller lesions" * (left_out > 0), "dashed: truth" * bool(truth)]
    _draw(visits, names, fields_mm, path, title, [note for note in notes if note])
    return path


# ------------------------------------------------------------------------------------------------ what there is to show


@dataclass(frozen=True, eq=False)
class _Scene:
    """One lesion (its track) at one visit."""

    case: Case
    track: Sequence[Place]
    index: int
    volume: Volume
    field_mm: float
    truth: Truth

    @property
    def lesions(self) -> list[Lesion]:
        found = [self.case.at(place) for place in self.track if place[0] == self.index]
        return [lesion for lesion in found if lesion is not None]

    @property
    def masks(self) -> list[Mask]:
        found = [lesion.mask for lesion in self.lesions if lesion.mask is not None and not lesion.mask.is_empty]
        return sorted(found, key=lambda mask: -mask.voxels)


def _volume_ml(case: Case, track: Sequence[Place]) -> float:
    first = [case.at(place) for place in track if place[0] == track[0][0]]
    return float(sum(lesion.mask.volume_ml for lesion in first if lesion is not None and lesion.mask is not None))


def _first_position(case: Case, track: Sequence[Place]) -> tuple[int, int]:
    index, lesion_id = track[0]
    return index, [lesion.id for lesion in case.timepoints[index].lesions].index(lesion_id)


def _field_mm(case: Case, track: Sequence[Place]) -> float:
    """Side of the panels of a lesion: two and a half times its largest extent, in steps of 10 mm."""
    extents = [0.0]
    for index in range(len(case.timepoints)):
        found = [case.at(place) for place in track if place[0] == index]
        points = [lesion.mask.points_mm for lesion in found if lesion is not None and lesion.mask is not None]
        if sum(map(len, points)):
            extents.append(float(np.ptp(np.concatenate(points), axis=0)[:2].max()))
    extent = max(extents)
    return float(np.clip(np.ceil(2.1 * extent / 10) * 10 + 10, _NEAREST_FIELD_MM, _WIDEST_FIELD_MM))


def _visit_name(timepoint: Timepoint) -> str:
    return f"{timepoint.name}   {timepoint.date}" if timepoint.date else timepoint.name


def _panel(scene: _Scene) -> _Panel:
    masks = scene.masks
    if not masks:
        return _panel_without(scene)
    diameters = measure_diameters(masks[0])
    points = np.concatenate([mask.points_mm for mask in masks])
    at_mm = masks[0].centroid_mm.copy() if len(masks) == 1 else (points.min(axis=0) + points.max(axis=0)) / 2
    at_mm[2] = diameters.long_ends[:, 2].mean()
    plane = axial_plane(at_mm, scene.field_mm)
    image, window = _shown(scene.volume, plane, masks[0])
    known = [
        mask for (index, name), mask in scene.truth.items() if (index, name) in scene.track and index == scene.index
    ]
    volume_ml = sum(mask.volume_ml for mask in masks)
    return _Panel(
        size=_millilitres(volume_ml),
        detail=f"{diameters.long_mm:.0f} × {diameters.short_mm:.0f} mm",
        note=f"{len(masks)} parts" if len(masks) > 1 else "",
        volume_ml=volume_ml,
        image=image,
        window=window,
        outlines=tuple(on_plane(mask, plane) for mask in masks),
        truth=tuple(on_plane(mask, plane) for mask in known),
        long_axis=(diameters.long_ends - at_mm)[:, :2],
    )


def _panel_without(scene: _Scene) -> _Panel:
    """A visit at which the lesion has no outline: its place, if that is known, and what became of it."""
    if scene.index < scene.track[0][0]:
        return _Panel("not there yet")
    ended = scene.lesions[0] if scene.lesions else _ended(scene)
    if ended is None:
        return _Panel("not read yet")
    word = {Status.ABSENT: "vanished", Status.OUTSIDE: "outside the scan", Status.FAILED: "not outlined"}
    size = word.get(ended.status, "not read yet")
    gone_ml = 0.0 if ended.status is Status.ABSENT else None
    at_mm = _likely_place(scene, ended)
    if ended.status is Status.OUTSIDE or at_mm is None or not scene.volume.geometry.contains(at_mm[None])[0]:
        return _Panel(size, ended.reason, volume_ml=gone_ml)
    image, window = _shown(scene.volume, axial_plane(at_mm, scene.field_mm), None)
    return _Panel(size, volume_ml=gone_ml, image=image, window=window)


def _ended(scene: _Scene) -> Lesion | None:
    """The entry that an ending leaves in the later scan: it has the lesion's id, and no link leads to it."""
    ids = {name for _, name in scene.track}
    return next((lesion for lesion in scene.case.timepoints[scene.index].lesions if lesion.id in ids), None)


def _last_mask(scene: _Scene) -> tuple[int, Mask] | None:
    for index, name in sorted(scene.track, reverse=True):
        lesion = scene.case.at((index, name))
        if index < scene.index and lesion is not None and lesion.mask is not None:
            return index, lesion.mask
    return None


def _likely_place(scene: _Scene, ended: Lesion) -> Float[np.ndarray, "3"] | None:
    """Where it was looked for: the prompts carried there, else where lesions that are still there have moved from."""
    if ended.prompts:
        return np.concatenate([prompt.points_mm for prompt in ended.prompts]).mean(axis=0)
    last = _last_mask(scene)
    if last is None:
        return None
    index, mask = last
    shifts: list[Float[np.ndarray, "3"]] = []
    for lesion in scene.case.timepoints[index].lesions:
        now = scene.case.at((scene.index, lesion.id))
        if lesion.mask is not None and now is not None and now.mask is not None:
            shifts.append(now.mask.centroid_mm - lesion.mask.centroid_mm)
    return mask.centroid_mm + np.mean(shifts, axis=0) if shifts else None


def _marks(case: Case, tracks: Sequence[Sequence[Place]], index: int) -> Iterator[tuple[int, Mask]]:
    for row, track in enumerate(tracks):
        for place in track:
            lesion = case.at(place) if place[0] == index else None
            if lesion is not None and lesion.mask is not None and not lesion.mask.is_empty:
                yield row, lesion.mask


def axial_plane(at_mm: Float[np.ndarray, "3"], field_mm: float, pixels: int = _PIXELS) -> Geometry:
    """An axial square, its rows from front to back and its columns from the patient's right to the left."""
    step = field_mm / pixels
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = 0.5, step, step
    affine[3, 3] = 1.0
    affine[:3, 3] = at_mm - np.array([1.0, 1.0, 0.0]) * step * (pixels - 1) / 2
    return Geometry((1, pixels, pixels), affine)


def on_plane(mask: Mask, plane: Geometry) -> Image:
    """How much of each point of the plane is in the mask; its half is the outline, rounded by a third of a voxel."""
    d, h, w = mask.geometry.shape
    padded = mask.geometry.crop((-1, -1, -1), (d + 1, h + 1, w + 1))
    soft = resample(Volume(np.pad(mask.array, 1).astype(np.float32), padded, "CT"), plane, outside=0.0)[0]
    finest = float(np.sort(mask.geometry.spacing_mm)[1])
    return ndimage.gaussian_filter(soft, 0.4 * finest / plane.spacing_mm[1])


def _shown(volume: Volume, plane: Geometry, mask: Mask | None) -> tuple[Image, tuple[float, float]]:
    """The scan on a plane, black beyond its border, and what to show as black and as white."""
    image = resample(volume, plane, outside=-1024.0 if volume.modality == "CT" else 0.0)[0]
    low, high = window_of(volume.modality, image, image) if mask is None else _window(volume, mask)
    # PET is read dark on white.
    return (-image, (-high, -low)) if volume.modality == "PT" else (image, (low, high))


def _window(volume: Volume, mask: Mask) -> tuple[float, float]:
    """Darkest and brightest value shown: by what surrounds the lesion in CT, by the values themselves in MR and PET."""
    covered = volume.geometry.clip(*volume.geometry.around(mask.geometry.corners_mm, 15.0))
    around = volume.crop(*covered).array if covered else volume.array
    return window_of(volume.modality, around, around)


def window_of(modality: str, shown: Any, around: Any) -> tuple[float, float]:
    """Darkest and brightest value: lung or soft tissue in CT, from nought in PET, most of the values in MR."""
    if modality == "CT":
        aerated = float(np.mean((around > -980) & (around < -500)))
        return (-1350.0, 250.0) if aerated > 0.2 else (-160.0, 240.0)
    if modality == "PT":
        return 0.0, float(np.clip(np.nanmax(shown), 4.0, 12.0))
    low, high = np.nanquantile(shown, (0.01, 0.995))
    return float(low), float(max(high, low + 1e-6))


def _overview(volume: Volume, marks: Iterator[tuple[int, Mask]]) -> _Overview:
    """From the front: the mean through the body in CT (as an X-ray), the brightest in PET, a slice in MR."""
    marked = list(marks)
    thin = _thinned(volume)
    low, high = thin.geometry.corners_mm.min(axis=0), thin.geometry.corners_mm.max(axis=0)
    step = _OVERVIEW_STEP_MM * max(1.0, float(high[2] - low[2]) / 700)
    shape = np.maximum(1, np.round((high - low) / step)).astype(int)[::-1]
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = -step, step, step
    affine[3, 3] = 1.0
    affine[:3, 3] = low[0] + step / 2, low[1] + step / 2, high[2] - step / 2
    if volume.modality == "MR":
        shape[1] = 1
        affine[1, 3] = marked[0][1].centroid_mm[1] if marked else (low[1] + high[1]) / 2
    grid = Geometry((int(shape[0]), int(shape[1]), int(shape[2])), affine)
    image = _projected(np.nan_to_num(resample(thin, grid)), volume.modality)
    lesions = tuple((row, mask.points_mm[:, [0, 2]]) for row, mask in marked)
    return _Overview(image, (float(low[0]), float(high[0]), float(low[2]), float(high[2])), lesions)


def _thinned(volume: Volume) -> Volume:
    """Every second or third voxel where that is enough for an overview, so that long scans stay cheap."""
    every = np.maximum(1, np.floor(_OVERVIEW_STEP_MM / volume.geometry.spacing_mm)).astype(int)
    array = volume.array[:: every[0], :: every[1], :: every[2]]
    affine = volume.geometry.affine.copy()
    affine[:3, :3] *= every
    return replace(volume, array=array, geometry=Geometry(array.shape, affine))


def _projected(array: Float[np.ndarray, "d h w"], modality: str) -> Image:
    """Brightness from 0 to 1."""
    if modality == "PT":
        return 1 - np.clip(array.max(axis=1) / 8.0, 0, 1)
    image = np.clip(array + 1000, 0, 1700).mean(axis=1) if modality == "CT" else array.mean(axis=1)
    low, high = np.quantile(image, (0.03, 0.995))
    image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return image ** (1.25 if modality == "CT" else 1.0)


def _millilitres(volume_ml: float) -> str:
    return (
        f"{volume_ml:.2f} ml" if volume_ml < 1 else f"{volume_ml:.1f} ml" if volume_ml < 100 else f"{volume_ml:.0f} ml"
    )


def _change(panels: Sequence[_Panel], index: int) -> str:
    """Volume against the first visit with an outline; nothing at that visit itself."""
    measured = [i for i, panel in enumerate(panels) if panel.volume_ml]
    volume_ml = panels[index].volume_ml
    if not measured or index <= measured[0] or volume_ml is None:
        return ""
    percent = 100 * (volume_ml / (panels[measured[0]].volume_ml or 1.0) - 1)
    return f"{percent:+.0f} %".replace("-", "−")


# ----------------------------------------------------------------------------------------------------- how it is drawn


def _draw(
    visits: Sequence[_Visit],
    names: Sequence[str],
    fields_mm: Sequence[float],
    path: Path | BytesIO,
    title: str,
    notes: list[str],
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = _LEFT_INCH + len(visits) * (_PANEL_INCH + _GAP_INCH) - _GAP_INCH + _RIGHT_INCH
    above = _TITLE_INCH * bool(title) + _VISIT_INCH + _OVERVIEW_INCH + _GAP_INCH
    height = above + len(names) * (_PANEL_INCH + _CAPTION_INCH) + _FOOT_INCH
    figure = Figure((width, height), dpi=150, facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    sheet = _Sheet(figure, width, height)
    if title:
        sheet.say(_LEFT_INCH, 0.36, title, size=15, weight="bold")
    for column, visit in enumerate(visits):
        left = _LEFT_INCH + column * (_PANEL_INCH + _GAP_INCH)
        top = above - _OVERVIEW_INCH - _GAP_INCH
        sheet.say(left, top - 0.13, visit.name, size=11.5, weight="bold")
        _draw_overview(sheet.axes(left, top, _PANEL_INCH, _OVERVIEW_INCH), visit.overview, _widest(visits))
        for row, panel in enumerate(visit.panels):
            top = above + row * (_PANEL_INCH + _CAPTION_INCH)
            axes = sheet.axes(left, top, _PANEL_INCH, _PANEL_INCH)
            _draw_panel(axes, panel, fields_mm[row], _COLOURS[row % len(_COLOURS)])
            change = _change([other.panels[row] for other in visits], column)
            _caption(sheet, left, top + _PANEL_INCH + 0.22, panel, change)
    for row, name in enumerate(names):
        middle = above + row * (_PANEL_INCH + _CAPTION_INCH) + _PANEL_INCH / 2
        colour = _COLOURS[row % len(_COLOURS)]
        sheet.say(_LEFT_INCH - 0.22, middle, f"lesion {name}", size=11.5, weight="bold", color=colour, turned=True)
    notes = [
        "volume, long × short axis, change in volume since the first visit; patient's right is on the left",
        *notes,
    ]
    sheet.say(_LEFT_INCH, height - 0.16, "   ·   ".join(notes), size=7.5, color=_MUTED)
    figure.savefig(path, facecolor=_BACKGROUND)


class _Sheet:
    """A figure measured in inches from its upper left corner."""

    def __init__(self, figure: Any, width: float, height: float) -> None:
        self.figure, self.width, self.height = figure, width, height

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        bottom = self.height - top - height
        axes = self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height), facecolor=_PANEL
        )
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color(_LINE)
            spine.set_linewidth(0.8)
        return axes

    def say(
        self, left: float, top: float, text: str, *, turned: bool = False, color: str = _TEXT, **style: Any
    ) -> None:
        placing = {"rotation": 90, "ha": "center", "va": "center"} if turned else {"va": "baseline"}
        style = {"fontsize": style.pop("size"), **placing, **style}
        self.figure.text(left / self.width, 1 - top / self.height, text, color=color, **style)


def _widest(visits: Sequence[_Visit]) -> float:
    """Millimetres that an inch of every overview stands for, so that all visits have one scale."""
    extents = [visit.overview.extent_mm for visit in visits]
    return max(max((x1 - x0) / _PANEL_INCH, (z1 - z0) / _OVERVIEW_INCH) for x0, x1, z0, z1 in extents)


def _draw_overview(axes: Any, overview: _Overview, mm_per_inch: float) -> None:
    x0, x1, z0, z1 = overview.extent_mm
    axes.set_facecolor("black")
    axes.imshow(
        overview.image, cmap="gray", vmin=0, vmax=1, extent=(x0, x1, z0, z1), interpolation="bilinear", aspect="equal"
    )
    for row, points in overview.lesions:
        colour = _COLOURS[row % len(_COLOURS)]
        edges = [np.arange(low - 15, high + 16, 1.0) for low, high in zip(points.min(0), points.max(0), strict=True)]
        hit = np.histogram2d(points[:, 0], points[:, 1], bins=edges)[0].T > 0
        # Thick slices leave gaps between the rows of points: filled, and the edge rounded.
        hit = ndimage.binary_dilation(ndimage.binary_closing(hit, iterations=6))
        shadow = ndimage.gaussian_filter(hit.astype(float), 1.0)
        x, z = ((edge[1:] + edge[:-1]) / 2 for edge in edges)
        axes.contourf(x, z, shadow, levels=[0.5, 9], colors=[colour], alpha=0.55)
        axes.contour(x, z, shadow, levels=[0.5], colors=[colour], linewidths=1.1)
        axes.plot([x0, x1], [points[:, 1].mean()] * 2, color=colour, linewidth=0.6, alpha=0.6)
    half_x, half_z = _PANEL_INCH * mm_per_inch / 2, _OVERVIEW_INCH * mm_per_inch / 2
    axes.set_xlim((x0 + x1) / 2 - half_x, (x0 + x1) / 2 + half_x)
    axes.set_ylim((z0 + z1) / 2 - half_z, (z0 + z1) / 2 + half_z)


def _draw_panel(axes: Any, panel: _Panel, field_mm: float, colour: str) -> None:
    half = field_mm / 2
    axes.set_xlim(-half, half)
    axes.set_ylim(half, -half)
    if panel.image is None:
        reason = "\n".join(textwrap.wrap(panel.detail, 36))
        axes.text(0, 0, panel.size, color=_TEXT, fontsize=11.5, weight="bold", ha="center", va="bottom")
        axes.text(0, field_mm * 0.04, reason, color=_MUTED, fontsize=8.5, ha="center", va="top", linespacing=1.5)
        return
    low, high = panel.window
    axes.imshow(
        panel.image, cmap="gray", vmin=low, vmax=high, extent=(-half, half, half, -half), interpolation="bilinear"
    )
    along = (np.arange(_PIXELS) - (_PIXELS - 1) / 2) * field_mm / _PIXELS
    for outline in panel.outlines:
        axes.contour(along, along, outline, levels=[0.5], colors=[_BACKGROUND], linewidths=2.8, alpha=0.45)
        axes.contour(along, along, outline, levels=[0.5], colors=[colour], linewidths=1.5)
    for outline in panel.truth:
        axes.contour(along, along, outline, levels=[0.5], colors=["white"], linewidths=0.9, linestyles=[(0, (4, 3))])
    if panel.long_axis is not None:
        axes.plot(panel.long_axis[:, 0], panel.long_axis[:, 1], color=colour, linewidth=0.9, linestyle=(0, (1, 1.6)))
    elif not panel.outlines:
        radius = field_mm / 9
        angle = np.linspace(0, 2 * np.pi, 100)
        axes.plot(radius * np.cos(angle), radius * np.sin(angle), color=colour, linewidth=1.2, linestyle=(0, (2, 2.5)))
    _scale_bar(axes, field_mm)
    _write_on(axes, -0.46 * field_mm, -0.42 * field_mm, panel.note, ha="left", fontsize=8.5)


def _write_on(axes: Any, x: float, y: float, text: str, **style: Any) -> None:
    """Text on an image, readable on any grey."""
    from matplotlib.patheffects import withStroke

    shadow = withStroke(linewidth=2, foreground=_BACKGROUND, alpha=0.9)
    axes.text(x, y, text, color="white", path_effects=[shadow], **style)


def _scale_bar(axes: Any, field_mm: float) -> None:
    length = next(mm for mm in (50.0, 20.0, 10.0) if mm <= 0.25 * field_mm or mm == 10.0)
    right, bottom = field_mm * 0.46, field_mm * 0.455
    shadow = {"color": _BACKGROUND, "alpha": 0.9, "solid_capstyle": "butt"}
    axes.plot([right - length, right], [bottom, bottom], linewidth=4.2, **shadow)
    axes.plot([right - length, right], [bottom, bottom], color="white", linewidth=1.8, solid_capstyle="butt")
    _write_on(axes, right - length / 2, bottom - field_mm * 0.022, f"{length / 10:.0f} cm", ha="center", fontsize=7.5)


def _caption(sheet: _Sheet, left: float, top: float, panel: _Panel, change: str) -> None:
    if panel.image is not None:
        sheet.say(left + 0.02, top, panel.size, size=11.5, weight="bold")
        sheet.say(left + 0.92, top, panel.detail, size=9, color=_MUTED)
    if change:
        colour = _GROWN if change.startswith("+") else _SHRUNK
        sheet.say(left + _PANEL_INCH - 0.02, top, change, size=11.5, weight="bold", color=colour, ha="right")

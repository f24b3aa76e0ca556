"""Where lesions of later scans seem to be, for a reader to check: prompts, the least sure first, and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lesionlocator.case import Case, Ending, Lesion, Link, Status, Timepoint
from lesionlocator.geometry import Geometry
from lesionlocator.picture import on_plane, window_of
from lesionlocator.prompt import Box, Click, Prompt
from lesionlocator.resample import resample
from lesionlocator.volume import Mask, Volume

_PIXELS = 240
_FIELDS_MM = (50.0, 160.0)
_PLANES = {"axial": ((0, 1, 0), (1, 0, 0)), "coronal": ((0, 0, -1), (1, 0, 0)), "sagittal": ((0, 0, -1), (0, 1, 0))}
"""Name -> which way in the patient (LPS) the rows go, and the columns."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """One place to be checked: the lesion with its prompts there, where it was last seen, and what was decided."""

    lesion: Lesion
    before: tuple[int, Mask]
    outline: Mask | None
    event: str

    @property
    def at_mm(self) -> Float[np.ndarray, "3"]:
        """The place that the picture shows."""
        if self.outline is not None:
            return self.outline.deepest_mm
        return np.concatenate([prompt.points_mm for prompt in self.lesion.prompts]).mean(axis=0)


def proposals(case: Case) -> list[tuple[Timepoint, tuple[Lesion, ...]]]:
    """For each later scan, where its lesions seem to be, as prompts for a reader to check: the least sure first.

    A lesion that seems to be gone has one negative click where it was looked for, and one that could not be outlined a
    positive one; their notes say why. One outside the scan, or merged into another, has no place to propose.
    """
    return [
        (timepoint, tuple(one.lesion for one in proposed(case, index)))
        for index, timepoint in enumerate(case.timepoints[1:], start=1)
    ]


def proposed(case: Case, index: int) -> list[Proposal]:
    """What is to be checked in one later scan, the least sure first."""
    found = list(_proposed(case, index))
    return sorted(found, key=lambda one: -1.0 if one.lesion.confidence is None else one.lesion.confidence)


def _proposed(case: Case, index: int) -> Iterator[Proposal]:
    events = {(happening.to_scan, happening.to_lesion_id): happening.event.value for happening in case.events()}
    for lesion in case.timepoints[index].lesions:
        link = _link_to(case, index, lesion)
        before = None if link is None or link.before is None else case.at(link.before)
        if link is None or link.before is None or before is None or before.mask is None:
            continue
        said = Lesion(lesion.id, (), confidence=link.confidence)
        if lesion.mask is not None:
            event = events.get((index, lesion.id), "same")
            prompts = (Box.around(lesion.mask), Click.inside(lesion.mask))
            yield Proposal(_with(said, prompts, ""), (link.before[0], before.mask), lesion.mask, event)
        elif lesion.prompts and isinstance(link.after, Ending):
            yield Proposal(_missing(said, lesion), (link.before[0], before.mask), None, link.after.value)


def _link_to(case: Case, index: int, lesion: Lesion) -> Link | None:
    """The link that led to a lesion, or the ending that has its name: the last one, if it ended earlier."""
    reached = [link for link in case.links if link.after == (index, lesion.id)]
    own = [link for link in case.links if link.before and link.before[1] == lesion.id and link.to <= index]
    ended = [link for link in own if isinstance(link.after, Ending)]
    return next(iter(reached), None) or (ended[-1] if ended else None)


def _missing(said: Lesion, lesion: Lesion) -> Lesion:
    (click,) = [prompt for prompt in lesion.prompts if isinstance(prompt, Click)][:1]
    if lesion.status is Status.ABSENT:
        note = f"seems to be gone: {lesion.reason}; if it is there, move the click onto it and make it positive"
        return _with(said, (Click(click.at, positive=False),), note)
    return _with(said, (Click(click.at),), f"not outlined: {lesion.reason}")


def _with(lesion: Lesion, prompts: tuple[Prompt, ...], note: str) -> Lesion:
    return Lesion(lesion.id, prompts, confidence=lesion.confidence, note=note)


def draw_proposals(case: Case, index: int, folder: Path) -> list[Path]:
    """A picture of each place in one later scan: three planes of it beside those where the lesion was last seen.

    The files that were written, the least sure first, as their names say. Earlier pictures in the folder go.

    Args:
        case: With outlines and links.
        index: Which scan.
        folder: Where to write; made if it does not exist.
    """
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("[0-9][0-9]*_lesion_*.png"):
        old.unlink()
    written: list[Path] = []
    with rc_context({"font.family": "sans-serif"}):
        for number, one in enumerate(proposed(case, index), start=1):
            written.append(folder / f"{number:02d}_lesion_{one.lesion.id}.png")
            _draw(case, index, one, written[-1])
    return written


def _draw(case: Case, index: int, one: Proposal, path: Path) -> None:
    from matplotlib.figure import Figure

    source, mask = one.before
    extent_mm = float(np.ptp(mask.points_mm, axis=0).max())
    if one.outline is not None:
        extent_mm = max(extent_mm, float(np.ptp(one.outline.points_mm, axis=0).max()))
    field_mm = float(np.clip(2.5 * extent_mm, *_FIELDS_MM))
    sure = "" if one.lesion.confidence is None else f"   confidence {one.lesion.confidence:.2f}"
    figure = Figure(figsize=(7.6, 5.4), dpi=100, facecolor="#0e1117")
    figure.text(0.02, 0.96, f"Lesion {one.lesion.id}: {one.event}{sure}", color="#eef1f5", fontsize=12, weight="bold")
    figure.text(0.02, 0.015, one.lesion.note, color="#8d97a5", fontsize=7.5)
    rows = ((source, mask.deepest_mm, mask), (index, one.at_mm, one.outline))
    for row, (scan, at_mm, outline) in enumerate(rows):
        volume = case.timepoints[scan].load()
        for column, name in enumerate(_PLANES):
            axes = figure.add_axes((0.02 + 0.325 * column, 0.49 - 0.445 * row, 0.31, 0.435))
            _draw_plane(axes, volume, (name, at_mm, field_mm), outline)
        figure.text(0.025, 0.9 - 0.445 * row, case.timepoints[scan].name, color="white", fontsize=8.5)
    figure.savefig(path, facecolor=figure.get_facecolor())


def _draw_plane(
    axes: Any, volume: Volume, place: tuple[str, Float[np.ndarray, "3"], float], outline: Mask | None
) -> None:
    name, at_mm, field_mm = place
    plane = _plane(name, at_mm, field_mm)
    image = resample(volume, plane, outside=-1024.0 if volume.modality == "CT" else 0.0)[0]
    low, high = window_of(volume.modality, image, image)
    reversed_grey = volume.modality == "PT"
    axes.imshow(image, cmap="gray_r" if reversed_grey else "gray", vmin=low, vmax=high, interpolation="bilinear")
    if outline is not None:
        axes.contour(on_plane(outline, plane), levels=[0.5], colors=["#ffb52e"], linewidths=1.3)
    middle = (_PIXELS - 1) / 2
    for start, end in ((0.0, 0.42), (0.58, 1.0)):
        part = [start * 2 * middle, end * 2 * middle]
        axes.plot(part, [middle, middle], color="#4cc9f0", linewidth=0.7)
        axes.plot([middle, middle], part, color="#4cc9f0", linewidth=0.7)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(6, _PIXELS - 8, f"{name}, {field_mm:.0f} mm", color="white", fontsize=7)


def _plane(name: str, at_mm: Float[np.ndarray, "3"], field_mm: float) -> Geometry:
    """A square around a place, as a radiologist looks at it: the patient's right, or front, on the left."""
    down, across = (np.array(way, float) for way in _PLANES[name])
    step = field_mm / _PIXELS
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = np.cross(across, down) * 0.5, down * step, across * step
    affine[:3, 3] = at_mm - (down + across) * step * (_PIXELS - 1) / 2
    return Geometry((1, _PIXELS, _PIXELS), affine)

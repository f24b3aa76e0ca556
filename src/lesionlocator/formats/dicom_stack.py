"""Slices become a grid: sorted by where they lie, and nothing about their spacing taken on trust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lesionlocator.errors import Refused
from lesionlocator.formats.dicom_frames import Slice
from lesionlocator.formats.dicom_pixels import same_pixels
from lesionlocator.geometry import Geometry

_REGULAR = 0.05
"""How far, in slice spacings, a slice may lie from where equal spacing puts it."""
_SAME_PLACE_MM = 0.01


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in order along their normal, and the grid they become.

    `along` is where each slice lies on the grid's first axis: 0, 1, 2, ... unless the spacing varies, in which case the
    voxels have to be interpolated.
    """

    slices: tuple[Slice, ...]
    geometry: Geometry
    along: Float[np.ndarray, " n"]
    warnings: tuple[str, ...] = ()

    @property
    def is_regular(self) -> bool:
        return len(self.along) == self.geometry.shape[0] and bool(
            np.array_equal(self.along, np.arange(len(self.along)))
        )


def stack_slices(slices: Sequence[Slice]) -> Stack:
    """The slices of one series as a grid. Refuses what cannot be one."""
    _refuse_mixed(slices)
    first = slices[0]
    ordered = sorted(slices, key=lambda s: float(s.position @ first.normal))
    ordered, warnings = _without_duplicates(ordered)
    if len(ordered) == 1:
        step_mm, told = _thickness(ordered[0].header)
        step = first.normal * step_mm
        return Stack(tuple(ordered), _grid(ordered, 1, step), np.zeros(1), (*warnings, *told))
    depth = np.array([s.position @ first.normal for s in ordered])
    slope, tilted = _sideways(ordered, depth)
    spacing, along, uneven = _spacing(ordered, depth)
    count = round(float(along[-1])) + 1
    geometry = _grid(ordered, count, (first.normal + slope) * spacing)
    return Stack(tuple(ordered), geometry, along, (*warnings, *tilted, *uneven))


def _grid(ordered: Sequence[Slice], count: int, step: Float[np.ndarray, "3"]) -> Geometry:
    first = ordered[0]
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = first.column * first.spacing_mm[0]
    affine[:3, 2] = first.row * first.spacing_mm[1]
    affine[:3, 3] = first.position
    frame = str(first.header.get("FrameOfReferenceUID") or "") or None
    return Geometry((count, *first.shape), affine, frame)


def _refuse_mixed(slices: Sequence[Slice]) -> None:
    first = slices[0]
    for other in slices[1:]:
        turned = np.abs(np.concatenate([other.row - first.row, other.column - first.column])).max() > 1e-3
        resized = not np.allclose(other.spacing_mm, first.spacing_mm, rtol=1e-3)
        frames = {str(s.header.get("FrameOfReferenceUID") or "") for s in (first, other)}
        if turned or resized or other.shape != first.shape or len(frames) > 1:
            raise Refused(
                found=f"slices of one series that do not fit together: {first.name} has {_said(first)}, "
                f"{other.name} has {_said(other)}",
                needed="one size, one direction and one frame of reference",
                do="keep the files of one stack in the folder (scouts and reformats are stacks of their own)",
            )


def _said(one: Slice) -> str:
    rows, columns = one.shape
    directions = " ".join(f"{v:.3f}" for v in (*one.row, *one.column))
    return f"{rows} x {columns} pixels of {one.spacing_mm[0]:.4g} x {one.spacing_mm[1]:.4g} mm along {directions}"


def _without_duplicates(ordered: list[Slice]) -> tuple[list[Slice], tuple[str, ...]]:
    kept = [ordered[0]]
    dropped: list[str] = []
    for one in ordered[1:]:
        if np.linalg.norm(one.position - kept[-1].position) > _SAME_PLACE_MM:
            kept.append(one)
        elif same_pixels(one, kept[-1]):
            dropped.append(one.name)
        else:
            raise Refused(
                found=f"two different images at one place ({kept[-1].name} and {one.name}, both at "
                f"{' '.join(f'{v:.2f}' for v in one.position)} mm)",
                needed="one image for each slice",
                do="keep one phase, echo or reconstruction in the folder",
            )
    told = (f"{len(dropped)} slices came twice and were dropped ({', '.join(dropped[:3])})",) if dropped else ()
    return kept, told


def _thickness(header: Any) -> tuple[float, tuple[str, ...]]:
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = abs(float(header.get(name) or 0.0))
        if value > 0:
            return value, (f"one slice only; its thickness was taken from {name} ({value:g} mm)",)
    return 1.0, ("one slice only, without a thickness; 1 mm was taken",)


def _sideways(
    ordered: Sequence[Slice], depth: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "3"], tuple[str, ...]]:
    """How far the slices shift sideways for each mm along the normal: not at all, or evenly (gantry tilt)."""
    positions = np.stack([s.position for s in ordered])
    sideways = positions - depth[:, None] * ordered[0].normal
    slope = (sideways[-1] - sideways[0]) / (depth[-1] - depth[0])
    off = np.linalg.norm(sideways - sideways[0] - (depth - depth[0])[:, None] * slope, axis=1)
    if off.max() > 0.5 * min(ordered[0].spacing_mm):
        worst = int(off.argmax())
        raise Refused(
            found=f"slices not in a straight line: {ordered[worst].name} is {off[worst]:.2f} mm beside it",
            needed="slices above each other (evenly shifted ones, as from a tilted gantry, are fine)",
            do="export the series again, or split it into its stacks",
        )
    if np.linalg.norm(slope) * (depth[-1] - depth[0]) < 0.1 * min(ordered[0].spacing_mm):
        return slope, ()
    angle = np.degrees(np.arctan(np.linalg.norm(slope)))
    return slope, (f"the gantry was tilted by {angle:.1f} degrees; the grid is kept as it is, sheared",)


def _spacing(
    ordered: Sequence[Slice], depth: Float[np.ndarray, " n"]
) -> tuple[float, Float[np.ndarray, " n"], tuple[str, ...]]:
    """Spacing of the grid along the normal, and where each slice lies on it."""
    gaps = np.diff(depth)
    usual = float(np.median(gaps))
    _refuse_gaps(ordered, depth, gaps / usual)
    even = float(depth[-1] - depth[0]) / len(gaps)
    off = np.abs((depth - depth[0]) / even - np.arange(len(depth))).max()
    if off <= _REGULAR:
        return even, np.arange(len(depth), dtype=float), ()
    warning = f"the slices are {gaps.min():.3g} to {gaps.max():.3g} mm apart; interpolated to an even {usual:.3g} mm"
    return usual, (depth - depth[0]) / usual, (warning,)


def _refuse_gaps(ordered: Sequence[Slice], depth: Float[np.ndarray, " n"], ratio: Float[np.ndarray, " m"]) -> None:
    holes = [int(i) for i in np.flatnonzero((ratio >= 1.5) & (np.abs(ratio - np.round(ratio)) < 0.15))]
    if holes:
        places = "; ".join(
            f"{round(float(ratio[i])) - 1} between {ordered[i].name} (at {depth[i]:.2f} mm) and "
            f"{ordered[i + 1].name} (at {depth[i + 1]:.2f} mm)"
            for i in holes[:4]
        )
        raise Refused(
            found=f"missing slices: {places}" + ("; and more" if len(holes) > 4 else ""),
            needed="every slice of the series",
            do="copy the series again, whole",
        )
    if ratio.max() >= 1.5 or ratio.min() <= 0.5:
        usual = float(np.median(np.diff(depth)))
        raise Refused(
            found=f"slices whose distances vary from {ratio.min() * usual:.3g} to {ratio.max() * usual:.3g} mm",
            needed="one spacing (variations below half of it are evened out)",
            do="split the series into its stacks, or take an evenly spaced reconstruction",
        )

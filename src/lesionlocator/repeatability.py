"""How far a measurement would move if a reader pointed a little differently, and which changes are more than that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from lesionlocator.case import Lesion, Timepoint
from lesionlocator.geometry import AffineMap, Alignment, Geometry
from lesionlocator.measure import axial_axis, measure_diameters
from lesionlocator.prompt import Box, Prompt, Shape
from lesionlocator.volume import Mask

Ask = tuple[Prompt, ...]
Answer = Callable[[Sequence[Ask]], Sequence[Mask | None]]
"""Outlines of one scan: a mask for each ask, None where there is none."""


@dataclass(frozen=True)
class PromptErrors:
    """How prompts are drawn anew: every face of a box (or of a mask's box) for itself, a click as a whole.

    Standard deviations. A face moves by 5 % of the box's side, at least by 1 mm and by half a voxel; a click by 2 mm.
    """

    repeats: int = 8
    face_share: float = 0.05
    face_mm: float = 1.0
    click_mm: float = 2.0
    seed: int = 0


@dataclass(frozen=True)
class Spread:
    """The 95 % intervals of one lesion in one scan; a row of `repeatability.csv`. None where nothing could be repeated.

    `dice` is the mean agreement of the repeated outlines with the one that was measured.
    """

    scan: str
    lesion_id: str
    repeats: int = 0
    volume_ml: float | None = None
    volume_low_ml: float | None = None
    volume_high_ml: float | None = None
    long_axis_mm: float | None = None
    long_axis_low_mm: float | None = None
    long_axis_high_mm: float | None = None
    short_axis_mm: float | None = None
    short_axis_low_mm: float | None = None
    short_axis_high_mm: float | None = None
    dice: float | None = None
    reason: str = ""

    def interval(self, quantity: str) -> tuple[float, float, float] | None:
        """Value, low and high end of `volume`, `long_axis` or `short_axis`."""
        unit = "ml" if quantity == "volume" else "mm"
        names = (f"{quantity}_{unit}", f"{quantity}_low_{unit}", f"{quantity}_high_{unit}")
        value, low, high = (getattr(self, name) for name in names)
        return None if value is None or low is None or high is None else (value, low, high)


CHANGES = ("volume_changed", "long_axis_changed", "volume_changed_from_baseline", "long_axis_changed_from_baseline")
"""Columns of `repeatability.csv` that say `yes` or `no`: against the visit before, and against the first."""


def repeat_timepoint(
    timepoint: Timepoint, answer: Answer, errors: PromptErrors | None = None, *, given: bool = False
) -> list[Spread]:
    """Every outlined lesion of a scan asked again with drawn prompt errors; the other lesions are left out.

    The draws depend on the seed, the scan's name and the lesion's id, not on the other lesions.

    Args:
        timepoint: With outlines, and with the prompts that they came from.
        answer: Outlines this scan.
        errors: How prompts are drawn, and how often.
        given: The outlines are a reader's own: there is nothing to repeat, and each lesion has a row that says so.
    """
    errors = errors or PromptErrors()
    spreads: list[Spread] = []
    for lesion in timepoint.lesions:
        if lesion.mask is None or lesion.mask.is_empty:
            continue
        no_prompt = "no prompt of its own: the model followed it from the scan before" * (not lesion.prompts)
        if why := "the outline was given, not made" if given else no_prompt:
            spreads.append(Spread(timepoint.name, lesion.id, reason=why))
            continue
        draw = np.random.default_rng([errors.seed, *f"{timepoint.name}/{lesion.id}".encode()])
        asks = [draw_errors(lesion.prompts, timepoint.geometry, errors, draw) for _ in range(errors.repeats)]
        again = [mask for mask in answer(asks) if mask is not None and not mask.is_empty]
        spreads.append(spread_of(timepoint.name, lesion, again))
    return spreads


def draw_errors(ask: Ask, geometry: Geometry, errors: PromptErrors, draw: np.random.Generator) -> Ask:
    """A lesion's prompts as another reader might have given them: all moved by one drawn map."""
    if not ask:
        return ask
    points = np.concatenate([_extent(prompt) for prompt in ask])
    low, high = points.min(axis=0), points.max(axis=0)
    side = high - low
    if bool(np.all(side < 1e-6)):
        moved = AffineMap.shift(draw.normal(0.0, errors.click_mm, 3))
    else:
        voxel = np.abs(geometry.affine[:3, :3]).max(axis=1) / 2
        sd = np.maximum(np.maximum(errors.face_share * side, errors.face_mm), voxel)
        new_low, new_high = low + draw.normal(0.0, sd), high + draw.normal(0.0, sd)
        # A box does not turn inside out, however small it is.
        scale = np.where(side > 1e-6, np.maximum(new_high - new_low, 0.2 * side) / np.maximum(side, 1e-6), 1.0)
        matrix = np.diag([*scale, 1.0])
        matrix[:3, 3] = (new_low + new_high) / 2 - scale * (low + high) / 2
        moved = AffineMap(matrix)
    alignment = Alignment.from_affine(moved, "drawn")
    return tuple(prompt.moved(alignment, geometry) for prompt in ask)


def spread_of(scan: str, lesion: Lesion, again: Sequence[Mask]) -> Spread:
    """The intervals round a lesion's measurements, from its outline and those of the repeated asks.

    Half of an interval has up to three parts, added as squares: what the repeated outlines say (their root mean square
    deviation from the measured one, times Student's t for 95 %), what voxels cannot resolve (0.8 voxels of a diameter;
    of a volume, border voxels that are as likely in as out), and, where the model gives a confidence, an estimate of
    the Dice with an expert: 1 - Dice of the volume, a third of that of a diameter.
    """
    mask = lesion.mask
    if mask is None or mask.is_empty:
        return Spread(scan, lesion.id, reason="no outline")
    if len(again) < 3:
        return Spread(scan, lesion.id, len(again), reason=f"only {len(again)} of the repeated asks gave an outline")
    values = _numbers(mask)
    deviation = np.sqrt(np.mean((np.stack([_numbers(other) for other in again]) - values) ** 2, axis=0))
    doubt = 0.0 if lesion.confidence is None else 1.0 - lesion.confidence
    half = np.sqrt((_student(len(again)) * deviation) ** 2 + _voxels(mask) ** 2 + (doubt * values / [1, 3, 3]) ** 2)
    low, high = np.maximum(values - half, 0.0), values + half
    dice = float(np.mean([mask.dice(other) for other in again]))
    numbers = [float(number) for triple in zip(values, low, high, strict=True) for number in triple]
    return Spread(scan, lesion.id, len(again), *numbers, dice=dice)


def is_real(before: tuple[float, float, float], after: tuple[float, float, float]) -> bool:
    """Whether two values (value, low, high) differ by more than both intervals together, added as squares.

    Two measurements that have not changed differ by that much once in twenty times: the repeatability coefficient of
    Bland and Altman, doi:10.1177/096228029900800204, with an error for each measurement.
    """
    half = np.hypot(before[2] - before[0], after[2] - after[0])
    return bool(abs(after[0] - before[0]) > half)


def judge_changes(spreads: Iterable[Spread]) -> list[dict[str, Any]]:
    """The rows of `repeatability.csv`, spreads in order of time: the intervals, and which changes exceed them."""
    rows: list[dict[str, Any]] = []
    past: dict[str, list[Spread]] = {}
    for spread in spreads:
        known = past.setdefault(spread.lesion_id, [])
        row = {name: getattr(spread, name) for name in Spread.__dataclass_fields__}
        for suffix, other in (("", known[-1:]), ("_from_baseline", known[:1])):
            for quantity in ("volume", "long_axis"):
                row[f"{quantity}_changed{suffix}"] = _said(other[0] if other else None, spread, quantity)
        rows.append(row)
        if spread.interval("volume") is not None:
            known.append(spread)
    return rows


def read_spread(cells: Mapping[str, str]) -> Spread:
    """A row of `repeatability.csv` read back."""
    texts = ("scan", "lesion_id", "reason")
    found: dict[str, Any] = {name: cells.get(name) or "" for name in texts}
    numbers = [name for name in Spread.__dataclass_fields__ if name not in (*texts, "repeats")]
    found |= {name: float(cells[name]) if cells.get(name) else None for name in numbers}
    return Spread(repeats=int(cells.get("repeats") or 0), **found)


def _said(before: Spread | None, after: Spread, quantity: str) -> str:
    one = before.interval(quantity) if before is not None else None
    other = after.interval(quantity)
    return "" if one is None or other is None else "yes" if is_real(one, other) else "no"


def _extent(prompt: Prompt) -> Float[np.ndarray, "n 3"]:
    if isinstance(prompt, Shape):
        return Box.around(prompt.mask).points_mm
    return prompt.points_mm


def _numbers(mask: Mask) -> Float[np.ndarray, "3"]:
    diameters = measure_diameters(mask)
    return np.array([mask.volume_ml, diameters.long_mm, diameters.short_mm])


def _voxels(mask: Mask) -> Float[np.ndarray, "3"]:
    from scipy import ndimage

    border = mask.array & ~ndimage.binary_erosion(np.pad(mask.array, 1))[1:-1, 1:-1, 1:-1]
    axis = axial_axis(mask.geometry)
    pixel_mm = float(max(mask.geometry.spacing_mm[other] for other in range(3) if other != axis))
    volume = 1.96 * mask.geometry.voxel_ml * np.sqrt(np.count_nonzero(border) / 12)
    return np.array([volume, 1.96 * pixel_mm / np.sqrt(6), 1.96 * pixel_mm / np.sqrt(6)])


def _student(count: int) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.975, count))

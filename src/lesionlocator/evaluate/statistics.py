"""What many scores say together: means, how sure they are, and whether one method is better than another."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

DRAWS = 2000
VOLUME_BANDS_ML = (1.0, 10.0, 100.0)
"""Borders between small, medium, large and very large lesions: balls of 12, 27 and 58 mm."""


@dataclass(frozen=True)
class Mean:
    """A mean over lesions with its 95 % interval, and the mean of the patients' means with its own.

    Intervals are None for fewer than two patients, means for no value at all.
    """

    lesions: int
    patients: int
    over_lesions: float | None
    interval: tuple[float, float] | None
    over_patients: float | None
    patient_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Difference:
    """How much higher the scores of one method are than those of another, over what both were asked."""

    mean: Mean

    @property
    def is_fall(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.mean.interval is not None and self.mean.interval[1] < 0

    @property
    def is_rise(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.mean.interval is not None and self.mean.interval[0] > 0


def mean_with_interval(
    values: Sequence[float | None], patients: Sequence[Hashable], *, seed: int = 0, draws: int = DRAWS
) -> Mean:
    """Mean of the values that are there, with a 95 % percentile bootstrap over patients.

    Whole patients are drawn with replacement, each with all lesions, since lesions of one patient are alike; drawing
    lesions would make intervals too narrow. The same seed gives the same interval.

    Args:
        values: One for each lesion; None is left out.
        patients: To whom each belongs.
        seed: Of the draws.
        draws: How many.

    Reference: Efron and Tibshirani 1986, doi:10.1214/ss/1177013815; drawing whole groups as in Davison and Hinkley
    1997, doi:10.1017/CBO9780511802843, section 3.8.
    """
    known = [(float(value), who) for value, who in zip(values, patients, strict=True) if value is not None]
    if not known:
        return Mean(0, 0, None, None, None, None)
    names = sorted({who for _, who in known}, key=str)
    place = {name: index for index, name in enumerate(names)}
    member = np.array([place[who] for _, who in known])
    array = np.array([value for value, _ in known])
    counts = np.bincount(member, minlength=len(names))
    sums = np.bincount(member, weights=array, minlength=len(names))
    drawn = np.random.default_rng(seed).integers(0, len(names), (draws, len(names)))
    enough = len(names) > 1
    return Mean(
        lesions=len(array),
        patients=len(names),
        over_lesions=float(array.mean()),
        interval=_interval(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)) if enough else None,
        over_patients=float((sums / counts).mean()),
        patient_interval=_interval(_means(sums / counts, drawn)) if enough else None,
    )


def paired_difference(
    one: dict[Hashable, float], other: dict[Hashable, float], patients: dict[Hashable, Hashable], *, seed: int = 0
) -> Difference:
    """Mean of `one` minus `other` over the lesions that both have, with an interval resampled by patient.

    Args:
        one: Score by lesion.
        other: Score by lesion, of the method to compare with.
        patients: Patient by lesion.
        seed: Of the draws.
    """
    shared = sorted(one.keys() & other.keys(), key=str)
    differences = [one[key] - other[key] for key in shared]
    return Difference(mean_with_interval(differences, [patients[key] for key in shared], seed=seed))


def volume_band(volume_ml: float) -> str:
    """The name of the band of sizes that a lesion is in."""
    names = (
        f"under {VOLUME_BANDS_ML[0]:g} ml",
        *(f"{low:g} to {high:g} ml" for low, high in zip(VOLUME_BANDS_ML, VOLUME_BANDS_ML[1:], strict=False)),
        f"{VOLUME_BANDS_ML[-1]:g} ml and more",
    )
    return names[int(np.searchsorted(VOLUME_BANDS_ML, volume_ml, side="right"))]


def area_under(amounts: Sequence[float], scores: Sequence[float]) -> float | None:
    """Mean height of a curve (trapezoids over its width); its only height for one point, None for none.

    With corrections as amounts, this is the area under the Dice curve of the CVPR 2025 challenge on interactive 3D
    biomedical segmentation, divided by its width.
    """
    order = np.argsort(amounts)
    x, y = np.asarray(amounts, float)[order], np.asarray(scores, float)[order]
    if len(x) == 0:
        return None
    width = float(x[-1] - x[0])
    return float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)) / width) if width > 0 else float(y.mean())


def _means(values: Float[np.ndarray, " n"], drawn: Integer[np.ndarray, "draws n"]) -> Float[np.ndarray, " draws"]:
    return values[drawn].mean(axis=1)


def _interval(values: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)

"""Stored numbers become intensities: int16 or float32, nothing else, and of a known modality."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped

from lesionlocator.volume import Modality

_SAMPLES = 200_000
_INT16 = np.iinfo(np.int16)


def as_intensities(stored: Shaped[np.ndarray, "d h w"], slope: float = 1.0, intercept: float = 0.0) -> np.ndarray:
    """`stored * slope + intercept`, as int16 when that is exact and as float32 otherwise.

    Works slice by slice and, where the size of a number allows it, in the memory of `stored`, which must be the
    caller's own: a long CT never needs much more than itself.
    """
    if stored.dtype.kind in "biu" and float(slope).is_integer() and float(intercept).is_integer():
        ends = [int(end) * int(slope) + int(intercept) for end in (stored.min(), stored.max())]
        if min(ends) >= _INT16.min and max(ends) <= _INT16.max:
            return _scaled(stored, np.dtype(np.int16), np.dtype(np.int64), float(slope), float(intercept))
    return _scaled(stored, np.dtype(np.float32), np.dtype(np.float32), float(slope), float(intercept))


def settle_modality(array: np.ndarray, given: Modality | None) -> tuple[Modality, tuple[str, ...]]:
    """The modality as given; else guessed from the values, with a warning that says how to overrule it."""
    if given is not None:
        return given, ()
    modality, why = guess_modality(array)
    return modality, (f"modality guessed as {modality} ({why}); if that is wrong, say --modality CT, MR or PT",)


def guess_modality(array: np.ndarray) -> tuple[Modality, str]:
    """What the values look like, and what in them says so.

    CT is the only one with many values far below zero. PET in SUV has fractional values, nearly none below zero, of
    which most are small and few are high. Everything else is MR.
    """
    values = _thinned(array)
    if values.size == 0:
        return "MR", "no finite voxel to judge by"
    lowest, highest = float(values.min()), float(values.max())
    low, high = (float(v) for v in np.percentile(values, [0.5, 99.9]))
    integral = bool(np.all(values == np.round(values)))
    if lowest < -200 or (integral and low < -50 and highest < 5000):
        return "CT", f"values go down to {lowest:.0f}"
    if not integral and lowest >= -0.01 * highest and 1.5 < highest < 500:
        usual = float(np.median(values[values > 0.01 * high]))
        # Measured: 5.8 to 37 in twelve PET, 1.5 to 5.6 in twenty-three MR.
        if high > 5.7 * usual:
            return "PT", f"fractional values up to {highest:.3g}, mostly near {usual:.2g}"
    return "MR", f"values from {lowest:.3g} to {highest:.3g}"


def _thinned(array: np.ndarray) -> Float[np.ndarray, " n"]:
    step = max(1, round((array.size / _SAMPLES) ** (1 / 3)))
    thinned = array[tuple(slice(None, None, step if n > 2 * step else 1) for n in array.shape)]
    values = thinned.astype(np.float64).ravel()
    return values[np.isfinite(values)]


def _scaled(stored: np.ndarray, dtype: np.dtype, work: np.dtype, slope: float, intercept: float) -> np.ndarray:
    if stored.dtype == dtype and slope == 1 and intercept == 0:
        return stored
    reusable = stored.itemsize == dtype.itemsize and stored.flags.c_contiguous and stored.flags.writeable
    out = stored.view(dtype) if reusable else np.empty(stored.shape, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        for index in range(len(out)):
            values = stored[index].astype(work)
            values *= work.type(slope)
            values += work.type(intercept)
            out[index] = values
    return out

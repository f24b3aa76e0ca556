"""Where two scans may overlap: every shift tried at once, for visits that share no origin and show different parts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import fft, ndimage

from lesionlocator.align.view import View

_LEAST_OVERLAP = 0.25
"""Of the smaller body. Less in common is not told from chance."""
_APART_MM = 40.0


def likely_shifts(baseline: View, followup: View, count: int) -> list[Float[np.ndarray, "3"]]:
    """The best shifts (mm, added to a place of the baseline), best first, each some centimetres from the others.

    Correlation of grey values inside both bodies for all shifts by Fourier transform (Padfield, IEEE Trans. Image
    Process. 2012, doi 10.1109/TIP.2011.2181402), weighed by how much of the smaller body takes part: a small overlap
    correlates well by chance.
    """
    score = _scores(baseline, followup)
    origin = followup.geometry.affine[:3, 3] - baseline.geometry.affine[:3, 3]
    radius = max(1, round(_APART_MM / baseline.spacing_mm))
    peaks = np.argwhere((score == ndimage.maximum_filter(score, 2 * radius + 1, mode="constant")) & (score > 0))
    order = np.argsort(-score[tuple(peaks.T)], kind="stable")[:count]
    lags = peaks[order] - (np.array(baseline.geometry.shape) - 1)
    return [origin + baseline.geometry.affine[:3, :3] @ lag for lag in lags]


def _scores(baseline: View, followup: View) -> Float[np.ndarray, "d h w"]:
    """Score of each lag, where lag = followup index - baseline index, from -(baseline shape - 1) upwards."""
    shape = [a + b - 1 for a, b in zip(baseline.geometry.shape, followup.geometry.shape, strict=True)]
    size = [fft.next_fast_len(n, real=True) for n in shape]
    first, second = (_spectra(view, size) for view in (_flipped(baseline), followup))

    def together(a: int, b: int) -> Float[np.ndarray, "d h w"]:
        return fft.irfftn(first[a] * second[b], s=size)[: shape[0], : shape[1], : shape[2]]

    overlap = together(0, 0)
    counted = np.maximum(overlap, 1.0)
    sum_first, sum_second = together(1, 0), together(0, 1)
    spread_first = np.maximum(together(2, 0) - sum_first**2 / counted, 1e-6 * counted)
    spread_second = np.maximum(together(0, 2) - sum_second**2 / counted, 1e-6 * counted)
    correlation = (together(1, 1) - sum_first * sum_second / counted) / np.sqrt(spread_first * spread_second)
    share = np.clip(overlap / min(int(baseline.body.sum()), int(followup.body.sum())), 0, 1)
    score = np.arctanh(np.clip(correlation, -0.999, 0.999)) * np.sqrt(share)
    return np.where(share >= _LEAST_OVERLAP, score, -np.inf)


def _spectra(view: View, size: list[int]) -> list[np.ndarray]:
    inside = view.body.astype(float)
    centred = (view.array - float(view.array[view.body].mean())) * inside
    return [fft.rfftn(part, s=size) for part in (inside, centred, centred**2)]


def _flipped(view: View) -> View:
    return View(view.array[::-1, ::-1, ::-1], view.body[::-1, ::-1, ::-1], view.seen[::-1, ::-1, ::-1], view.geometry)

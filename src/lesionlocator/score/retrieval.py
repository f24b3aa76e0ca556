"""Whether lesions were found again, and how near to their middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lesionlocator.volume import Mask

DETECTED_DICE = 0.3


@dataclass(frozen=True)
class RetrievalScore:
    """Shares (0 to 1) and distances over the lesions that are there in truth; None where there is none.

    `cpm_10` counts a lesion whose found centre lies within min(its radius, 10 mm) of the true one, `cpm_25` within
    25 mm; the radius is half of its longest diameter. A lesion that was not found counts as missed in the shares and
    has no distance. `detected` counts lesions with a Dice above 0.3.
    """

    lesions: int
    cpm_10: float | None
    cpm_25: float | None
    detected: float | None
    centre_error_mm: float | None
    centre_error_xyz_mm: tuple[float, float, float] | None


@dataclass(frozen=True, eq=False)
class Found:
    """One lesion that is there in truth: its mask and what was found of it (None or empty: nothing)."""

    truth: Mask
    predicted: Mask | None

    @property
    def offset_mm(self) -> Float[np.ndarray, "3"] | None:
        """From the true centre to the one that was found."""
        if self.predicted is None or self.predicted.is_empty:
            return None
        return self.predicted.centroid_mm - self.truth.centroid_mm


def score_retrieval(pairs: Sequence[Found]) -> RetrievalScore:
    """Centre point matching, detection and centre error over lesions.

    Reference: Cai et al. 2021, Deep Lesion Tracker, doi:10.48550/arXiv.2012.04872 (CPM@10mm, CPM@25mm, mean Euclidean
    distance and per-axis errors).
    """
    if not pairs:
        return RetrievalScore(0, None, None, None, None, None)
    offsets = [pair.offset_mm for pair in pairs]
    errors = np.array([np.inf if offset is None else float(np.linalg.norm(offset)) for offset in offsets])
    radii = np.array([_radius_mm(pair.truth) for pair in pairs])
    found = [offset for offset in offsets if offset is not None]
    x, y, z = np.abs(np.array(found)).mean(axis=0) if found else (np.nan,) * 3
    return RetrievalScore(
        lesions=len(pairs),
        cpm_10=float(np.mean(errors <= np.minimum(radii, 10.0))),
        cpm_25=float(np.mean(errors <= 25.0)),
        detected=float(np.mean([_detected(pair) for pair in pairs])),
        centre_error_mm=float(np.mean(errors[np.isfinite(errors)])) if found else None,
        centre_error_xyz_mm=(float(x), float(y), float(z)) if found else None,
    )


def _radius_mm(mask: Mask) -> float:
    from lesionlocator.measure import measure_diameters

    return measure_diameters(mask).long_mm / 2


def _detected(pair: Found) -> bool:
    if pair.predicted is None:
        return False
    voxels = pair.predicted.voxels + pair.truth.voxels
    return voxels > 0 and 2 * pair.predicted.overlap(pair.truth) / voxels > DETECTED_DICE

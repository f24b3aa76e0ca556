"""How near an outline is to the true one: overlap, surfaces, volume, diameter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.measure import measure_diameters
from lesionlocator.volume import Mask

TOLERANCE_MM = 2.0
_CONNECTED_18 = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True)
class MaskScore:
    """Scores of one outline against the true one.

    Rules for empty masks: both empty is full agreement (Dice and NSD 1, HD95 0). Only one of them empty is none (Dice
    and NSD 0), with no distance (HD95 None). A false outline of a lesion that is gone therefore has Dice 0 and its
    whole volume as error, and counts. Errors are predicted minus true; percent of an empty truth is None.
    """

    dice: float
    nsd: float
    hd95_mm: float | None
    volume_error_ml: float
    volume_error_percent: float | None
    diameter_error_mm: float
    tolerance_mm: float
    true_ml: float
    predicted_ml: float


def score_masks(predicted: Mask, truth: Mask, *, tolerance_mm: float | None = None) -> MaskScore:
    """Dice, normalised surface distance, HD95, volume and longest-diameter error of one lesion.

    Dice is 2 |A and B| / (|A| + |B|). The surface scores weigh every surface element by its area: NSD is the share of
    both surfaces within the tolerance of the other, HD95 the larger of the two directed 95th percentiles (Nikolov et
    al. 2018, doi:10.48550/arXiv.1809.04430; computed by the authors' `surface-distance`).

    Args:
        predicted: On the same lattice of voxels as the truth (to 0.01 mm).
        truth: The outline to be reached.
        tolerance_mm: Of the NSD. Default: 2 mm, or the largest voxel spacing where that is larger.

    Raises:
        Refused: The two are on different grids.
    """
    tolerance_mm = tolerance_mm or default_tolerance_mm(truth.geometry)
    one, other = _together(predicted, truth)
    dice, nsd, hd95_mm = _agreement(one, other, truth.geometry, tolerance_mm)
    error_ml = predicted.volume_ml - truth.volume_ml
    return MaskScore(
        dice=dice,
        nsd=nsd,
        hd95_mm=hd95_mm,
        volume_error_ml=error_ml,
        volume_error_percent=None if truth.is_empty else 100 * error_ml / truth.volume_ml,
        diameter_error_mm=_longest_mm(predicted) - _longest_mm(truth),
        tolerance_mm=tolerance_mm,
        true_ml=truth.volume_ml,
        predicted_ml=predicted.volume_ml,
    )


def default_tolerance_mm(geometry: Geometry) -> float:
    """2 mm, or the slice thickness (largest spacing) where it is larger: no surface is known better than that."""
    return max(TOLERANCE_MM, float(geometry.spacing_mm.max()))


def false_volumes(predicted: Mask, truth: Mask) -> tuple[float, float]:
    """False positive and false negative volume in ml.

    The volume of 18-connected parts of the prediction that touch no true voxel, and of the truth that touch no
    predicted one, as in the autoPET challenges (Gatidis et al. 2022, doi:10.1038/s41597-022-01718-3).
    """
    one, other = _together(predicted, truth)
    voxel_ml = truth.geometry.voxel_ml
    return _without_overlap(one, other) * voxel_ml, _without_overlap(other, one) * voxel_ml


def _agreement(
    predicted: Bool[np.ndarray, "d h w"], truth: Bool[np.ndarray, "d h w"], geometry: Geometry, tolerance_mm: float
) -> tuple[float, float, float | None]:
    from surface_distance import metrics

    sizes = int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))
    if sizes == (0, 0):
        return 1.0, 1.0, 0.0
    if 0 in sizes:
        return 0.0, 0.0, None
    dice = 2 * int(np.count_nonzero(predicted & truth)) / sum(sizes)
    distances = metrics.compute_surface_distances(truth, predicted, geometry.spacing_mm)
    nsd = float(metrics.compute_surface_dice_at_tolerance(distances, tolerance_mm))
    return dice, nsd, float(metrics.compute_robust_hausdorff(distances, 95))


def _together(predicted: Mask, truth: Mask) -> tuple[Bool[np.ndarray, "d h w"], Bool[np.ndarray, "d h w"]]:
    """Both on the smallest grid that holds them, so that a lesion costs what it is large and not what its scan is."""
    if predicted.geometry.offset_in(truth.geometry) is None:
        raise Refused(
            found="a predicted mask on another grid than the true one",
            needed="the same grid, to 0.01 mm",
            do="resample the prediction to the grid of the truth first",
        )
    filled = [mask.geometry.corners_mm for mask in (truth, predicted) if not mask.is_empty] or [
        truth.geometry.corners_mm
    ]
    region = truth.geometry.crop(*truth.geometry.around(np.concatenate(filled)))
    return predicted.on(region), truth.on(region)


def _longest_mm(mask: Mask) -> float:
    return 0.0 if mask.is_empty else measure_diameters(mask).long_mm


def _without_overlap(one: Bool[np.ndarray, "d h w"], other: Bool[np.ndarray, "d h w"]) -> int:
    labels, count = ndimage.label(one, _CONNECTED_18)
    labels = np.asarray(labels)
    met = np.zeros(int(count) + 1, bool)
    met[np.unique(labels[other])] = True
    met[0] = True
    return int(np.count_nonzero(~met[labels]))

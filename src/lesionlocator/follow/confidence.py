"""How sure a link or an ending is: a probability, from what was seen, fitted on synthetic follow-ups."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from lesionlocator.follow.locate import Sighting
from lesionlocator.follow.scene import look_of
from lesionlocator.follow.wanted import Carried
from lesionlocator.parts import join
from lesionlocator.volume import Mask, Volume

# Fitted by evidence/following.py on pairs and chains of the released recipe and on phantoms; docs/evidence/following.md
# has them, and what they are worth. None but the first may be below nought, so that more of what speaks for a link
# never lowers it; a weight of nought is what the fit made of that fact.
_FOUND = {
    "begin": -1.91, "stays": 0.0, "pattern": 0.0, "likeness": 0.47, "agreement": 0.89, "kept_size": 0.61, "near": 0.63,
    "as_seen": 0.49, "alone": 0.93, "contrast": 0.0, "large": 1.44,
}  # fmt: skip
_GONE = {"begin": 0.32, "agreement": 0.17, "contrast": 0.08, "faded": 0.0}
# Of lesions that were outlined all the same; on other pairs and chains (docs/decisions/0034-gone-though-outlined.md).
_LEFT = {"begin": -0.28, "lost": 1.46, "pattern": -1.85, "changed": 0.86, "stands_out": -1.01, "likeness": -0.97}


def found_confidence(item: Carried, outline: Mask) -> float:
    """How likely it is that this outline is the lesion."""
    return _probability(_FOUND, found_evidence(item, outline))


def gone_confidence(sighting: Sighting) -> float:
    """How likely it is that a lesion of which nothing was seen is gone."""
    return _probability(_GONE, gone_evidence(sighting))


def gone_belief(sighting: Sighting, outline: Mask, followup: Volume) -> float | None:
    """How likely it is that a lesion is gone though something was outlined at its place; None where nothing tells."""
    if sighting.remains is None or sighting.contrast == 0:
        return None
    look = look_of(followup, outline)
    spreads = float(np.sign(sighting.contrast)) * look.contrast / max(look.around_spread, 1e-6)
    seen = {"stands_out": float(np.log1p(np.clip(spreads, 0.0, 50.0))), "likeness": sighting.likeness}
    return _probability(_LEFT, {**asdict(sighting.remains), **seen})


def found_evidence(item: Carried, outline: Mask) -> dict[str, float]:
    """What speaks for a link, each from 0 (nothing) to 1."""
    seen = item.sighting
    before_ml, diameter_mm = item.mask.volume_ml, item.mask.equivalent_diameter_mm
    place = seen.carried if not seen.carried.is_empty else outline
    off_mm = float(np.linalg.norm(outline.centroid_mm - place.centroid_mm)) + seen.strayed_mm
    growth = float(np.log(max(outline.volume_ml, 1e-6) / max(before_ml, 1e-6)))
    left = seen.remains
    return {
        "stays": 0.0 if left is None else float(np.clip(1.0 - left.lost, 0.0, 1.0)),
        "pattern": 0.0 if left is None else float(np.clip(left.pattern, 0.0, 1.0)),
        "likeness": seen.likeness if seen.decisive else 0.0,
        "agreement": seen.agreement,
        "kept_size": float(np.exp(-((growth / np.log(3)) ** 2))),
        "near": float(np.exp(-((off_mm / (diameter_mm / 2 + 3.0)) ** 2))),
        "as_seen": _dice(outline, join(seen.parts)) if seen.parts else 0.0,
        "alone": 0.0 if seen.settled is None else seen.settled.sureness,
        "contrast": float(np.clip(seen.stands_out / 6.0, 0.0, 1.0)),
        "large": float(1 - np.exp(-item.mask.voxels / 150)),
    }


def gone_evidence(sighting: Sighting) -> dict[str, float]:
    """What speaks for a lesion being gone, each from 0 to 1."""
    return {
        "agreement": sighting.agreement,
        "contrast": float(np.clip(sighting.stands_out / 6.0, 0.0, 1.0)),
        "faded": 1.0 - sighting.likeness,
    }


def _probability(weights: dict[str, float], evidence: dict[str, float]) -> float:
    score = weights["begin"] + sum(weights[name] * value for name, value in evidence.items())
    return float(1 / (1 + np.exp(-score)))


def _dice(one: Mask, other: Mask) -> float:
    voxels_ml = one.volume_ml + other.volume_ml
    if voxels_ml <= 0:
        return 0.0
    return 2 * other.placed(one.geometry).overlap(one) * one.geometry.voxel_ml / voxels_ml

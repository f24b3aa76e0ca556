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
    "begin": -1.81, "stays": 1.02, "pattern": 1.14, "likeness": 0.96, "agreement": 0.0, "kept_size": 0.0, "near": 0.30,
    "as_seen": 0.43, "alone": 1.14, "contrast": 0.28, "large": 0.95,
}  # fmt: skip
# On other pairs and chains, for lesions that were outlined all the same (docs/decisions/0034-gone-though-outlined.md).
_GONE = {"begin": -0.28, "lost": 1.46, "pattern": -1.85, "changed": 0.86, "stands_out": -1.01, "likeness": -0.97}


def found_confidence(item: Carried, outline: Mask) -> float:
    """How likely it is that this outline is the lesion."""
    return _probability(_FOUND, found_evidence(item, outline))


def gone_confidence(sighting: Sighting, outline: Mask | None = None, followup: Volume | None = None) -> float | None:
    """How likely it is that a lesion is gone; None where nothing tells.

    Args:
        sighting: What was seen at its place.
        outline: What was outlined there all the same, on the follow-up's grid or a part of it.
        followup: The scan it was outlined in.
    """
    if sighting.remains is None or sighting.contrast == 0:
        return None
    spreads = 0.0
    if outline is not None and followup is not None:
        look = look_of(followup, outline)
        spreads = float(np.sign(sighting.contrast)) * look.contrast / max(look.around_spread, 1e-6)
    seen = {"stands_out": float(np.log1p(np.clip(spreads, 0.0, 50.0))), "likeness": sighting.likeness}
    return _probability(_GONE, {**asdict(sighting.remains), **seen})


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


def _probability(weights: dict[str, float], evidence: dict[str, float]) -> float:
    score = weights["begin"] + sum(weights[name] * value for name, value in evidence.items())
    return float(1 / (1 + np.exp(-score)))


def _dice(one: Mask, other: Mask) -> float:
    voxels_ml = one.volume_ml + other.volume_ml
    if voxels_ml <= 0:
        return 0.0
    return 2 * other.placed(one.geometry).overlap(one) * one.geometry.voxel_ml / voxels_ml

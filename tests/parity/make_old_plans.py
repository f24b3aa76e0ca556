"""What nnU-Net's own resampling makes of made-up scans under the older plans (spline order 3, thick slices apart).

Writes old_plans.npz beside this file. Needs `nnunetv2` and `batchgenerators==0.25.1`, the one of the released program's
days (later ones settle a voxel that is half one label otherwise); the tests need neither.
"""
from pathlib import Path
import numpy as np

CASES = {"thin": ((14, 30, 26), (1.6, 0.9, 1.1)), "thick": ((9, 30, 26), (5.0, 0.7, 0.9))}
"""Name -> shape and spacing (mm) along d, h, w. The plans' spacing is 1.0 x 0.8 x 0.8 mm."""
SPACING_MM = (1.0, 0.8, 0.8)
KEYS = {"data": (False, 3), "seg": (True, 1), "logits": (False, 1)}


def made_up(name):
    """Scan (HU, a frame of one voxel of zeros), label map, both of a case; every slice has its own range of values."""
    shape, _ = CASES[name]
    random = np.random.RandomState(len(name))
    scan = random.normal(0, 60, shape) + 400 * random.normal(0, 1, (shape[0], 1, 1))
    scan = np.where(np.abs(scan) < 1, 5, scan).round().astype(np.int16)
    frame = np.ones(shape, bool)
    frame[1:-1, 1:-1, 1:-1] = False
    scan[frame] = 0
    labels = np.zeros(shape, np.int16)
    labels[2:6, 4:15, 5:13], labels[3:7, 15:21, 10:22] = 1, 2
    labels[:, :, -3:][frame[:, :, -3:]] = 0
    return scan, labels


def logits_of(shape):
    random = np.random.RandomState(7)
    return random.normal(0, 1, (2, *shape)).astype(np.float32)


def normalised(scan, plans):
    low, high, mean, deviation = plans
    return ((np.clip(scan.astype(np.float32), low, high) - np.float32(mean)) / np.float32(deviation)).astype(np.float32)


def resampled(data, shape, old, new, kind):
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    is_seg, order = KEYS[kind]
    return resample_data_or_seg_to_shape(data, shape, old, new, is_seg=is_seg, order=order, order_z=0, force_separate_z=None)


def main():
    import json

    here = Path(__file__).parent
    said = json.loads((here / "plans.json").read_text())["foreground_intensity_properties_per_channel"]["0"]
    plans = [float(said[key]) for key in ("percentile_00_5", "percentile_99_5", "mean", "std")]
    out = {}
    for name, (shape, spacing) in CASES.items():
        scan, labels = (array[1:-1, 1:-1, 1:-1] for array in made_up(name))
        size = [int(round(a / b * n)) for a, b, n in zip(spacing, SPACING_MM, scan.shape)]
        out[f"{name}/scan"] = resampled(normalised(scan, plans)[None], size, spacing, SPACING_MM, "data")[0]
        out[f"{name}/labels"] = resampled(labels[None], size, spacing, SPACING_MM, "seg")[0].astype(np.uint8)
        logits = resampled(logits_of(size), scan.shape, SPACING_MM, spacing, "logits")
        out[f"{name}/outline"] = logits[1] > logits[0]
    np.savez_compressed(here / "old_plans.npz", **out)


if __name__ == "__main__":
    main()

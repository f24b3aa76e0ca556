"""Every mask of the parity set beside the released program's: Dice, voxels that differ, whether a rerun is equal."""

import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import parity_cases as parity  # noqa: E402

SEGMENTED = [f"seg_{kind}{source}_notta" for kind in ("box", "point") for source in ("mask", "json")] + [
    "seg_boxmask_tta",
    "seg_pointmask_tta",
]
FOLLOWED = ["track_same", "track_zshift", "track_auto"]


def network_errors():
    """Largest relative error of the logits and of the registration's map."""
    image = np.random.RandomState(0).standard_normal((1, 2, 48, 64, 64)).astype(np.float32)
    unet, registration = parity.ensemble("track").network(0)
    pair = [
        torch.nn.functional.interpolate(
            torch.from_numpy(np.clip(parity.scan(name).array.astype(np.float32), -1000, 1000) / 1000)[None, None],
            (175, 175, 175),
            mode="trilinear",
            align_corners=False,
        )
        for name in ("bl", "fu")
    ]
    with torch.inference_mode(), np.load(parity.FOLDER / "unet.npz") as logits:
        found, expected = unet(torch.from_numpy(image))[0].numpy(), logits["logits"]
        yield "U-Net logits", np.abs(found - expected).max() / np.abs(expected).max()
    with torch.inference_mode(), np.load(parity.FOLDER / "registration.npz") as stored:
        found = registration(*pair).on_grid((175, 175, 175))[0].numpy()[:, ::5, ::5, ::5]
        yield "registration map", np.abs(found - stored["phi_AB"]).max() / np.abs(stored["phi_AB"]).max()


def main():
    lines = ["# Parity with the released program", "", __doc__, "", "| network | largest relative error |", "|---|---|"]
    good = True
    for name, error in network_errors():
        good &= bool(error <= 1e-4)
        lines.append(f"| {name} | {error:.1e} |")
    lines += ["", "| mask | released voxels | Dice | voxels that differ | rerun |", "|---|---|---|---|---|"]
    for case in SEGMENTED + FOLLOWED:
        work = parity.followed if case in FOLLOWED else parity.outlines
        started = time.perf_counter()
        found, again = work(case), work(case)
        print(f"{case}: {(time.perf_counter() - started) / 2:.1f} s", flush=True)
        for key, mask in found.items():
            dice, differing = parity.agreement(key, mask)
            same = np.array_equal(mask, again[key])
            good &= parity.agrees(key, mask) and same
            told = f"{parity.released(key).sum()} | {dice:.4f} | {differing} | {'equal' if same else 'NOT EQUAL'}"
            lines.append(f"| {key} | {told} |")
    page = ROOT / "docs" / "evidence" / "parity.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join([*lines, ""]), encoding="utf-8")
    print("every mask agrees" if good else "NOT every mask agrees")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""Real follow-up pairs: glioblastomas with all tracking baselines; elsewhere, how well bodies are brought together."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from provenance import ROOT, header, write

from lesionlocator.align import ALIGNERS
from lesionlocator.formats import read_label_map, read_volume
from lesionlocator.volume import Mask

DATA = ROOT.parent / "shared" / "data"
COMMAND = "from lesionlocator.cli import main; main()"
COPIES = ("header", "centre", "affine", "deformable")
SHOWN = ("dice", "nsd", "centre_error_mm", "cpm_10", "cpm_25", "detected")


def main():
    if not (DATA / "glioblastoma_pairs").is_dir():
        raise SystemExit(f"no follow-up pairs in {DATA.name}: see the protocol's citation for where to get them")
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "tracking"
        command = [sys.executable, "-c", COMMAND, "evaluate", "tracking", "--out", str(out), "--data", str(DATA)]
        subprocess.run(command, check=True, capture_output=True)
        results = json.loads((out / "results.json").read_text())
    ms = [ms_pair(folder) for folder in sorted((DATA / "ms_pairs").iterdir())]
    abdomen = [overlap_of_bodies(contrast) for contrast in ("T2", "ADC")]
    write("tracking_baselines", page(results, ms, abdomen))


def ms_pair(folder):
    """(patient, {aligner: (mean mm, 95th percentile mm, seconds)}): distance from where the given transforms lead."""
    first, second = (read_volume(folder / f"study{n}_FLAIR.nii.gz", "MR") for n in (1, 2))
    to_common = [sitk.ReadTransform(str(folder / f"study{n}_FLAIR_to_common_space.txt")) for n in (1, 2)]
    brain = read_label_map(folder / "brainmask.nii.gz")
    at_mm = Mask.from_array(brain.values, brain.geometry).points_mm
    at_mm = at_mm[np.random.default_rng(1).choice(len(at_mm), 4000, replace=False)]
    here, there = (through(transform, at_mm) for transform in to_common)
    found = {}
    for name in COPIES:
        started = time.perf_counter()
        alignment = ALIGNERS[name](first, second)
        away_mm = np.linalg.norm(alignment.forward(here) - there, axis=1)
        found[name] = float(away_mm.mean()), float(np.percentile(away_mm, 95)), time.perf_counter() - started
    return folder.name, found


def through(transform, at_mm):
    """Points of the common space in a study: a transform that resamples maps from the grid it makes to the image."""
    return np.array([transform.TransformPoint(point) for point in at_mm.tolist()])


def overlap_of_bodies(contrast):
    """(contrast, {aligner: Dice of the bodies in the part that both scans show})."""
    first, second = (
        read_volume(DATA / "abdomen_mr_pair" / f"{visit}_{contrast}.nii.gz", "MR") for visit in ("baseline", "followup")
    )
    bodies = [Mask.from_array(body(volume), volume.geometry) for volume in (first, second)]
    found = {}
    for name in COPIES:
        alignment = ALIGNERS[name](first, second)
        carried = bodies[0].warped(second.geometry, alignment).on(second.geometry)
        index = np.indices(second.geometry.shape).reshape(3, -1).T.astype(float)
        at_mm = alignment.backward(second.geometry.index_to_world(index))
        shown = first.geometry.contains(at_mm).reshape(second.geometry.shape)
        other = bodies[1].on(second.geometry) & shown
        found[name] = 2 * np.count_nonzero(carried & other) / (np.count_nonzero(carried) + np.count_nonzero(other))
    return contrast, found


def body(volume):
    from skimage.filters import threshold_otsu

    values = np.asarray(volume.array, float)
    return values > 0.5 * threshold_otsu(values[values > 0])


def page(results, ms, abdomen):
    text = header("Real follow-up pairs", "python evidence/tracking_baselines.py")
    text += f"""
## Four glioblastomas, two dates each

`lesionlocator evaluate tracking`, {results["seconds"]:.0f} s. Copies carry the true outline of the baseline over and
do not outline it again; `halfway` grows it by four voxels in its slices and cuts halfway between the mean inside and
around it. `track:` is `lesionlocator track`, from the true outline or the tight box at baseline; `verified` adds a
click of a reader at the deepest voxel in the follow-up. `whole-field` is the published tracker's rule with our
deformation and default segmenter: both scans squeezed to 175 voxels a side (the deformation searched on 88), the header
unused, the outline warped, what arrives outlined. Dice of each patient, then means. The spacing of these files
is a guess, so millimetres are too. Four patients: an impression, no ranking. `zoom` learned from these patients as
well, so its rows are no promise for others, except where a lesion is outlined by its own brightness, in which no
network has a say ([decision 0032](../decisions/0032-outlined-as-before.md), whose rule was found on these four).

| From | Method | {" | ".join(patients(results))} | {" | ".join(SHOWN)} |
|---|---|{"---|" * (len(patients(results)) + len(SHOWN))}
"""
    means = {(e["prompt"], e["method"], e["score"]): e["over_lesions"] for e in results["summary"] if e["by"] == "all"}
    rows = {(row["prompt"], row["method"], row["patient"]): row for row in results["rows"]}
    for prompt, method in dict.fromkeys((row["prompt"], row["method"]) for row in results["rows"]):
        dice = [f"{rows[prompt, method, patient]['dice']:.2f}" for patient in patients(results)]
        scores = [f"{means[prompt, method, score]:.2f}" for score in SHOWN]
        text += f"| {prompt} | {method} | {' | '.join([*dice, *scores])} |\n"
    text += "\n| From | Method | Event | Right / said / true | Names changed |\n|---|---|---|---|---|\n"
    for one in results["events"]:
        changed = f"{one['identity_switches']} of {one['steps']}"
        for event, score in one["events"].items():
            counts = f"{score['right']} / {score['said']} / {score['true']}"
            text += f"| {one['prompt']} | {one['method']} | {event} | {counts} | {changed} |\n"
    text += """
## Two patients with multiple sclerosis

Where 4,000 points of the brain go, against the transforms given with the data: mean (95th percentile) in mm, and
seconds.

"""
    text += f"| Patient | {' | '.join(COPIES)} |\n|---|{'---|' * len(COPIES)}\n"
    for name, found in ms:
        cells = [f"{mean:.1f} ({most:.1f}), {seconds:.0f} s" for mean, most, seconds in found.values()]
        text += f"| {name} | {' | '.join(cells)} |\n"
    text += "\n## One abdomen, 126 days apart\n\nDice of the bodies in the part that both scans show.\n\n"
    text += f"| Contrast | {' | '.join(COPIES)} |\n|---|{'---|' * len(COPIES)}\n"
    for name, found in abdomen:
        text += f"| {name} | {' | '.join(f'{dice:.3f}' for dice in found.values())} |\n"
    sources = " ".join(f"{one['citation']} {one['licence']}." for one in results["data"])
    return text + (
        f"\n{sources} Lesjak et al. 2016, open_ms_data, CC BY. Cancer Moonshot Biobank CMB-CRC, doi:10.7937/DJG7-GZ87, "
        "CC BY 4.0.\n"
    )


def patients(results):
    return list(dict.fromkeys(row["patient"] for row in results["rows"]))


if __name__ == "__main__":
    main()

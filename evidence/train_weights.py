"""Makes the shipped weights again, and measures them: `python evidence/train_weights.py train OUT`, then `measure OUT`.

One base network that sees no real tumour; from it three networks, each without a third of the patients, and one with
all of them, which is the one that ships. An hour on two cores; it goes on where it stopped. Not part of
`make evidence`, which takes no hours.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from provenance import ROOT, header, write

from lesionlocator.evaluate.data import find_data
from lesionlocator.evaluate.prompting import Recipe as PromptRecipe
from lesionlocator.evaluate.protocol import read_protocol
from lesionlocator.formats import read_label_map, read_volume
from lesionlocator.segment import load_segmenter

DATA = ROOT.parent / "shared" / "data"
FAST = {"batch": 8, "precision": "bf16", "reuse": 3, "corrected": 0.15}
BASE = {**FAST, "steps": 3000, "save_every": 250}
TUNED = {**FAST, "steps": 150, "save_every": 150, "rate": 5e-4, "ramp": 0.0}
METHODS = ("ellipsoid", "intensity", "zero-shot", "cross-validated")
PROMPTS = ("box", "moved-box:0.1", "deepest-click", "inner-click")
SEED = 20261123


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


def backgrounds(organs=30):
    """Scans without tumours only: what is painted in. Organs of the first planning CT scans are targets as well."""
    from lesionlocator.synth.scene import Backgrounds
    from lesionlocator.train.sources import as_background

    found = []
    for outlined in sorted((DATA / "headneck").glob("*_organs.nii.gz"))[:organs]:
        scan = outlined.with_name(outlined.name.replace("_organs", "_ct"))
        found.append(as_background(read_volume(scan, "CT"), read_label_map(outlined).values))
    abdomen = sorted((DATA / "liver_ct").glob("*.nii.gz"))
    more = [DATA / "trunk_ct" / "ct.nii.gz", *abdomen, *abdomen, DATA / "petct_wholebody" / "ct.nii.gz"]
    found += [as_background(read_volume(path, "CT")) for path in more]
    found.append(as_background(read_volume(DATA / "petct_wholebody" / "pet_suv.nii.gz", "PT")))
    others = [*(DATA / "ms_pairs").glob("*/study*_FLAIR.nii.gz"), *(DATA / "abdomen_mr_pair").glob("*.nii.gz")]
    found += [as_background(read_volume(path, "MR")) for path in sorted(others, reverse=True)]
    return Backgrounds.gather(found)


def cases():
    """All outlined lesions but those of the public archive, which no network ever sees."""
    found = find_data(read_protocol("zero-shot"), DATA, public=lambda: Path("not-fetched"))
    return [case for case in found.cases if case.files.data != "public" and case.root == DATA]


def lesions():
    from lesionlocator.train.sources import Outlined

    return [
        Outlined(visit.scan, mask, f"{case.files.kind} {case.files.modality}", case.files.patient)
        for case in cases()
        for visit in case.load()
        for mask in visit.lesions.values()
    ]


def folds():
    """Patient -> fold, the patients of every kind spread over the three."""
    order = []
    for kind in sorted({case.files.kind for case in cases()}):
        own = sorted({case.files.patient for case in cases() if case.files.kind == kind})
        order += [patient for patient in own if patient not in order]
    return {patient: place % 3 for place, patient in enumerate(order)}


def train_all(out):
    from lesionlocator.network.promptable import PromptablePlan
    from lesionlocator.train.data import Mixed
    from lesionlocator.train.loop import Recipe, load_averaged, train
    from lesionlocator.train.settings import TrainSettings
    from lesionlocator.train.sources import Painted, Real
    from lesionlocator.train.watch import painted_samples, real_samples

    scans, outlined, fold = backgrounds(), lesions(), folds()
    settings = TrainSettings(out=out / "base", threads=2, accelerator="cpu")
    shown = {name: samples[:6] for name, samples in real_samples(outlined).items()}
    recipe = Recipe(Painted(scans), watched=lambda: {**painted_samples(scans, 5), **shown})
    base = train(recipe, replace(settings, **BASE), PromptablePlan(), say)
    keep(base, out / "models" / "base", "base")
    for left_out in (None, 0, 1, 2):
        own = [lesion for lesion in outlined if left_out is None or fold[lesion.patient] != left_out]
        name = "all" if left_out is None else f"fold{left_out}"
        recipe = Recipe(Mixed([(0.5, Painted(scans)), (0.5, Real(own))]))
        tuned = train(recipe, replace(settings, out=out / name, **TUNED), load_averaged(base), say)
        keep(tuned, out / "models" / name, name)


def keep(checkpoint, folder, name):
    from lesionlocator.train.export import write_model
    from lesionlocator.train.loop import load_averaged
    from lesionlocator.weights import MODELS, ModelCard

    card = ModelCard(
        id=name,
        kind="learned",
        title="made by evidence/train_weights.py",
        licence="Apache-2.0",
        intended_use="Research.",
        limits="Not a medical device.",
        settings=MODELS["zoom"].settings,
    )
    write_model(load_averaged(checkpoint), card, folder)


def measure(out):
    """Every lesion by every method: rows of Dice and confidence, kept in `rows.json`, and the page."""
    models = out / "models"
    fold = folds()
    plain = {name: load_segmenter(name) for name in ("ellipsoid", "intensity")}
    trained = {name: load_segmenter(str(models / name)) for name in ("base", "fold0", "fold1", "fold2")}
    rows = []
    for case in cases():
        methods = {**plain, "zero-shot": trained["base"], "cross-validated": trained[f"fold{fold[case.files.patient]}"]}
        for number, visit in enumerate(case.load()):
            for lesion, truth in visit.lesions.items():
                for prompt in PROMPTS:
                    ask = PromptRecipe.parse(prompt).make(truth, seed=SEED, name=f"{case.files.name} {number} {lesion}")
                    for method, segmenter in methods.items():
                        rows.append(row(case, truth, prompt, ask, method, segmenter, visit.scan))
        say(case.files.name)
        (out / "rows.json").write_text(json.dumps(rows, indent=0))
    return rows


def row(case, truth, prompt, ask, method, segmenter, scan):  # noqa: PLR0913, PLR0917
    started = time.perf_counter()
    (outline,) = segmenter.outline(segmenter.prepare(scan), [ask])
    seconds = time.perf_counter() - started
    found = outline.mask
    dice = 0.0 if found is None else 2 * found.overlap(truth) / (found.voxels + truth.voxels)
    return {
        "case": case.files.name,
        "patient": case.files.patient,
        "kind": f"{case.files.kind} {case.files.modality}",
        "prompt": prompt,
        "method": method,
        "dice": dice,
        "confidence": outline.confidence,
        "seconds": seconds,
    }


def page(rows):
    text = header("Our own network, measured", "python evidence/train_weights.py measure OUT")
    text += """
Dice, mean over lesions; zero-shot is the base network, which saw no real tumour; cross-validated is the network of
the three that did not see this patient. Few of each kind: see how many.
"""
    for prompt in PROMPTS:
        text += f"\n## {prompt}\n\n| Kind | Lesions | Patients | {' | '.join(METHODS)} |\n|---|---|---|"
        text += "---|" * len(METHODS) + "\n"
        for kind in sorted({one["kind"] for one in rows}):
            own = [one for one in rows if one["kind"] == kind and one["prompt"] == prompt]
            means = [np.mean([one["dice"] for one in own if one["method"] == method]) for method in METHODS]
            patients, count = len({one["patient"] for one in own}), len(own) // len(METHODS)
            text += f"| {kind} | {count} | {patients} | {' | '.join(f'{mean:.3f}' for mean in means)} |\n"
    for method in METHODS[2:]:
        own = [one for one in rows if one["method"] == method]
        seconds = {p: np.median([one["seconds"] for one in own if one["prompt"] == p]) for p in PROMPTS}
        text += f"\nSeconds per outline, {method} (median, on a computer that did other work as well): "
        text += ", ".join(f"{p} {s:.2f}" for p, s in seconds.items()) + ".\n"
        own = [one for one in own if one["confidence"] is not None]
        if not own:
            text += "Confidence: none is given; the network's estimate of itself is worth nothing yet.\n"
            continue
        off = np.mean([abs(one["confidence"] - one["dice"]) for one in own])
        order = sorted(own, key=lambda one: one["confidence"])
        failed = sum(one["dice"] < 0.5 for one in own)
        caught = sum(one["dice"] < 0.5 for one in order[: len(order) // 10])
        text += f"Confidence, {method}: off by {off:.3f} on average over {len(own)} outlines; {failed} have a Dice "
        text += f"under 0.5, {caught} of them among the least confident tenth.\n"
    return text


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train_all(Path(sys.argv[2]))
    else:
        write("learned", page(measure(Path(sys.argv[2]))))

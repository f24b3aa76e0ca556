"""Makes the networks with memory, and measures them: `python evidence/train_tracker.py train OUT --base MODEL`.

MODEL is a segmenter (a model's name or folder, or a checkpoint) that saw no real tumour. One base network learns from
synthetic pairs only; from it four networks, each without one patient of the real pairs, and one with all, which is the
one that ships: `ship OUT --base FOLDER` adds it to a segmenter's folder. It goes on where it stopped; `--only` makes a
part, `--without` an ablation. `measure OUT` writes docs/evidence/tracker.md. Not part of `make evidence`, which takes
no hours.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from provenance import header, write
from train_weights import backgrounds, cases, folds

from lesionlocator.align import ALIGNERS, DEFAULT_ALIGNER, cached
from lesionlocator.case import Case, Lesion, Timepoint
from lesionlocator.geometry import AffineMap, Alignment
from lesionlocator.kept_maps import MapFolder
from lesionlocator.prompt import Box
from lesionlocator.resample import warp
from lesionlocator.segment import load_segmenter
from lesionlocator.track import Following, track_case
from lesionlocator.volume import Mask, Volume
from lesionlocator.weights import MODELS, ModelCard, find_model, read_card

PAIRED = "glioblastoma (enhancing rim)"
FAST = {"batch": 8, "precision": "bf16", "reuse": 4, "corrected": 0.0, "accelerator": "cpu", "threads": 2}
BASE = {**FAST, "rate": 1.5e-3, "ramp": 0.4}
TUNED = {**FAST, "rate": 5e-4, "ramp": 0.0}
CHECKPOINTS = 20
"""In each run, so that little is lost when it stops."""
WITHOUT = ("picture", "difference", "off-centre", "synthetic")
HELD_OUT = 2
"""The fold of `train_weights` whose patients no network with memory sees, but for those of the real pairs."""
TESTED, PAINTED_SEED, STORE_SEED = 60, 5_000_003, 5_000_011
SIZES = ((0, 15), (15, np.inf))


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


# ------------------------------------------------------------------------------------------------------------ training


def real_pairs():
    """Patient -> both directions in time, aligned once."""
    from lesionlocator.train.memory import PairRegion

    aligner = cached(ALIGNERS[DEFAULT_ALIGNER], MapFolder(ALIGNED), DEFAULT_ALIGNER)
    found = {}
    for case in cases():
        if case.files.kind != PAIRED or len(case.files.visits) < 2:
            continue
        first, second = case.load()
        alignment = aligner(first.scan, second.scan)
        found.setdefault(case.files.patient, [])
        for one, other, way in ((first, second, alignment), (second, first, alignment.inverse())):
            grid = other.scan.geometry
            before = warp(one.scan, grid, way.backward, outside=float("nan"))
            for name, mask in one.lesions.items():
                truth = other.lesions.get(name, Mask.empty(grid)).on(grid)
                outline = mask.warped(grid, way).on(grid)
                found[case.files.patient].append(PairRegion(other.scan, before, outline, truth, "real pair"))
    return found


def single_lesions(held_out):
    """Outlined lesions without a second visit, of patients that are held out or of the others."""
    from lesionlocator.train.sources import Outlined

    fold = folds()
    return [
        Outlined(visit.scan, mask, f"{case.files.kind} {case.files.modality}", case.files.patient)
        for case in cases()
        if case.files.kind != PAIRED and (fold[case.files.patient] == HELD_OUT) == held_out
        for visit in case.load()
        for mask in visit.lesions.values()
    ]


def changed_lesions(out, held_out, count):
    """Files of pairs that changes of outlined lesions make; made once."""
    from lesionlocator.train.pair_store import make_store, real_visit
    from lesionlocator.train.sources import Real

    kept = []

    def draw(rng):
        # Read when the first pair has to be made.
        kept[:] = kept or [Real(single_lesions(held_out))]
        lesion = kept[0].choose(rng)
        return real_visit(lesion), lesion.kind

    name = "tested" if held_out else "learned"
    return make_store(out / "pairs" / name, "changed", count, draw, STORE_SEED + held_out)


def train_all(out, chosen):
    from lesionlocator.train.loop import load_averaged

    real = real_pairs()
    stored = changed_lesions(out, held_out=False, count=chosen.sources)
    painted = learned_backgrounds(held_out=False)
    start = first_network(chosen.base, chosen.without)
    name = "base" if not chosen.without else f"without-{chosen.without}"
    steps = 0 if chosen.without == "synthetic" else chosen.steps
    base = start
    if steps:
        base = load_averaged(
            learn(out / "runs" / name, recipe(painted, stored, [], chosen.without), BASE, steps, start)
        )
        keep(base, out, name, chosen)
    for left_out in (*real, None):
        own = "all" if left_out is None else f"fold-{left_out}"
        own = f"without-{chosen.without}-{own}" if chosen.without else own
        if chosen.only and chosen.only not in own:
            continue
        pairs = [pair for patient, pairs in real.items() if patient != left_out for pair in pairs]
        tuned = recipe(painted, stored, pairs, chosen.without)
        checkpoint = learn(out / "runs" / own, tuned, TUNED, chosen.tuned, base)
        keep(load_averaged(checkpoint), out, own, chosen)


def learned_backgrounds(held_out):
    """Of the scans without tumours, every fifth is kept apart."""
    from lesionlocator.synth.scene import Backgrounds

    every = backgrounds().items
    return Backgrounds(tuple(item for place, item in enumerate(every) if (place % 5 == 4) == held_out))


def recipe(painted, stored, pairs, without):
    from lesionlocator.train.loop import Recipe
    from lesionlocator.train.memory import (
        InMemory,
        MemorySettings,
        MixedPairs,
        PaintedPairs,
        draw_memory_sample,
        memory_loss,
    )
    from lesionlocator.train.pair_store import Stored

    sources = [(0.65, PaintedPairs(painted)), (0.35, Stored(stored))]
    if pairs:
        sources = [(0.4, PaintedPairs(painted)), (0.2, Stored(stored)), (0.4, InMemory(pairs))]
    if without == "synthetic":
        sources = sources[2:]
    settings = MemorySettings(off_voxels=(0.0, 0.0)) if without == "off-centre" else MemorySettings()
    return Recipe(MixedPairs(sources), settings, draw=draw_memory_sample, loss=memory_loss)


def learn(folder, lesson, measures, steps, start):
    from lesionlocator.train.loop import train
    from lesionlocator.train.settings import TrainSettings

    say(f"{folder.name}: {steps} steps")
    measures = {**measures, "steps": steps, "save_every": max(1, steps // CHECKPOINTS)}
    return train(lesson, replace(TrainSettings(out=folder), **measures), start, say)


def first_network(base, without):
    """The segmenter's weights, with a memory that changes nothing yet."""
    from lesionlocator.network.remembering import Remembering
    from lesionlocator.network.running import load_network
    from lesionlocator.train.loop import load_averaged

    path = Path(base)
    segmenter = (
        load_averaged(path) if path.suffix == ".pt" else load_network(model_folder(base) / "network.safetensors")
    )
    fused = "concatenation" if without == "difference" else "difference"
    return Remembering.starting_from(segmenter, fused, without != "picture")


def ship(out, folder):
    """The network that saw all, added to a segmenter's folder."""
    from lesionlocator.train.export import add_memory
    from lesionlocator.train.loop import CHECKPOINT, load_averaged

    add_memory(load_averaged(out / "runs" / "all" / CHECKPOINT), folder)


def model_folder(base):
    from lesionlocator.weights import embedded_folder

    card, folder = find_model(base)
    return folder or embedded_folder(card.id)


def keep(network, out, name, chosen):
    """A model folder: the segmenter that it started from, and the network with memory beside it."""
    from lesionlocator.train.export import add_memory, write_model
    from lesionlocator.train.loop import load_averaged

    folder = out / "models" / name
    shutil.rmtree(folder, ignore_errors=True)
    path = Path(chosen.base)
    if path.suffix == ".pt":
        settings = {**MODELS["zoom"].settings}
        card = ModelCard("segmenter", "learned", "t", "Apache-2.0", "Research.", "Not a device.", settings=settings)
        write_model(load_averaged(path), card, folder)
    else:
        shutil.copytree(model_folder(chosen.base), folder)
    card = read_card(folder)
    (folder / "model.json").write_text(json.dumps(replace(card, id=name).to_json(), indent=1) + "\n")
    add_memory(network, folder)
    say(f"written: {folder}")


# ----------------------------------------------------------------------------------------------------------- measuring


def measure(out):
    """Rows of every lesion and method, kept in `rows.json`."""
    rows = [*real_rows(out), *synthetic_rows(out)]
    (out / "rows.json").write_text(json.dumps(rows, indent=0))
    return rows


def real_rows(out):
    """The real pairs, by the network that did not see the patient, from the true outline and from its box."""
    aligner = cached(ALIGNERS[DEFAULT_ALIGNER], MapFolder(ALIGNED), DEFAULT_ALIGNER)
    rows = []
    for case in cases():
        if case.files.kind != PAIRED:
            continue
        patient = case.files.patient
        visits = case.load()
        settings = Following(align=aligner)
        methods = {
            "memory, synthetic only": load_segmenter(str(out / "models" / "base")),
            "intensity": load_segmenter("intensity"),
            "same segmenter, no memory": without_memory(out / "models" / "base"),
        }
        if (own := out / "models" / f"fold-{patient}").is_dir():
            methods["memory, other patients"] = load_segmenter(str(own))
        for folder in sorted((out / "models").glob(f"without-*fold-{patient}")):
            methods[folder.name.replace(f"-fold-{patient}", "")] = load_segmenter(str(folder))
        for prompt in ("outline", "box"):
            for method, segmenter in methods.items():
                tracked = followed(visits, segmenter, prompt, settings)
                for name, truth in visits[1].lesions.items():
                    dice, said = scored(tracked, name, truth)
                    rows.append({"set": "real", "patient": patient, "prompt": prompt, "method": method, **dice, **said})
                    say(f"{patient} {prompt} {method} {dice['dice']:.3f}")
    return rows


def without_memory(folder):
    from lesionlocator.segment.learned import Learned

    return Learned(read_card(folder), folder)


def synthetic_rows(out):
    """Pairs of patients and scans that no network with memory saw, carried over as far off as aligners are."""
    from lesionlocator.train.memory import PaintedPairs
    from lesionlocator.train.pair_store import Stored

    stored, painted = changed_lesions(out, True, 8), PaintedPairs(learned_backgrounds(held_out=True))
    sources = {"painted": painted, "changed": Stored(stored)}
    methods = {
        "memory": load_segmenter(str(out / "models" / "base")),
        "same segmenter, no memory": without_memory(out / "models" / "base"),
        "intensity": load_segmenter("intensity"),
    }
    for folder in sorted((out / "models").glob("without-*")):
        if "-fold-" not in folder.name and "-all" not in folder.name:
            methods[folder.name] = load_segmenter(str(folder))
    rows = []
    for place, (kind, source) in enumerate(sources.items()):
        for number in range(TESTED):
            rng = np.random.default_rng([PAINTED_SEED, place, number])
            pair = source(rng, 1.0)
            grid = pair.followup.geometry
            wrong = AffineMap.shift(grid.affine[:3, :3] @ rng.normal(0, rng.uniform(1.0, 4.0), 3))
            baseline = Volume(pair.before, grid, pair.followup.modality)
            truth = Mask.from_array(pair.truth, grid)
            visits = [(baseline, {"1": Mask.from_array(pair.outline, grid)}), (pair.followup, {"1": truth})]
            settings = Following(align=lambda one, other, wrong=wrong: Alignment.from_affine(wrong))
            for method, segmenter in methods.items():
                tracked = followed(visits, segmenter, "outline", settings)
                dice, said = scored(tracked, "1", truth)
                size = visits[0][1]["1"].equivalent_diameter_mm
                rows.append({"set": kind, "method": method, "number": number, "size": size, **dice, **said})
        say(f"{kind}: {TESTED} pairs")
    return rows


def followed(visits, segmenter, prompt, settings):
    """The tracked case from the true outlines or their tight boxes."""
    (baseline, lesions), (followup, _) = [
        (visit.scan, visit.lesions) if hasattr(visit, "scan") else visit for visit in visits
    ]
    asked = tuple(
        Lesion(name, (), mask) if prompt == "outline" else Lesion(name, (Box.around(mask),))
        for name, mask in lesions.items()
    )
    first = Timepoint("baseline", baseline.geometry, lambda: baseline, asked)
    second = Timepoint("followup", followup.geometry, lambda: followup)
    return track_case(Case((first, second)), segmenter, settings=settings)


def scored(case, name, truth):
    """Dice of all that the lesion became, and what was said of it."""
    from lesionlocator.evaluate.following import reached

    parts = [lesion.mask for lesion in reached(case, name, 1)]
    grid = case.timepoints[1].geometry
    found = np.zeros(grid.shape, bool)
    for mask in parts:
        found |= mask.on(grid)
    true = truth.on(grid) if not truth.is_empty else np.zeros(grid.shape, bool)
    total = int(found.sum() + true.sum())
    dice = 1.0 if total == 0 else 2 * int((found & true).sum()) / total
    away = None
    if found.any() and true.any():
        centres = [Mask.from_array(array, grid).centroid_mm for array in (found, true)]
        away = float(np.linalg.norm(centres[0] - centres[1]))
    link = next((link for link in case.links if link.before == (0, name)), None)
    said = {} if link is None else {"confidence": link.confidence, "reason": link.reason}
    there = {"present": bool(true.any()), "outlined": bool(found.any())}
    return {"dice": dice, "away_mm": away}, {**there, **said}


def page(rows):
    text = header("The network with memory, measured", "python evidence/train_tracker.py measure OUT")
    text += """
Everything goes through `lesionlocator track`.

## Real pairs: four glioblastomas

Dice at follow-up. `other patients`: fine-tuned on the pairs of the three other patients.

"""
    real = [row for row in rows if row["set"] == "real"]
    patients = sorted({row["patient"] for row in real})
    text += f"| From | Method | {' | '.join(patients)} | mean |\n|---|---|{'---|' * (len(patients) + 1)}\n"
    for prompt in ("outline", "box"):
        for method in dict.fromkeys(row["method"] for row in real):
            own = {row["patient"]: row["dice"] for row in real if (row["prompt"], row["method"]) == (prompt, method)}
            cells = [f"{own[patient]:.2f}" if patient in own else "-" for patient in patients]
            text += f"| {prompt} | {method} | {' | '.join(cells)} | {np.mean(list(own.values())):.3f} |\n"
    for kind, about in (
        ("painted", "Painted lesions in scans that no network with memory saw"),
        ("changed", "Outlined lesions of patients kept apart, changed by the synthesis"),
    ):
        own = [row for row in rows if row["set"] == kind]
        text += f"\n## {about}\n\n{synthetic_table(own)}"
    return text


def synthetic_table(rows):
    text = (
        "Carried over with an error of 1 to 4 voxels standard deviation along each axis. Detected: Dice above 0.3.\n\n"
    )
    text += "| Method | lesions there | detected | Dice under 15 mm | Dice from 15 mm | centre off, median mm |"
    text += " called gone | gone | of these outlined |\n|---|---|---|---|---|---|---|---|---|\n"
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        there, gone = [r for r in own if r["present"]], [r for r in own if not r["present"]]
        dice = []
        for low, high in SIZES:
            part = [row["dice"] for row in there if low <= row["size"] < high]
            dice.append(f"{np.mean(part):.3f} ({len(part)})" if part else "-")
        away = [row["away_mm"] for row in there if row["away_mm"] is not None]
        text += (
            f"| {method} | {len(there)} | {np.mean([row['dice'] > 0.3 for row in there]):.2f} | {' | '.join(dice)} |"
        )
        text += f" {np.median(away):.1f} | {np.mean([not row['outlined'] for row in there]):.2f} |"
        text += f" {len(gone)} | {np.mean([row['outlined'] for row in gone]):.2f} |\n" if gone else " 0 | - |\n"
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pairs", "train", "ship", "measure"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", default="zoom", help="the segmenter to start from: model, folder or checkpoint")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--tuned", type=int, default=120)
    parser.add_argument(
        "--sources", type=int, default=40, help="outlined lesions, with repeats, that pairs are made of"
    )
    parser.add_argument("--only", default="", help="of the fine-tunings, those with this in their name")
    parser.add_argument("--without", choices=WITHOUT, help="an ablation")
    given = parser.parse_args()
    ALIGNED = given.out / "maps"
    if given.what == "pairs":
        changed_lesions(given.out, held_out=False, count=given.sources)
        changed_lesions(given.out, held_out=True, count=8)
    elif given.what == "train":
        train_all(given.out, given)
    elif given.what == "ship":
        ship(given.out, model_folder(given.base))
    else:
        write("tracker", page(measure(given.out)))

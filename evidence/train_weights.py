"""Makes the shipped weights again: `python evidence/train_weights.py OUT`. evidence/learned.py measures them.

One base network that sees no real tumour; from it three networks, each without a third of the patients, and one with
all of them, which is the one that ships. Two hours on two cores; it goes on where it stopped. Not part of
`make evidence`, which takes no hours.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from provenance import ROOT

from lesionlocator.evaluate.data import find_data
from lesionlocator.evaluate.protocol import read_protocol
from lesionlocator.formats import read_label_map, read_volume

DATA = ROOT.parent / "shared" / "data"
FAST = {"batch": 8, "precision": "bf16", "reuse": 2, "corrected": 0.12}
BASE = {**FAST, "steps": 3600, "save_every": 300, "ramp": 0.3}
RIMS = {**FAST, "steps": 150, "save_every": 50, "ramp": 0.0, "rate": 2e-3, "seed": 5}
LONGER = {**FAST, "steps": 2400, "save_every": 200, "ramp": 0.0, "seed": 20261130}
TUNED = {**FAST, "steps": 150, "save_every": 50, "rate": 8e-4, "ramp": 0.0}
PAINTED = 0.4
RIMS_BESIDE = 0.15
ANSWERS = 1000


def say(text):
    print(time.strftime("%H:%M:%S"), text, flush=True)


def backgrounds(organs=40):
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
    from lesionlocator.synth.paint import RegionSettings
    from lesionlocator.train.data import Mixed
    from lesionlocator.train.loop import Recipe, load_averaged, train
    from lesionlocator.train.settings import TrainSettings
    from lesionlocator.train.sources import Painted, Real
    from lesionlocator.train.watch import painted_samples, real_samples

    scans, outlined, fold = backgrounds(), lesions(), folds()
    settings = TrainSettings(out=out / "base", threads=1, accelerator="cpu")
    shown = {name: samples[:6] for name, samples in real_samples(outlined).items()}
    painted = Recipe(Painted(scans), watched=lambda: {**painted_samples(scans, 12), **shown})
    first = train(painted, replace(settings, **BASE), PromptablePlan(), say)
    # A network fills every core at first, and unlearns it only where it sees little else for a while.
    rims = Painted(scans, RegionSettings(kind="ring", pet_share=0.0, mr_share=1.0))
    only_rims = replace(painted, source=rims)
    hollow = train(only_rims, replace(settings, out=out / "rims", **RIMS), load_averaged(first), say)
    painted = replace(painted, source=Mixed([(RIMS_BESIDE, rims), (1 - RIMS_BESIDE, painted.source)]))
    base = train(painted, replace(settings, out=out / "longer", **LONGER), load_averaged(hollow), say)
    keep(base, painted, out / "models" / "base")
    for left_out in (0, 1, 2, None):
        name = "all" if left_out is None else f"fold{left_out}"
        own = [lesion for lesion in outlined if left_out is None or fold[lesion.patient] != left_out]
        kept_apart = [lesion for lesion in outlined if lesion not in own]
        recipe = Recipe(
            Mixed([(PAINTED, Painted(scans)), (1 - PAINTED, Real(own))]),
            watched=partial(real_samples, kept_apart),
        )
        tuned = train(recipe, replace(settings, out=out / name, **TUNED), load_averaged(base), say)
        keep(tuned, recipe, out / "models" / name)


def keep(checkpoint, recipe, folder):
    """The averaged network with its confidence fitted, as a model folder; unless it is there already."""
    from lesionlocator.train.confidence import ConfidencePlan, fit_confidence
    from lesionlocator.train.export import write_model
    from lesionlocator.train.loop import load_averaged
    from lesionlocator.weights import MODELS, ModelCard

    if (folder / "model.json").is_file():
        return
    network = load_averaged(checkpoint)
    off = fit_confidence(network, recipe, ConfidencePlan(ANSWERS))
    say(f"{folder.name}: confidence off by {off:.3f} on what it was not fitted on")
    card = ModelCard(
        id=folder.name,
        kind="learned",
        title="made by evidence/train_weights.py",
        licence="Apache-2.0",
        intended_use="Research.",
        limits="Not a medical device.",
        settings=MODELS["zoom"].settings,
    )
    write_model(network, card, folder)


if __name__ == "__main__":
    train_all(Path(sys.argv[1]))

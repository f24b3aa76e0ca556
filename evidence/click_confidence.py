"""Fits how sure an outline from one click is: `python evidence/click_confidence.py OUT`, after train_weights.py OUT.

The settings are written into the cards of OUT/models. Each fold's are fitted on clicks in lesions of the other folds'
patients, answered by networks that had not seen these, and on painted lesions; `base`'s on painted lesions alone. Not
part of `make evidence`: without OUT there is nothing to fit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from train_weights import DATA, folds, lesions, read_volume, say

from lesionlocator.prompt import Click
from lesionlocator.segment import load_segmenter
from lesionlocator.segment.grow import read_extents
from lesionlocator.segment.learned import upright
from lesionlocator.segment.looks import SURE, Chosen
from lesionlocator.synth.lesion.appear import Appear
from lesionlocator.synth.visit import Visit

RANDOM, PAINTED, SEED = 3, 2, 20261201
RIDGE = 0.3
PLAIN = {
    "headneck/*_ct": "CT",
    "trunk_ct/ct": "CT",
    "liver_ct/*": "CT",
    "petct_wholebody/ct": "CT",
    "petct_wholebody/pet_suv": "PT",
    "ms_pairs/*/study*_FLAIR": "MR",
    "abdomen_mr_pair/*": "MR",
}


def main(out):
    fold, rows = folds(), []
    networks = {name: load_segmenter(str(out / "models" / name)) for name in ("base", "fold0", "fold1", "fold2")}
    for number, lesion in enumerate(lesions()):
        left_out = fold[lesion.patient]
        asked = answers(networks[f"fold{left_out}"], lesion.scan, lesion.mask, number)
        rows += [(left_out, *answer) for answer in asked]
    say(f"{len(rows)} clicks on real lesions")
    for number, (scan, mask) in enumerate(painted()):
        rows += [(-1, *answer) for answer in answers(networks["base"], scan, mask, number, 1)]
    say(f"{len(rows)} with painted ones")
    of, facts, dice = (np.array(column) for column in zip(*rows, strict=True))
    guessed = np.zeros(len(rows))
    every = np.ones(len(rows), bool)
    used = {"base": of < 0, **{f"fold{fold}": of != fold for fold in range(3)}, "all": every}
    for name, rows_used in used.items():
        weights = fitted(facts[rows_used], dice[rows_used])
        keep(out / "models" / name, weights)
        if name.startswith("fold"):
            guessed[~rows_used] = expit(facts[~rows_used] @ weights)
        say(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in zip(SURE, weights, strict=True)))
    real = of >= 0
    for name, sure in (("the network alone", facts[:, 1]), ("fitted, other folds", guessed)):
        say(f"{name}: {failures(sure[real], dice[real])}")


def answers(segmenter, scan, mask, seed, random=RANDOM):
    """[facts, Dice] of one click at the deepest point and of some at random inside."""
    rng, inside = np.random.default_rng([SEED, seed]), np.argwhere(mask.array).astype(float)
    places = [mask.deepest_mm, *mask.geometry.index_to_world(inside[rng.integers(len(inside), size=random)])]
    found = []
    for at in places:
        click, volume = Click(at), upright(scan)
        (extent,) = read_extents(volume, (click,))
        chosen = Chosen.among(segmenter.ends(volume, (click,), extent.box))
        if chosen is not None:
            seen = chosen.end.look
            found.append((chosen.facts, seen.view.to_mask(seen.belief).placed(scan.geometry).dice(mask)))
    return found


def painted():
    """Lesions drawn by the synthesis on scans without tumours."""
    paths = [(path, of) for one, of in PLAIN.items() for path in sorted(DATA.glob(f"{one}.nii.gz"))[-12:]]
    for number, (path, modality) in enumerate(paths):
        visit, rng = Visit.of(read_volume(path, modality), {}, {}), np.random.default_rng([SEED, number, 1])
        for _ in range(PAINTED):
            drawn = Appear.draw(rng, visit)
            if drawn is not None:
                known, visit = set(visit.lesions), drawn.apply(visit).visit
                (name,) = set(visit.lesions) - known
                yield visit.volume, visit.lesions[name]


def fitted(facts, dice):
    """Weights of a logistic function whose distance from the Dice is least in the mean."""

    def off(weights):
        distance = expit(facts @ weights) - dice
        return np.sqrt(distance**2 + 1e-3).sum() + RIDGE * (weights[1:] ** 2).sum()

    return minimize(off, np.zeros(facts.shape[1])).x


def keep(folder, weights):
    at = folder / "model.json"
    card = json.loads(at.read_text())
    card["settings"] |= {name: round(float(value), 4) for name, value in zip(SURE, weights, strict=True)}
    at.write_text(json.dumps(card, indent=1) + "\n")


def failures(sure, dice):
    least = np.argsort(sure)[: len(sure) // 10]
    off, failed = np.abs(sure - dice).mean(), dice < 0.5
    return f"off by {off:.3f}; {failed[least].sum()} of {failed.sum()} failures in the least confident tenth"


if __name__ == "__main__":
    main(Path(sys.argv[1]))

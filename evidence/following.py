"""Following on synthetic follow-ups: what is found, what is said to have happened, and what the confidence is worth.

`python evidence/following.py [pairs] [chains] [folder]`; with a folder, a set that was made there is used again, and
so are its alignments. The weights of `follow/confidence.py` are those that the last lines of the page give.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import identity
import numpy as np
from provenance import header, write
from scipy.optimize import minimize
from synthetic_tracking import DATA, chosen

from lesionlocator import track
from lesionlocator.case import Case, Lesion, Status
from lesionlocator.dataset.make import run_synthesize
from lesionlocator.dataset.reading import read_item
from lesionlocator.dataset.recipe import read_recipe, write_recipe
from lesionlocator.dataset.settings import SynthesizeSettings
from lesionlocator.evaluate.checks import Answered, detection_by_checks
from lesionlocator.evaluate.following import compare, identity_switches, told
from lesionlocator.follow.confidence import found_evidence
from lesionlocator.geometry import AffineMap, Alignment
from lesionlocator.kept_maps import MapFolder
from lesionlocator.score.events import score_events
from lesionlocator.segment import load_segmenter
from lesionlocator.track import Following, track_case

PAIRS, CHAINS, SEED, MODEL = 24, 6, 4, "zoom"
UNTOUCHED = {}
"""Name of a made item -> which of its visits is the scan as it was."""
# The rules of following were found on items of another seed (docs/decisions/0033-once-more-as-one.md).
LARGE_ML = np.pi / 6 * 1.5**3
"""The ball of 15 mm."""
PHANTOMS = [(12, off, hu) for off in (4.0, 8.0) for hu in (60.0, -60.0)]
FOUND = ("stays", "pattern", "likeness", "agreement", "kept_size", "near", "as_seen", "alone", "contrast", "large")


def main(pairs=PAIRS, chains=CHAINS, folder=None):
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(folder) if folder else Path(temporary)
        cases = [("phantom", name, *case) for name, case in phantoms()] + list(items(out, int(pairs), int(chains)))
        answers, stories = [], []
        for kind, name, truth, settings in cases:
            answers += follow(kind, name, truth, settings, stories)
    write("following", page(answers, stories))


def phantoms():
    """Patients of `identity.py`, with lesions that stand out more or less, displaced by an unknown amount."""
    still = Following(lambda _one, _other: Alignment.from_affine(AffineMap.identity(), "wrong"))
    for number, (count, off, hu) in enumerate(PHANTOMS):
        draw = np.random.default_rng((7, number))
        yield f"phantom {count} {off:.0f} mm {hu:.0f} HU", (identity.patient(count, off, draw, hu), still)


def items(out, pairs, chains):
    """Pairs and chains of the released recipe."""
    if not (out / "part.jsonl").exists():
        write_recipe(out / "part.jsonl", chosen(pairs, chains, SEED))
    settings = SynthesizeSettings(recipe=str(out / "part.jsonl"), pictures=0)
    if not (out / "set").exists():
        run_synthesize(str(DATA), out / "set", settings, lambda text: print(text, file=sys.stderr, flush=True))
    recipe = read_recipe(out / "set" / "recipe.jsonl")
    following = Following(maps=MapFolder(out / "maps", most=500))
    for item in recipe.items:
        truth = read_item(out / "set", item.name, recipe.sources[item.source].scan(out / "set").modality)
        UNTOUCHED[item.name] = int(item.draws["source_at"])
        if any(lesion.mask is not None for lesion in truth.timepoints[0].lesions):
            yield ("chain" if item.visits > 2 else "pair"), item.name, truth, following


def follow(kind, name, truth, settings, stories):
    """Every lesion of the first scan at every later visit, with what spoke for the answer."""
    known = {}
    kept = track.found_confidence

    def found(item, outline):
        sure = kept(item, outline)
        known[sure] = found_evidence(item, outline)
        return sure

    track.found_confidence = found
    first, *later = truth.timepoints
    lesions = tuple(Lesion(one.id, (), one.mask, Status.OUTLINED) for one in first.lesions if one.mask is not None)
    try:
        visits = (first.with_lesions(lesions), *(visit.with_lesions(()) for visit in later))
        said = track_case(Case(visits), load_segmenter(MODEL), settings=settings)
    finally:
        track.found_confidence = kept
    stories.append((kind, told(said, name), told(truth, name), *identity_switches(said, truth)))
    answers = []
    for one in compare(said, truth):
        if first.lesion(one.lesion) is None:
            continue
        own, true = (case.timepoints[one.visit].lesion(one.lesion) for case in (said, truth))
        dice, off_mm = 0.0, None
        if one.said is not None and not one.truth.is_empty:
            dice = one.said.dice(one.truth)
            off_mm = float(np.linalg.norm(one.said.centroid_mm - one.truth.centroid_mm))
        answers.append(
            {
                "kind": kind, "case": name, "lesion": one.lesion, "visit": one.visit, "dice": dice, "off_mm": off_mm,
                "ml": one.truth.volume_ml if not one.truth.is_empty else 0.0, "outlined": one.said is not None,
                "gone": one.truth.is_empty and (true is None or true.status is not Status.OUTSIDE),
                "called": own is not None and own.status is Status.ABSENT and not one.said,
                "confidence": one.confidence, "evidence": known.get(one.confidence),
            }
        )  # fmt: skip
    print(name, [(a["lesion"], a["visit"], a["gone"], round(a["dice"], 2), a["confidence"]) for a in answers],
          file=sys.stderr, flush=True)  # fmt: skip
    return answers


def is_right(answer):
    """An outline that detects its lesion, or an ending of one that is gone."""
    return not answer["outlined"] if answer["gone"] else answer["dice"] > 0.3


def fitted(answers):
    """Weights of a logistic model, none below nought but the first, and its answers with each case left out."""
    mine = [a for a in answers if a["evidence"] is not None]
    facts = np.array([[1.0, *(a["evidence"][name] for name in FOUND)] for a in mine])
    right = np.array([is_right(a) for a in mine], float)
    groups = np.array([a["case"] for a in mine])
    # Phantoms are many and easy: together they count a quarter of all the rest.
    phantom = np.array([a["kind"] == "phantom" for a in mine])
    weight = np.where(phantom, 0.25 * max(1, (~phantom).sum()) / max(1, phantom.sum()), 1.0)

    def best(chosen):
        def cost(weights):
            score = facts[chosen] @ weights
            loss = np.logaddexp(0, score) - right[chosen] * score
            return float((weight[chosen] * loss).sum() + 0.5 * (weights[1:] ** 2).sum())

        bounds = [(None, None), *[(0.0, None)] * len(FOUND)]
        return minimize(cost, np.zeros(facts.shape[1]), bounds=bounds).x

    held_out = np.zeros(len(mine))
    for group in set(groups):
        away = groups == group
        held_out[away] = 1 / (1 + np.exp(-facts[away] @ best(~away)))
    return mine, best(np.ones(len(mine), bool)), held_out


def page(answers, stories):
    text = header("Following on synthetic follow-ups", "python evidence/following.py")
    text += f"""
Pairs and chains of the released recipe drawn at random, and phantoms (`evidence/identity.py`, with lesions of 150
and 30 HU above fat, displaced by 4 and 8 mm that the aligner does not know of). From the true outline of the first
scan; outlines by `{MODEL}`. Every lesion at every later visit counts once.

| | lesions there | detected (Dice > 0.3) | mean Dice | called vanished | lesions gone | gone, yet outlined |
|---|---|---|---|---|---|---|
"""
    for kind in ("pair", "chain", "phantom"):
        mine = [a for a in answers if a["kind"] == kind]
        there, gone = [a for a in mine if a["ml"] > 0], [a for a in mine if a["gone"]]
        if there:
            text += (
                f"| {kind}s | {len(there)} | {np.mean([a['dice'] > 0.3 for a in there]):.3f} | "
                f"{np.mean([a['dice'] for a in there]):.3f} | {sum(a['called'] for a in there)} | {len(gone)} | "
                f"{sum(a['outlined'] for a in gone)} |\n"
            )
    text += by_way(answers) + by_size(answers)
    text += "\n| | event | right / said / true | F1 |\n|---|---|---|---|\n"
    for kind in ("pair", "chain", "phantom"):
        mine = [story for story in stories if story[0] == kind]
        scores = score_events([e for s in mine for e in s[1]], [e for s in mine for e in s[2]])
        for event, score in scores.items():
            if score.said or score.true:
                text += f"| {kind}s | {event} | {score.right} / {score.said} / {score.true} | {score.f1:.2f} |\n"
        text += f"| {kind}s | switched names | {sum(s[3] for s in mine)} of {sum(s[4] for s in mine)} | |\n"
    return text + confidence_page(answers)


def by_way(answers):
    """Lesions of made items that are gone, by how they were made to vanish."""
    gone = [a for a in answers if a["gone"] and a["case"] in UNTOUCHED]
    first = {}
    for a in gone:
        first[a["case"], a["lesion"]] = min(a["visit"], first.get((a["case"], a["lesion"]), a["visit"]))
    text = "\n| gone from made pairs and chains | lesions | called vanished | left open (`unsure`) | outlined |\n"
    text += "|---|---|---|---|---|\n"
    for way, filled in (("their place was filled", True), ("they were added before, on the way to the scan", False)):
        mine = [a for a in gone if (first[a["case"], a["lesion"]] > UNTOUCHED[a["case"]]) == filled]
        called, outlined = sum(a["called"] for a in mine), sum(a["outlined"] for a in mine)
        text += f"| {way} | {len(mine)} | {called} | {len(mine) - called - outlined} | {outlined} |\n"
    return text


def by_size(answers):
    """Large and small lesions that are there, as a table."""
    text = "\n| | size | lesions there | detected | mean Dice | median centre error, mm |\n|---|---|---|---|---|---|\n"
    for kind in ("pair", "chain", "phantom"):
        there = [a for a in answers if a["kind"] == kind and a["ml"] > 0]
        for size, mine in (("15 mm and more", [a for a in there if a["ml"] >= LARGE_ML]),
                           ("less", [a for a in there if a["ml"] < LARGE_ML])):  # fmt: skip
            if mine:
                off = [a["off_mm"] for a in mine if a["off_mm"] is not None]
                text += (
                    f"| {kind}s | {size} | {len(mine)} | {np.mean([a['dice'] > 0.3 for a in mine]):.3f} | "
                    f"{np.mean([a['dice'] for a in mine]):.3f} | {np.median(off) if off else np.nan:.1f} |\n"
                )
    return text


def calibrated(title, answers):
    """How often what was said with some confidence was right, as a table."""
    text = f"\n| {title}: said | answers | mean said | right |\n|---|---|---|---|\n"
    for low, high in ((0, 0.5), (0.5, 0.7), (0.7, 0.85), (0.85, 0.95), (0.95, 1.01)):
        inside = [(p, right) for p, right in answers if low <= p < high]
        if inside:
            said, right = np.mean(inside, axis=0)
            text += f"| {low:.2f} to {min(high, 1):.2f} | {len(inside)} | {said:.2f} | {right:.2f} |\n"
    return text


def confidence_page(answers):
    text = "\n## What the confidence is worth\n\nOf outlines, each case judged by weights fitted without it.\n"
    mine, weights, held_out = fitted(answers)
    sure = {id(a): p for a, p in zip(mine, held_out, strict=True)}
    text += calibrated("outlined", [(p, is_right(a)) for a, p in zip(mine, held_out, strict=True)])
    said = ", ".join(f"{n} {w:.2f}" for n, w in zip(("begin", *FOUND), weights, strict=True))
    text += f"\nWeights fitted on all: {said}.\n"
    called = [a for a in answers if a["called"] and a["confidence"] is not None]
    text += calibrated("called vanished", [(a["confidence"], a["gone"]) for a in called])
    text += (
        "\n## How many checks are needed\n\nThe least sure are checked first; a checked lesion counts as detected.\n"
    )
    for title, kinds in (("Pairs and chains", ("pair", "chain")), ("Phantoms", ("phantom",))):
        mine = [a for a in answers if a["kind"] in kinds and (a["ml"] > 0 or a["gone"])]
        asked = [Answered(sure.get(id(a), a["confidence"]), a["dice"] > 0.3, a["ml"] > 0, a["ml"] > 0) for a in mine]
        text += f"\n| {title}: checked | checks | detected | of full checking |\n|---|---|---|---|\n"
        for one in detection_by_checks(asked):
            text += f"| {100 * one.share:.0f} % | {one.checks} | {one.detection:.3f} | {one.of_full:.3f} |\n"
    return text


if __name__ == "__main__":
    main(*sys.argv[1:])

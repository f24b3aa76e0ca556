"""Measures the trained networks: `python evidence/learned.py OUT`, where OUT is what evidence/train_weights.py made.

Not part of `make evidence`: without OUT there is nothing to measure but what ships, which has seen all these patients.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from provenance import header, write
from train_weights import cases, folds, say

from lesionlocator.demo.archive import cache_folder, public_scans
from lesionlocator.evaluate.data import find_data
from lesionlocator.evaluate.prompting import Recipe, correction
from lesionlocator.evaluate.protocol import read_protocol
from lesionlocator.evaluate.statistics import paired_difference
from lesionlocator.prompt import Box, Click
from lesionlocator.segment import load_segmenter

METHODS = ("ellipsoid", "intensity", "zero-shot", "cross-validated")
PROMPTS = ("box", "moved-box:0.1", "deepest-click", "inner-click")
CORRECTIONS = 5
SEED = 20261123
FAILED = 0.5


def measure(out):
    """Every lesion by every method, as rows kept in OUT/rows.json."""
    fold = folds()
    segmenters = Segmenters(out / "models")
    rows = []
    for case in cases():
        own = {name: segmenters.by(name, fold[case.files.patient]) for name in METHODS}
        for number, visit in enumerate(case.load()):
            for lesion, truth in visit.lesions.items():
                name = f"{case.files.name} {number} {lesion}"
                kind = f"{case.files.kind} {case.files.modality}"
                facts = {
                    "kind": kind,
                    "patient": case.files.patient,
                    "name": name,
                }
                for method, segmenter in own.items():
                    asking = Asking(segmenter, segmenter.prepare(visit.scan), truth, name)
                    rows += [{**facts, "method": method, **row} for row in asking.rows(kind)]
        say(case.files.name)
        (out / "rows.json").write_text(json.dumps(rows, indent=0))
    return rows


def measure_public(out):
    """The scans that anyone can get, which no network saw."""
    segmenters = Segmenters(out / "models")
    folder = cache_folder()
    public_scans(folder)
    data = find_data(read_protocol("zero-shot"), None, public=lambda: folder)
    rows = []
    for case in data.cases:
        for visit in case.load():
            for lesion, truth in visit.lesions.items():
                name = f"{case.files.name} {lesion}"
                for method in ("ellipsoid", "intensity", "zero-shot", "shipped"):
                    segmenter = segmenters.by(method, None)
                    asking = Asking(segmenter, segmenter.prepare(visit.scan), truth, name)
                    rows += [{"kind": case.files.patient, "method": method, **row} for row in asking.plain()]
    return rows


class Segmenters:
    """The methods by name; networks are loaded once."""

    def __init__(self, folder):
        self.folder, self._loaded = folder, {}

    def by(self, method, fold):
        """The segmenter of a method; `cross-validated` is the network that did not see this fold."""
        trained = {"zero-shot": "base", "cross-validated": f"fold{fold}", "shipped": "all"}
        name = str(self.folder / trained[method]) if method in trained else method
        if name not in self._loaded:
            self._loaded[name] = load_segmenter(name)
        return self._loaded[name]


class Asking:
    """One lesion asked for in many ways, of one segmenter."""

    def __init__(self, segmenter, prepared, truth, name):
        self.segmenter, self.prepared, self.truth, self.name = segmenter, prepared, truth, name

    def rows(self, kind):
        """The plain prompts; of the cross-validated networks corrections; for a rim a click in it and in its core."""
        found = self.plain()
        if self.segmenter.name.startswith("fold"):
            for prompt in ("box", "deepest-click"):
                found += self.corrected(prompt)
        if "rim" in kind:
            box, rim = Box.around(self.truth), Click.inside(self.truth)
            core = core_of(self.truth)
            found.append(self.asked("box, rim and core", (box, rim, *core)))
        return found

    def plain(self):
        return [self.asked(prompt, self.made(prompt)) for prompt in PROMPTS]

    def made(self, prompt):
        return Recipe.parse(prompt).make(self.truth, seed=SEED, name=self.name)

    def asked(self, prompt, ask):
        row, _ = self._answer(prompt, ask)
        return row

    def corrected(self, prompt):
        ask, found = self.made(prompt), []
        for count in range(CORRECTIONS + 1):
            row, mask = self._answer(f"{prompt}, {count} corrections", ask)
            found.append(row)
            click = correction(mask, self.truth)
            ask = ask if click is None else (*ask, click)
        return found

    def _answer(self, prompt, ask):
        started = time.perf_counter()
        (outline,) = self.segmenter.outline(self.prepared, [ask])
        seconds, mask = time.perf_counter() - started, outline.mask
        dice = 0.0 if mask is None else 2 * mask.overlap(self.truth) / (mask.voxels + self.truth.voxels)
        return {"prompt": prompt, "dice": dice, "confidence": outline.confidence, "seconds": seconds}, mask


def core_of(truth):
    """A click out of the lesion, deep in what a rim encloses; none when it encloses nothing."""
    from scipy import ndimage

    from lesionlocator.volume import Mask

    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(truth.array, truth.array.ndim - 1, 0)])
    core = np.moveaxis(filled, 0, truth.array.ndim - 1) & ~truth.array
    return (Click(Mask.from_array(core, truth.geometry).deepest_mm, False),) if core.any() else ()


# ------------------------------------------------------------------------------------------------------------- the page


def page(rows, public):
    text = header("Our own network, measured", "python evidence/learned.py OUT")
    text += """
Dice, mean over lesions; zero-shot is the base network, which saw no real tumour; cross-validated is the network of
the three that did not see this patient. The network that ships saw all of these patients, so it is measured on the
public scans only. Few of each kind: see how many.
"""
    for prompt in (*PROMPTS, "box, rim and core"):
        text += f"\n## {prompt}\n\n" + by_kind([one for one in rows if one["prompt"] == prompt], METHODS)
    text += "\n## Scans that anyone can get, seen by no network\n\n"
    for prompt in PROMPTS:
        own = [{**one, "patient": one["kind"]} for one in public if one["prompt"] == prompt]
        text += f"{prompt}\n\n" + by_kind(own, ("ellipsoid", "intensity", "zero-shot", "shipped")) + "\n"
    text += against_ellipsoid(rows) + robustness(rows) + corrections(rows) + confidence(rows) + seconds(rows)
    return text


def table(heads, rows):
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(str(cell) for cell in line) + " |\n" for line in lines)


def mean_of(rows, **wanted):
    own = [one["dice"] for one in rows if all(one[name] == value for name, value in wanted.items())]
    return float(np.mean(own)) if own else float("nan")


def by_kind(rows, methods):
    found = []
    for kind in sorted({one["kind"] for one in rows}):
        own = [one for one in rows if one["kind"] == kind]
        patients = len({one["patient"] for one in own})
        means = [f"{mean_of(own, method=method):.3f}" for method in methods]
        found.append([kind, len(own) // len(methods), patients, *means])
    return table(["Kind", "Lesions", "Patients", *methods], found)


def against_ellipsoid(rows):
    """Paired gain in the tight box, with its interval by patient, and the worst patient."""
    found = []
    for kind in sorted({one["kind"] for one in rows if "sarcoma" in one["kind"]}):
        patients = sorted({one["patient"] for one in rows if one["kind"] == kind})
        for method in METHODS[2:]:
            one, other = (
                {who: mean_of(rows, kind=kind, prompt="box", patient=who, method=name) for who in patients}
                for name in (method, "ellipsoid")
            )
            gain = paired_difference(one, other, {who: who for who in patients}).mean
            worst = min(one[who] - other[who] for who in patients)
            low, high = gain.interval
            interval = f"{gain.over_lesions:+.3f} ({low:+.3f} to {high:+.3f})"
            found.append([kind.split()[-1], method, interval, f"{worst:+.3f}"])
    return "\n## Sarcomas from the tight box, against the ellipsoid\n\n" + table(
        ["Modality", "Network", "Gain (95 % interval)", "Worst patient"], found
    )


def robustness(rows):
    mean = {(m, p): mean_of(rows, method=m, prompt=p) for m in METHODS for p in PROMPTS}
    fall = {m: mean[m, "box"] - mean[m, "moved-box:0.1"] for m in METHODS}
    found = [
        [m, f"{fall[m]:.3f}", f"{fall[m] / fall['ellipsoid']:.2f}", f"{mean[m, PROMPTS[2]] - mean[m, PROMPTS[3]]:.3f}"]
        for m in METHODS
    ]
    text = (
        "\n## How much a moved box and another click cost\n\nMean Dice over all lesions: what is lost when each face "
    )
    text += "of the box is moved by up to 10 %, and from a random inner click beside the deepest one.\n\n"
    return text + table(["Method", "Moved box", "Share of the ellipsoid's loss", "Inner click"], found)


def corrections(rows):
    counts = range(CORRECTIONS + 1)
    found = [
        [prompt, m, *(f"{mean_of(rows, method=m, prompt=f'{prompt}, {count} corrections'):.3f}" for count in counts)]
        for prompt in ("box", "deepest-click")
        for m in METHODS[3:]
    ]
    text = "\n## Corrections\n\nMean Dice over all lesions after each click in the middle of the largest error.\n\n"
    return text + table(["From", "Network", *counts], found)


def confidence(rows):
    found = []
    for method in METHODS[2:]:
        own = [one for one in rows if one["method"] == method and one["confidence"] is not None]
        if not own:
            found.append([method, "none is given", "", "", ""])
            continue
        off = np.mean([abs(one["confidence"] - one["dice"]) for one in own])
        order = sorted(own, key=lambda one: one["confidence"])
        failed = sum(one["dice"] < FAILED for one in own)
        caught = sum(one["dice"] < FAILED for one in order[: len(order) // 10])
        found.append([method, len(own), f"{off:.3f}", failed, caught])
    heads = ["Network", "Outlines", "Off by (mean)", "Dice under 0.5", "Of these in the least confident tenth"]
    return "\n## Confidence\n\nAll ways of asking pooled.\n\n" + table(heads, found)


def seconds(rows):
    found = [
        [
            m,
            *(
                f"{np.median([one['seconds'] for one in rows if one['method'] == m and one['prompt'] == p]):.2f}"
                for p in PROMPTS
            ),
        ]
        for m in METHODS
    ]
    text = "\n## Seconds for an outline\n\nMedian, on a computer that did other work as well.\n\n"
    return text + table(["Method", *PROMPTS], found)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write("learned", page(measure(folder), measure_public(folder)))

"""The tracking baselines of the yardstick on pairs and chains of the released recipe, whose truth is known.

`python evidence/synthetic_tracking.py [pairs] [chains] [folder]`: what a kept folder holds is not made again.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from provenance import ROOT, header, write

from lesionlocator.case import Ending
from lesionlocator.dataset.make import run_synthesize, source_folder
from lesionlocator.dataset.reading import read_item
from lesionlocator.dataset.recipe import RELEASED, find_recipe, read_recipe, write_recipe
from lesionlocator.dataset.settings import SynthesizeSettings
from lesionlocator.formats import write_labels

PAIRS, CHAINS, SEED = 50, 10, 2
DATA = ROOT.parent / "shared" / "data"
COMMAND = "from lesionlocator.cli import main; main()"
METHODS = (
    "header", "centre", "affine", "deformable", "header, halfway", "affine, halfway", "track:ellipsoid",
    "track:intensity", "track:zoom", "track:whole-field",
)  # fmt: skip
SHOWN = ("dice", "nsd", "centre_error_mm", "cpm_10", "cpm_25", "detected")


def main(pairs=PAIRS, chains=CHAINS, folder=None):
    pairs, chains = int(pairs), int(chains)
    with contextlib.nullcontext(folder) if folder else tempfile.TemporaryDirectory() as name:
        out = Path(name)
        out.mkdir(parents=True, exist_ok=True)
        items = chosen(pairs, chains)
        write_recipe(out / "part.jsonl", items)
        settings = SynthesizeSettings(recipe=str(out / "part.jsonl"), pictures=0)
        made = run_synthesize(str(DATA), out / "set", settings, lambda text: print(text, file=sys.stderr, flush=True))
        cases = [entry for item in made.recipe.items if (entry := case_of(out / "set", item, made.recipe)) is not None]
        (out / "synthetic.toml").write_text(protocol(cases))
        command = [sys.executable, "-c", COMMAND, "evaluate", str(out / "synthetic.toml")]
        subprocess.run([*command, "--out", str(out / "result"), "--data", str(out / "set")], check=True)
        results = json.loads((out / "result" / "results.json").read_text())
    write("synthetic_tracking", page(results, items, cases))


def chosen(pairs, chains, seed=SEED):
    """Items at random, of any source that lies in one folder."""
    recipe = read_recipe(find_recipe(RELEASED)).on(source_folder(str(DATA)))
    kinds = [recipe.only(item for item in recipe.items if (item.visits > 2) == chain) for chain in (False, True)]
    drawn = [kind.drawn_at_random(count, seed).items for kind, count in zip(kinds, (pairs, chains), strict=True)]
    return recipe.only([*drawn[0], *drawn[1]])


def case_of(out, item, recipe):
    """An entry of the protocol: visits, label maps of what lies in the scan to half and more, and the true links."""
    source = recipe.sources[item.source]
    case = read_item(out, item.name, source.scan(out).modality)
    if not any(lesion.mask is not None for lesion in case.timepoints[0].lesions):
        return None
    truth = []
    for number, timepoint in enumerate(case.timepoints):
        name = f"{item.name}_{number}_truth.nii.gz"
        shown = {int(one.id): one.mask for one in timepoint.lesions if one.mask is not None}
        write_labels(out / name, shown, timepoint.geometry)
        truth.append(name)
    links = [
        [link.before[0], link.before[1], link.to, "outside" if link.after is Ending.OUTSIDE else link.after[1]]
        for link in case.links
        if link.after is not Ending.VANISHED
    ]
    visits = [f"{timepoint.name}/images/{item.name}.nii.gz" for timepoint in case.timepoints]
    return {
        "patient": source.patient,
        "name": item.name,
        "kind": "chain" if item.visits > 2 else "pair",
        "modality": case.timepoints[0].load().modality,
        "visits": visits,
        "truth": truth,
        "links": links,
    }


def protocol(cases):
    lines = [
        'version = 1\ntitle = "Synthetic follow-ups"\ntask = "follow"\nseed = 1\nreference = "header"',
        f'methods = {json.dumps(METHODS)}\nprompts = ["outline"]',
        '[[data]]\nname = "synthetic"\nabout = "Pairs and chains of the released recipe"\nlicence = "as the sources"',
        'citation = "docs/sources.md"',
    ]
    for case in cases:
        words = "\n".join(f"{key} = {json.dumps(value)}" for key, value in case.items() if key != "patient")
        lines.append(f"[[data.scans]]\npatients = [{json.dumps(case['patient'])}]\n{words}")
    return "\n".join(lines) + "\n"


def page(results, items, cases):
    text = header("Tracking baselines on synthetic follow-ups", "python evidence/synthetic_tracking.py")
    counts = [sum(case["kind"] == kind for case in cases) for kind in ("pair", "chain")]
    text += f"""
{counts[0]} pairs and {counts[1]} chains of the released recipe, drawn at random; {len(items.items) - len(cases)} more
had no lesion in their first scan, from which a track could begin. Everything starts from the true outline of the first
scan. Copies carry it over and do not outline it again; `halfway` grows it by four voxels in its slices and cuts halfway
between the mean inside and around it; `track:` is `lesionlocator track`; `whole-field` is the published tracker's rule
with our deformation and default segmenter (both scans squeezed to 175 voxels a side, the header unused, the outline
warped, what arrives outlined). Means over lesions and later visits.

| Method | {" | ".join(SHOWN)} | lesions |
|---|{"---|" * (len(SHOWN) + 1)}
"""
    means = {(e["method"], e["score"]): e for e in results["summary"] if e["by"] == "all"}
    for method in dict.fromkeys(row["method"] for row in results["rows"]):
        cells = [f"{means[method, score]['over_lesions']:.2f}" if (method, score) in means else "" for score in SHOWN]
        text += f"| {method} | {' | '.join(cells)} | {means[method, 'dice']['lesions']} |\n"
    text += "\n| Method | Event | Right / said / true | Names changed |\n|---|---|---|---|\n"
    for one in results["events"]:
        changed = f"{one['identity_switches']} of {one['steps']}"
        for event, score in one["events"].items():
            text += (
                f"| {one['method']} | {event} | {score['right']} / {score['said']} / {score['true']} | {changed} |\n"
            )
    return text


if __name__ == "__main__":
    main(*sys.argv[1:])

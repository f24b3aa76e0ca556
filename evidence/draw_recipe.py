"""Draws the released recipe: `python evidence/draw_recipe.py JOURNAL COUNT`, again and again until all is drawn.

For every item it keeps what is drawn, the events, and a checksum of the label maps: all that is to be had without the
voxels of the scans. What the recipe has already stays as it is; only what cannot be told any more is drawn anew. Cheap
items come first. Not part of `make evidence` (it has no `main`): a recipe that is released stays as it is.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from provenance import ROOT

from lesionlocator.batch import open_executor
from lesionlocator.dataset.drawing import draw_patient, tell_patient
from lesionlocator.dataset.layouts import find_sources
from lesionlocator.dataset.listed import collections
from lesionlocator.dataset.make import source_folder, true_case
from lesionlocator.dataset.recipe import (
    Item,
    Recipe,
    RecipeSource,
    item_seed,
    labels_checksum,
    read_recipe,
    versions,
    write_recipe,
)
from lesionlocator.dataset.source import open_source
from lesionlocator.dataset.truth import events_of
from lesionlocator.errors import Refused
from lesionlocator.synth.visit import Visit

SEED, VISITS = 20261123, 4
DATA = ROOT.parent / "shared" / "data"
OUT = ROOT / "src" / "lesionlocator" / "dataset" / "recipes" / "released.jsonl.gz"
TITLE = "Released recipe: pairs and chains of four visits over openly licensed scans"


def planned():
    """The recipe as far as it is drawn; at the very first all seeds, over all sources in a mixed order."""
    if OUT.exists():
        return read_recipe(OUT)
    known = collections()
    found = {
        scan.id: RecipeSource.of(scan, root, known[scan.collection].licence)
        for root in (source_folder("archive"), DATA)
        for scan in find_sources(root, layout="listed")
    }
    rng = np.random.default_rng(SEED)
    items = []
    for kind, visits in (("pair", 2), ("chain", VISITS)):
        owners = [name for name, one in found.items() for _ in range(getattr(known[one.collection], f"{kind}s"))]
        for number, index in enumerate(rng.permutation(len(owners)), start=1):
            name = f"{kind}_{number:05d}"
            items.append(Item(name, owners[index], item_seed(SEED, name), visits))
    return Recipe(found, tuple(items), TITLE, versions())


def drawn(item, source, root):
    """[name, draws, events, checksum of the label maps, seconds, whether old draws had to be given up]."""
    started, anew = time.process_time(), False
    opened = open_source(source.scan(root))
    visit = Visit.of(opened.volume, opened.lesions, opened.organs)
    draws = item.draws
    try:
        chain = None if draws is None else tell_patient(visit, draws, voxels=False)
    except Refused:
        chain, anew = None, True
    if chain is None:
        chain, draws = draw_patient(visit, item.seed, item.visits, voxels=False)
    spent = round(time.process_time() - started, 2)
    return [item.name, draws, events_of(true_case(chain)), labels_checksum(chain), spent, anew]


def draw(journal, count, workers):
    """Draws `count` items more and writes the recipe with all that were drawn."""
    recipe = planned()
    roots = {
        name: root
        for root in (source_folder("archive"), DATA)
        for name, source in recipe.sources.items()
        if (root / source.image).exists()
    }
    size = {name: (root / recipe.sources[name].image).stat().st_size for name, root in roots.items()}
    known = {entry[0]: entry for entry in map(json.loads, journal.read_text().splitlines())} if journal.exists() else {}
    left = [item for item in recipe.items if not item.labels and item.name not in known]
    # Those that have draws first: what cannot be told has to be known.
    left.sort(key=lambda item: (item.draws is None, size[item.source] * item.visits))
    print(f"{len(recipe.items)} items over {len(recipe.sources)} scans, {len(left)} left", flush=True)
    wrong = [
        what for name in {item.source for item in left[:count]} for what in recipe.sources[name].differing(roots[name])
    ]
    if wrong:
        raise SystemExit(f"not the sources of the recipe: {wrong[:5]}")
    with open_executor("process", workers=workers) as pool, journal.open("a") as file:
        asked = [pool.submit(drawn, item, recipe.sources[item.source], roots[item.source]) for item in left[:count]]
        for answer in asked:
            file.write(json.dumps(answer.result()) + "\n")
            file.flush()
    keep(recipe, journal)


def keep(recipe, journal):
    """Writes what the journal has into the recipe."""
    known = {entry[0]: entry for entry in map(json.loads, journal.read_text().splitlines())}
    complete = tuple(with_drawn(item, known[item.name]) if item.name in known else item for item in recipe.items)
    write_recipe(OUT, replace(recipe, items=complete))
    stored = sum(bool(item.labels) for item in complete)
    anew = sum(bool(entry[5]) for entry in known.values())
    print(f"{OUT.name}: {OUT.stat().st_size / 1e6:.2f} MB, {stored} items drawn, {anew} of the journal's drawn anew")


def with_drawn(item, entry):
    _, draws, events, labels, *_ = entry
    return replace(
        item, draws=draws, events=tuple(tuple(tuple(event) for event in visit) for visit in events), labels=labels
    )


if __name__ == "__main__":
    at = Path(sys.argv[1])
    if len(sys.argv) > 2:
        draw(at, int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    else:
        keep(planned(), at)

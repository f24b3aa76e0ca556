"""Draws the released recipe: `python evidence/draw_recipe.py JOURNAL COUNT`, again and again until all is drawn.

Not part of `make evidence` (it has no `main`): a recipe that is released stays as it is.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from provenance import ROOT
from remake import COUNT
from remake import SEED as REMAKE_SEED

from lesionlocator.batch import open_executor
from lesionlocator.dataset.layouts import find_sources
from lesionlocator.dataset.listed import collections
from lesionlocator.dataset.make import make_chain, source_folder
from lesionlocator.dataset.recipe import Item, Recipe, RecipeSource, item_seed, versions, write_recipe

SEED, VISITS = 20261123, 4
DATA = ROOT.parent / "shared" / "data"
OUT = ROOT / "src" / "lesionlocator" / "dataset" / "recipes" / "released.jsonl.gz"
TITLE = "Released recipe: pairs and chains of four visits over openly licensed scans"


def sources():
    """{id: (source, its folder)} of the archive and the development scans."""
    known = collections()
    return {
        scan.id: (RecipeSource.of(scan, root, known[scan.collection].licence), root)
        for root in (source_folder("archive"), DATA)
        for scan in find_sources(root, layout="listed")
    }


def plan(found):
    """Items in a mixed order, so that any first part of them is over all sources."""
    known = collections()
    rng = np.random.default_rng(SEED)
    items = []
    for kind, visits in (("pair", 2), ("chain", VISITS)):
        owners = [
            name for name, (source, _) in found.items() for _ in range(getattr(known[source.collection], f"{kind}s"))
        ]
        for number, index in enumerate(rng.permutation(len(owners)), start=1):
            name = f"{kind}_{number:05d}"
            items.append(Item(name, owners[index], item_seed(SEED, name), visits))
    return items


def drawn(item, source, root):
    return make_chain(item, source, root)[1]


def draw(journal, count, workers):
    """Draws `count` items more, those first that `remake` asks for, and writes the recipe with all that were drawn."""
    found = sources()
    recipe = Recipe({name: source for name, (source, _) in found.items()}, tuple(plan(found)), TITLE, versions())
    known = dict(map(json.loads, journal.read_text().splitlines())) if journal.exists() else {}
    first = recipe.drawn_at_random(COUNT, REMAKE_SEED).items
    todo = [item for item in dict.fromkeys(map(name_of, (*first, *recipe.items))) if item not in known][:count]
    items = {item.name: item for item in recipe.items}
    print(f"{len(items)} items over {len(found)} scans, {len(known)} drawn, {len(todo)} to draw now", flush=True)
    with open_executor("process", workers=workers) as pool, journal.open("a") as file:
        asked = [(name, pool.submit(drawn, items[name], *found[items[name].source])) for name in todo]
        for name, answer in asked:
            known[name] = answer.result()
            file.write(json.dumps((name, known[name])) + "\n")
            file.flush()
    complete = tuple(replace(item, draws=known.get(item.name)) for item in recipe.items)
    write_recipe(OUT, replace(recipe, items=complete))
    print(f"{OUT.name}: {OUT.stat().st_size / 1e6:.2f} MB, draws of {len(known)} items, seeds of all")


def name_of(item):
    return item.name


if __name__ == "__main__":
    draw(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1)

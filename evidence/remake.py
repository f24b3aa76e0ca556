"""200 items of the released recipe, drawn at random, are made and then checked by the recipe's own validator.

`python evidence/remake.py [items] [folder]`; what a kept folder holds is not made again.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from provenance import ROOT, header, write

from lesionlocator.dataset.make import run_synthesize, source_folder
from lesionlocator.dataset.recipe import RELEASED, find_recipe, read_recipe, write_recipe
from lesionlocator.dataset.settings import SynthesizeSettings
from lesionlocator.dataset.validate import validate_folder

COUNT, SEED = 200, 1
DATA = ROOT.parent / "shared" / "data"


def main(count=COUNT, keep=None):
    whole = read_recipe(find_recipe(RELEASED))
    drawn = whole.drawn_at_random(int(count), SEED)
    rows, made, failed = [], [], {}
    with contextlib.nullcontext(keep) if keep else tempfile.TemporaryDirectory() as kept:
        for folder in ("archive", str(DATA)):
            part = drawn.on(source_folder(folder))
            out = Path(kept) / Path(folder).name
            out.parent.mkdir(parents=True, exist_ok=True)
            recipe = out.with_suffix(".jsonl")
            write_recipe(recipe, part)
            settings = SynthesizeSettings(recipe=str(recipe), pictures=0)
            started = time.perf_counter()
            done = run_synthesize(folder, out, settings)
            made.append((folder, part, done, time.perf_counter() - started))
            failed |= done.failed
            rows += [(part, row) for row in validate_folder(folder, out, settings)]
    write("remake", page(whole, drawn, made, failed, rows))


def page(whole, drawn, made, failed, rows):
    text = header("The released recipe, remade", f"python evidence/remake.py {len(drawn.items)}")
    findings = Counter(row.finding.split(":")[0] for _, row in rows)
    good = sum(row.ok for _, row in rows)
    known = sum(item.draws is not None for item in drawn.items)
    text += f"""
{len(drawn.items)} of {len(whole.items)} items, drawn at random (seed {SEED}), were made from their sources and from the
draws that the recipe keeps ({known} of them) or their seeds, and then checked by the recipe's validator, which makes
them again in another process: {good} of {len(rows)} are what the recipe says, {len(failed)} could not be made.

| Finding | Items |
|---|---|
"""
    text += "".join(f"| {finding} | {number} |\n" for finding, number in findings.most_common())
    text += "\n| Collection | Items | Seconds each (median, longest) |\n|---|---|---|\n"
    seconds = {}
    for _, part, done, _ in made:
        for item, spent in zip(done.recipe.items, done.cost.seconds, strict=True):
            kind = "chain" if item.visits > 2 else "pair"
            seconds.setdefault((part.sources[item.source].collection, kind), []).append(spent)
    for (collection, kind), spent in sorted(seconds.items()):
        ordered = sorted(spent)
        text += f"| {collection}, {kind} | {len(ordered)} | {ordered[len(ordered) // 2]:.1f}, {ordered[-1]:.1f} |\n"
    text += "\nTwo worker processes of low priority on a machine with other work, so upper bounds.\n"
    for name, reason in failed.items():
        text += f"\n- {name} failed: {reason}"
    for _, row in rows:
        text += "" if row.ok else f"\n- {row.name}: {row.finding}"
    return text


if __name__ == "__main__":
    main(*sys.argv[1:])

"""How far each aligner is off, by size of motion and on real pairs, with and without a refinement near a lesion.

`python evidence/registration.py [scans]`: how many scans the made follow-ups come from (the made pairs and the real
ones are those of `benchmarks/align.py`).
"""

from __future__ import annotations

import sys
import time
import tracemalloc

import numpy as np
from provenance import ROOT, header, write

sys.path.insert(0, str(ROOT / "benchmarks"))

import align as pairs

from lesionlocator.align import ALIGNERS, FieldMap, refine_near

DATA = ROOT.parent / "shared" / "data"
SCANS, NEAR = 3, 12


def main(scans=SCANS):
    rows = []
    for pair in chosen(int(scans)):
        for name in ALIGNERS:
            rows.append(measured(pair, name))
            print(rows[-1], file=sys.stderr, flush=True)
    write("registration", page(rows))


def chosen(scans):
    """Every change of some scans, and the real pairs whose landmarks are known."""
    names = []
    for pair in pairs.synthetic_pairs(DATA, quick=True):
        if pair.name not in names:
            names.append(pair.name)
        if len(names) <= scans:
            yield pair
        else:
            break
    for pair in pairs.real_pairs(DATA):
        if pair.here_mm is not None:
            yield pair


def measured(pair, name):
    """One aligner on one pair; `near` are places as a lesion would be, refined one by one."""
    tracemalloc.start()
    began = time.process_time()
    alignment = ALIGNERS[name](pair.baseline, pair.followup)
    seconds = time.process_time() - began
    memory = tracemalloc.get_traced_memory()[1] / 1e9
    tracemalloc.stop()
    errors = np.linalg.norm(alignment.forward(pair.here_mm) - pair.there_mm, axis=1)
    some = np.random.default_rng(1).choice(len(errors), min(NEAR, len(errors)), replace=False)
    began = time.process_time()
    near = [
        refine_near(pair.baseline, pair.followup, alignment, pair.here_mm[i]).alignment.forward(pair.here_mm[i][None])
        for i in some
    ]
    refined = np.linalg.norm(np.concatenate(near) - pair.there_mm[some], axis=1)
    fields = [part for part in getattr(alignment.forward, "maps", (alignment.forward,)) if isinstance(part, FieldMap)]
    return {
        "pair": pair.name, "change": pair.change, "aligner": name, "seconds": seconds, "memory": memory,
        "median": float(np.median(errors)), "p95": float(np.percentile(errors, 95)),
        "here": float(np.median(errors[some])), "near": float(np.median(refined)),
        "near_seconds": (time.process_time() - began) / len(some),
        "folds": int(sum((field.volume_change() <= 0).sum() for field in fields)),
    }  # fmt: skip


def page(rows):
    text = header("Registration", "python evidence/registration.py")
    names = list(dict.fromkeys(row["pair"] for row in rows if row["change"] != "real"))
    text += f"""
Made follow-ups of {len(names)} scans, whose truth is known, by size of motion ({", ".join(names)});
and the pairs of open_ms_data with the transforms given with them. Landmark error in mm: the median (95th percentile) of
4,000 places in the body, mean over the scans. `near` is the median at {NEAR} of these places, before and after
`align.refine_near`. Seconds of the processor; memory is what the aligner held at most beside the scans.

| Motion | Aligner | error | near, before | near, refined | folds | s | s for each place | GB |
|---|---|---|---|---|---|---|---|---|
"""
    for change in dict.fromkeys(row["change"] for row in rows):
        for name in ALIGNERS:
            mine = [row for row in rows if row["change"] == change and row["aligner"] == name]
            if not mine:
                continue
            mean = {key: np.mean([row[key] for row in mine]) for key in mine[0] if not isinstance(mine[0][key], str)}
            text += (
                f"| {change} | {name} | {mean['median']:.1f} ({mean['p95']:.1f}) | {mean['here']:.1f} | "
                f"{mean['near']:.1f} | {sum(row['folds'] for row in mine)} | {mean['seconds']:.0f} | "
                f"{mean['near_seconds']:.1f} | {mean['memory']:.2f} |\n"
            )
    return text


if __name__ == "__main__":
    main(*sys.argv[1:])

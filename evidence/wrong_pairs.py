"""Pairs that are not two visits of one patient, or whose header is the wrong way round: what alignment says of them."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from provenance import ROOT, header, write

from lesionlocator.align.doubt import search_doubts
from lesionlocator.align.search import either_way_round, find_affine, find_rigid
from lesionlocator.align.view import views
from lesionlocator.demo.archive import cache_folder, public_scans
from lesionlocator.errors import Refused
from lesionlocator.formats import read_volume
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Volume

sys.path.insert(0, str(ROOT / "benchmarks"))
from align import CHANGES, changed  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
HEADS = ("001", "002", "003", "004", "005", "006", "007", "009")
MOVED = ("headneck/001_ct", "headneck/004_ct", "liver_ct/CRLM-CT-1004", "lung_ct/ct", "petct_wholebody/ct")
SUSPECTED = ("two people", "one patient")


@dataclass(frozen=True, eq=False)
class Pair:
    """Two scans; `kind` is real (two visits of a patient), made (one scan moved), or crossed (two patients)."""

    group: str
    kind: str
    name: str
    baseline: Volume
    followup: Volume


def main():
    if not (DATA / "glioblastoma_pairs").is_dir():
        raise SystemExit("the follow-up pairs are not here: see docs/evaluate.md for where to get them")
    rows, turns = [], []
    for pair in pairs():
        first, second = views(pair.baseline, pair.followup)
        found = either_way_round(first, second, find_affine)
        said = (*found.warnings, *search_doubts(first, second, found, one_kind=True))
        rows.append((pair, found, said))
        print(pair.group, pair.kind, pair.name, f"{found.agreement:.2f} {found.stretch:.2f}", said, file=sys.stderr)
        if pair.kind == "real":
            turns.extend(turned_headers(pair))
            print(pair.name, turns[-7:], file=sys.stderr)
    write("wrong_pairs", page(rows, turns))


def pairs():
    """All pairs at hand, each made when its turn comes."""
    yield from crossed("glioblastoma, T1", "glioblastoma_pairs", ("baseline_T1c", "followup_T1c"))
    yield from crossed("multiple sclerosis, FLAIR", "ms_pairs", ("study1_FLAIR", "study2_FLAIR"))
    for contrast in ("T2", "ADC"):
        visits = [mr(f"abdomen_mr_pair/{visit}_{contrast}") for visit in ("baseline", "followup")]
        yield Pair(f"abdomen, {contrast}", "real", contrast, *visits)
    for one, other in itertools.pairwise(HEADS):
        yield Pair(
            "head and neck CT", "crossed", f"{one}-{other}", ct(f"headneck/{one}_ct"), ct(f"headneck/{other}_ct")
        )
    livers = [ct(f"liver_ct/CRLM-CT-{number}") for number in (1004, 1006)]
    yield Pair("liver CT", "crossed", "1004-1006", *livers)
    trunks = ("trunk_ct/ct", "lung_ct/ct", "petct_wholebody/ct")
    for one, other in itertools.combinations(trunks, 2):
        yield Pair("trunk CT", "crossed", f"{one}-{other}", ct(one), ct(other))
    yield from archive()
    for name in MOVED:
        scan = ct(name)
        for seed, change in enumerate(CHANGES):
            moved = changed(scan, change, seed)
            yield Pair("CT, moved", "made", f"{name}, {change.name}", moved.baseline, moved.followup)


def crossed(group, folder, names):
    patients = sorted(path.name for path in (DATA / folder).iterdir())
    for one, other in itertools.product(patients, patients):
        kind = "real" if one == other else "crossed"
        yield Pair(group, kind, f"{one}-{other}", mr(f"{folder}/{one}/{names[0]}"), mr(f"{folder}/{other}/{names[1]}"))


def archive():
    try:
        found = public_scans(cache_folder())
    except Refused as refused:
        print(f"the public archive is left out: {refused.found}", file=sys.stderr)
        return
    for part, modality in (("lung", "CT"), ("brain", "MR")):
        scans = [read_volume(found[f"{part}{number}"][0], modality) for number in (1, 2)]
        yield Pair(f"public archive, {part}", "crossed", "1-2", *scans)


def mr(name):
    return read_volume(DATA / f"{name}.nii.gz", "MR")


def ct(name):
    return read_volume(DATA / f"{name}.nii.gz", "CT")


def turned_headers(pair):
    """(group, name, signs, gain, what was done) for each of the seven wrong headers that the follow-up may have."""
    found = []
    for signs in itertools.product((1, -1), repeat=3):
        if signs == (1, 1, 1):
            continue
        wrong = with_wrong_header(pair.followup, signs)
        first, second = views(pair.baseline, wrong)
        answer = either_way_round(first, second, find_rigid)
        right = answer.turn is not None and answer.turn.signs == signs
        as_said = find_rigid(first, second).agreement
        found.append((pair.group, pair.name, signs, as_said, answer.agreement, right))
    return found


def with_wrong_header(scan, signs):
    """The same voxels, said to lie the other way round along x, y, z."""
    mirror = np.diag([*signs, 1]).astype(float)
    mirror[:3, 3] = (1 - np.array(signs)) * scan.geometry.centre_mm
    return replace(scan, geometry=Geometry(scan.geometry.shape, mirror @ scan.geometry.affine))


def is_suspected(said):
    return any(word in line for line in said for word in SUSPECTED)


def page(rows, turns):
    text = header("Wrong pairs and wrong headers", "python evidence/wrong_pairs.py")
    real = [row for row in rows if row[0].kind == "real"]
    made = [row for row in rows if row[0].kind == "made"]
    others = [row for row in rows if row[0].kind == "crossed"]
    text += f"""
## Is it one patient?

Agreement (mean local correlation of the bodies, times the root of the share that both show) after the affine search,
by whose scans they are; and by how much the affine search wanted to stretch. `said` counts pairs with the words *is it
one patient?* or *check ... that it is one patient*. Words on pairs of one patient: {count(real)} of {len(real)} real
pairs and {count(made)} of {len(made)} made ones (one scan, bent by 5 to 20 mm, turned, cut, with noise). Words on
pairs of two patients: **{count(others)} of {len(others)}**. The thresholds were chosen on these same pairs, and there
are few real ones: no rate is to be read from this.

| Scans | Whose | Pairs | Agreement, least to most | Stretch, least to most | Said |
|---|---|---|---|---|---|
"""
    for group, kind in dict.fromkeys((pair.group, pair.kind) for pair, _, _ in rows):
        mine = [row for row in rows if (row[0].group, row[0].kind) == (group, kind)]
        agreement = spread([found.agreement for _, found, _ in mine])
        stretch = spread([found.stretch for _, found, _ in mine])
        text += f"| {group} | {WHOSE[kind]} | {len(mine)} | {agreement} | {stretch} | {count(mine)} |\n"
    text += "\nOther words that were said, with the number of pairs:\n\n"
    for kind, whose in WHOSE.items():
        for words, number in other_words([row for row in rows if row[0].kind == kind]):
            text += f"- {whose}: {number} x {words}\n"
    return text + turn_table(turns, sum(found.turn is not None for _, found, _ in real))


WHOSE = {"real": "one patient, two visits", "made": "one scan, moved", "crossed": "two patients"}


def count(rows):
    return sum(is_suspected(said) for _, _, said in rows)


def spread(values):
    return f"{min(values):.2f}" if len(values) == 1 else f"{min(values):.2f} to {max(values):.2f}"


def other_words(rows):
    """Warnings without their numbers, counted."""
    lines = [line.split(" (")[0] for _, _, said in rows for line in said if not is_suspected([line])]
    return Counter(lines).most_common()


def turn_table(turns, wrongly):
    text = f"""
## A header the wrong way round

The follow-up of every real pair with each of the seven wrong headers: turned by 180 degrees about an axis (two axes
swapped) or mirrored (one or three). Agreement after the rigid search as the header says, and so as it was aligned in
the end; `named` counts the scans whose swapped axes were all named, and which were aligned so. With their right headers
{wrongly} of these pairs were called turned or mirrored.

| Swapped | What | Named | Agreement as its header says | Agreement as aligned |
|---|---|---|---|---|
"""
    for signs in dict.fromkeys(row[2] for row in turns):
        mine = [row for row in turns if row[2] == signs]
        axes = " ".join(axis for axis, sign in zip("xyz", signs, strict=True) if sign < 0)
        what = "mirrored" if axes.count("x") + axes.count("y") + axes.count("z") != 2 else "half a turn"
        named = f"{sum(row[5] for row in mine)} of {len(mine)}"
        text += f"| {axes} | {what} | {named} | {spread([r[3] for r in mine])} | {spread([r[4] for r in mine])} |\n"
    missed = [f"{row[0]} {row[1]} ({''.join('+-'[s < 0] for s in row[2])})" for row in turns if not row[5]]
    return text + (f"\nMissed: {', '.join(missed)}.\n" if missed else "\nNone was missed.\n")


if __name__ == "__main__":
    main()

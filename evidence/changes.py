"""A thousand drawn changes on phantoms and real scans: volume, folds, inverse, events and untouched tissue, counted."""

from __future__ import annotations

import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from provenance import header, write
from synthesis_sources import DATA, lesions, parotids

from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.synth.check import Checked, check
from lesionlocator.synth.lesion import (
    Appear,
    Graft,
    Grow,
    Merge,
    Necrosis,
    RimChange,
    Shrink,
    Split,
    UptakeChange,
    Vanish,
)
from lesionlocator.synth.visit import Visit
from lesionlocator.volume import Mask, Modality, Volume

KINDS = (Grow, Shrink, Vanish, Appear, Graft, Split, Merge, Necrosis, RimChange, UptakeChange)
PHANTOMS: tuple[tuple[Modality, tuple[float, float, float]], ...] = (
    ("CT", (1.5, 1.5, 1.5)),
    ("CT", (4.0, 0.9, 0.9)),
    ("MR", (3.0, 1.2, 1.2)),
    ("PT", (3.3, 4.0, 4.0)),
)
LARGEST_ML = 60.0
"""Real lesions up to this volume, so that the whole takes minutes; larger ones differ by their size only."""


@dataclass(frozen=True)
class Row:
    kind: str
    where: str
    checked: Checked
    missed_share: float | None
    missed_voxels: float | None
    seconds: float


def main():
    phantom_draws, scan_draws, scans = (int(v) for v in (*sys.argv[1:4], *(30, 5, 16)[len(sys.argv[1:4]) :]))
    command = " ".join(["python evidence/changes.py", *sys.argv[1:4]])
    text = header("Changes of a lesion: what was asked for and what was obtained", command)
    rows: list[Row] = []
    refused: dict[str, int] = defaultdict(int)
    for where, visit, draws in sources(phantom_draws, scan_draws, scans):
        for kind, seed in itertools.product(KINDS, range(draws)):
            measured(kind, visit, where, seed, rows=rows, refused=refused)
        print(where, len(rows), file=sys.stderr, flush=True)
    text += page(rows, refused, phantom_draws, scan_draws)
    write("changes", text)
    sys.exit(0 if all(row.checked.passed and volume_kept(row) for row in rows) else 1)


def sources(phantom_draws: int, scan_draws: int, scans: int) -> Iterator[tuple[str, Visit, int]]:
    for modality, spacing in (
        ("CT", (1.5, 1.5, 1.5)),
        ("CT", (4.0, 0.9, 0.9)),
        ("MR", (3.0, 1.2, 1.2)),
        ("PT", (3.3, 4, 4)),
    ):
        yield f"phantom {modality} {spacing[0]} mm", phantom(modality, spacing), phantom_draws
    if not DATA.exists() or scans == 0:
        return
    real = itertools.chain(lesions(), parotids(scans))
    small = (
        (patient, visit) for patient, visit in real if min(m.volume_ml for m in visit.lesions.values()) < LARGEST_ML
    )
    for patient, visit in itertools.islice(small, scans):
        kept = {name: mask for name, mask in visit.lesions.items() if mask.volume_ml < LARGEST_ML}
        yield f"{patient} {visit.source.modality}", visit.edited(lesions=kept), scan_draws


def phantom(modality: Modality, spacing: tuple[float, ...]) -> Visit:
    """Uneven tissue with noise, a rib, and three lesions of 8, 4 and 2 voxels of radius."""
    finest = min(spacing)
    shape = tuple(round(90 * finest / s) for s in spacing)
    affine = np.zeros((4, 4))
    affine[[0, 1, 2], [2, 1, 0]], affine[3, 3] = spacing, 1
    geometry = Geometry(shape, affine)
    at = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"))
    rng = np.random.default_rng(5)
    tissue, lesion, noise = {"CT": (-80.0, 60.0, 12.0), "MR": (300.0, 800.0, 20.0), "PT": (1.0, 8.0, 0.15)}[modality]
    array = np.full(shape, tissue) + 0.15 * abs(lesion - tissue) * np.sin(at / (6 * finest)).prod(axis=0)
    masks: dict[str, Mask] = {}
    middle = 45 * finest
    if modality == "CT":
        array[np.hypot(at[1] - middle, at[2] - 12 * finest) < 5 * finest] = 700.0
    for number, (offset, radius) in enumerate((((0, 0, 8), 8), ((0, 3, -8), 4), ((10, -18, 0), 2)), start=1):
        centre = middle + finest * np.array(offset, float)
        inside = np.sqrt(((at - centre[:, None, None, None]) ** 2).sum(axis=0)) <= radius * finest + 0.01
        array[inside] = lesion
        masks[str(number)] = Mask.from_array(inside, geometry)
    from scipy import ndimage

    array = ndimage.gaussian_filter(array, 0.6 * finest / np.array(spacing)) + rng.normal(0, noise, shape)
    return Visit.of(Volume(array.astype(np.float32), geometry, modality, "phantom"), masks)


def measured(kind: type, visit: Visit, where: str, seed: int, *, rows: list[Row], refused: dict[str, int]) -> None:
    started = time.process_time()
    drawn = kind.draw(np.random.default_rng(seed), visit)
    if drawn is None:
        return
    try:
        changed = drawn.apply(visit)
    except Refused:
        refused[kind.name] += 1
        return
    seconds = time.process_time() - started
    missed_share = missed_voxels = None
    if isinstance(drawn, (Grow, Shrink)):
        wanted = drawn.factor * visit.lesions[drawn.lesion_id].voxels
        missed_voxels = abs(changed.visit.lesions[drawn.lesion_id].voxels - wanted)
        missed_share = missed_voxels / wanted
    rows.append(Row(kind.name, where, check(visit, changed), missed_share, missed_voxels, seconds))


def volume_kept(row: Row) -> bool:
    return row.missed_share is None or row.missed_share <= 0.03 or row.missed_voxels <= 1


def page(rows: list[Row], refused: dict[str, int], phantom_draws: int, scan_draws: int) -> str:
    places = sorted({row.where for row in rows})
    text = (
        f"\n{len(rows)} changes were drawn and applied: {phantom_draws} seeds of each kind on four phantoms,"
        f" {scan_draws} on each of {len(places) - len(PHANTOMS)} real scans (lesions below {LARGEST_ML:.0f} ml, and"
        " parotid glands in place of lesions). A kind that does not suit a scan is"
        " not drawn there. Time is processor time for draw and apply.\n\n"
        "| Change | Drawn | Refused | Volume within 3 % | or a voxel | Least Jacobian | Largest error, voxels"
        " | Strayed voxels | Events right | Median time, s | Longest, s |\n" + "|---" * 11 + "|\n"
    )
    for name in [kind.name for kind in KINDS]:
        of_kind = [row for row in rows if row.kind == name]
        if of_kind:
            text += line(name, of_kind, refused[name])
    text += line("**all**", rows, sum(refused.values()))
    wrong = [row for row in rows if not (row.checked.passed and volume_kept(row))]
    text += f"\nPassed in everything: {len(rows) - len(wrong)} of {len(rows)}.\n"
    for row in wrong[:20]:
        text += f"\n- {row.kind} on {row.where}: {row.checked}, volume missed by {row.missed_share}"
    return text + "\n\nScans: " + ", ".join(places) + ".\n"


def line(name: str, rows: list[Row], refused: int) -> str:
    sized = [row for row in rows if row.missed_share is not None]
    exact = f"{sum(row.missed_share <= 0.03 for row in sized)} of {len(sized)}" if sized else "-"
    kept = f"{sum(volume_kept(row) for row in sized)} of {len(sized)}" if sized else "-"
    least = min(row.checked.least_volume_change for row in rows)
    error = max(row.checked.largest_error_voxels for row in rows)
    strayed = sum(row.checked.strayed_voxels for row in rows)
    right = sum(row.checked.events == row.checked.events_read for row in rows)
    seconds = [row.seconds for row in rows]
    return (
        f"| {name} | {len(rows)} | {refused} | {exact} | {kept} | {least:.3f} | {error:.2f} | {strayed} |"
        f" {right} of {len(rows)} | {np.median(seconds):.2f} | {max(seconds):.1f} |\n"
    )


if __name__ == "__main__":
    main()

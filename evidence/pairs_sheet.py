"""Pictures of synthetic pairs to be looked at: docs/synthetic_pairs.png from public scans, and 24 pairs of all sources.

`python evidence/pairs_sheet.py` makes both. The second shows scans that are not part of the repository and is written
beside it; its place is printed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
import numpy as np
from provenance import ROOT, header, write

from lesionlocator.dataset.make import run_synthesize, source_folder
from lesionlocator.dataset.reading import read_item
from lesionlocator.dataset.recipe import RELEASED, find_recipe, read_recipe, write_recipe
from lesionlocator.dataset.settings import SynthesizeSettings
from lesionlocator.dataset.truth import read_map
from lesionlocator.geometry import Geometry
from lesionlocator.resample import resample
from lesionlocator.volume import Volume

mpl.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
PUBLIC, ALL = ROOT / "docs" / "synthetic_pairs.png", ROOT.parent / "synthetic_pairs_all_sources.png"
COLOURS = ("#ffb52e", "#4cc9f0", "#ff6fa3", "#9be564", "#c79bff", "#f6e27f")
INTEREST = ("split", "merged", "vanished", "new", "same", "outside", "unsure")
"""Which event of a pair is shown, the first that it has."""
PIXELS = 200
COUNT = 24


def main(only="both"):
    if only in ("both", "public"):
        draw(PUBLIC, 8, ("archive",), columns=2)
    if only in ("both", "all") and DATA.is_dir():
        draw(ALL, COUNT, ("archive", str(DATA)), columns=4)
    text = header("Synthetic pairs, looked at", "python evidence/pairs_sheet.py")
    text += f"""
Baseline left, follow-up right, one lesion of each pair; a lesion keeps its colour. What happened to it stands above,
with its volumes.

![Pairs from the scans of the pyradiomics archive](../synthetic_pairs.png)

Where the development scans are there, {COUNT} pairs over all sources are drawn too, into `{ALL.name}` beside the
repository, as its scans are not part of it.
"""
    write("pairs_sheet", text)


def draw(path, count, folders, columns):
    """One sheet of pairs of the released recipe, over all collections that these folders hold in turn."""
    panels = []
    with tempfile.TemporaryDirectory() as temporary:
        for folder in folders:
            part = read_recipe(find_recipe(RELEASED)).on(source_folder(folder))
            share = count if len(folders) == 1 else 4 if folder == "archive" else count - 4
            part = part.only(in_turn(part, share))
            recipe, out = Path(temporary) / "part.jsonl", Path(temporary) / Path(folder).name
            write_recipe(recipe, part)
            made = run_synthesize(folder, out, SynthesizeSettings(recipe=str(recipe), pictures=0, workers=1), tell)
            panels += [panel(out, item, made.recipe.sources[item.source]) for item in made.recipe.items]
    sheet(path, panels, columns)


def tell(text):
    print(text, file=sys.stderr, flush=True)


def in_turn(recipe, count):
    """Pairs of as many collections and scans as there are."""
    groups = {}
    for item in recipe.items:
        if item.visits == 2:
            groups.setdefault(recipe.sources[item.source].collection, {}).setdefault(item.source, []).append(item)
    chosen, turn = [], 0
    while len(chosen) < count:
        for scans in groups.values():
            own = list(scans.values())
            items = own[turn % len(own)]
            if turn // len(own) < len(items) and len(chosen) < count:
                chosen.append(items[turn // len(own)])
        turn += 1
    return chosen


def panel(out, item, source):
    """(title, [(image, window, outlines)] at both visits) of the lesion to which most happened."""
    case = read_item(out, item.name, source.scan(out).modality)
    events = sorted(case.events(), key=lambda event: INTEREST.index(event.event.value))
    volumes = [timepoint.load() for timepoint in case.timepoints]
    chosen, places, extent = place_of(case, events, out / "truth" / item.name / "maps")
    field_mm = float(np.clip(2.5 * extent, 50, 160))
    views = [
        view(volume, at, field_mm, point) for volume, at, point in zip(volumes, places, case.timepoints, strict=True)
    ]
    if volumes[0].modality == "CT":
        # One window for both, or the same tissue would look like another.
        views[1] = (views[1][0], views[0][1], views[1][2])
    sizes = [
        " / ".join(f"{lesion.mask.volume_ml:.1f}" for lesion in point.lesions if lesion.id in chosen and lesion.mask)
        for point in case.timepoints
    ]
    happened = events[0].event.value if events else "no lesion"
    return f"{source.id}: {happened}, {sizes[0] or '-'} to {sizes[1] or '-'} ml", views


def place_of(case, events, maps):
    """Ids of the lesion, its middle at both visits (through the maps where it is not there), and its extent in mm."""
    if not events:
        return set(), [timepoint.geometry.centre_mm for timepoint in case.timepoints], 60.0
    chosen = {name for name in (events[0].lesion_id, events[0].to_lesion_id) if name}
    found, extent = [], 10.0
    for timepoint in case.timepoints:
        masks = [lesion.mask for lesion in timepoint.lesions if lesion.id in chosen and lesion.mask is not None]
        largest = max(masks, key=lambda mask: mask.voxels, default=None)
        found.append(largest.deepest_mm if largest is not None else None)
        extent = max([extent, *(float(np.ptp(mask.points_mm, axis=0)[:2].max()) for mask in masks)])
    names = [timepoint.name for timepoint in case.timepoints]
    for here, there in ((0, 1), (1, 0)):
        if found[here] is None and found[there] is not None:
            found[here] = read_map(maps / f"{names[there]}_to_{names[here]}.npz")(found[there][None])[0]
    return chosen, [at if at is not None else case.timepoints[0].geometry.centre_mm for at in found], extent


def view(volume, at_mm, field_mm, timepoint):
    step = field_mm / PIXELS
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = 0.5, step, step
    affine[3, 3] = 1.0
    affine[:3, 3] = at_mm - np.array([1.0, 1.0, 0.0]) * step * (PIXELS - 1) / 2
    plane = Geometry((1, PIXELS, PIXELS), affine)
    image = resample(volume, plane, outside=-1024.0 if volume.modality == "CT" else 0.0)[0]
    outlines = {}
    for lesion in timepoint.lesions:
        if lesion.mask is not None:
            d, h, w = lesion.mask.geometry.shape
            around = lesion.mask.geometry.crop((-1, -1, -1), (d + 1, h + 1, w + 1))
            soft = Volume(np.pad(lesion.mask.array, 1).astype(np.float32), around, "MR")
            outlines[lesion.id] = resample(soft, plane, outside=0.0)[0]
    return image, window(volume, image), outlines


def window(volume, image):
    if volume.modality == "CT":
        return (-1350.0, 250.0) if np.mean((image > -980) & (image < -500)) > 0.2 else (-160.0, 240.0)
    low, high = np.nanquantile(image, (0.01, 0.995))
    return (float(low), max(float(high), float(low) + 1e-3))


def sheet(path, panels, columns):
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, 2 * columns, figsize=(3.3 * columns, 1.85 * rows), facecolor="black", squeeze=False
    )
    for axis in axes.ravel():
        axis.axis("off")
    for number, (title, views) in enumerate(panels):
        for side, (image, (low, high), outlines) in enumerate(views):
            axis = axes[number // columns, 2 * (number % columns) + side]
            axis.imshow(image, cmap="gray", vmin=low, vmax=high)
            for name, soft in outlines.items():
                if soft.max() > 0.5:
                    colour = COLOURS[(int(name) - 1) % len(COLOURS)] if name.isdecimal() else COLOURS[0]
                    axis.contour(soft, [0.5], colors=[colour], linewidths=0.8)
        left = axes[number // columns, 2 * (number % columns)]
        left.set_title(title, color="white", fontsize=6.5, loc="left", pad=2)
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.97, wspace=0.02, hspace=0.14)
    figure.savefig(path, dpi=110, facecolor="black", pil_kwargs={"optimize": True})
    plt.close(figure)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The default model on scans that anyone can get and no network learned from: real tumours, drawn ones, cost, pictures.

`python evidence/default_model.py` needs nothing but the public archive, so that anyone can repeat it.
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from learned import Asking, by_kind, table
from provenance import ROOT, header, write
from segmenters import simplest_rules, whole

from lesionlocator.case import Lesion
from lesionlocator.demo.archive import cache_folder, public_scans
from lesionlocator.demo.chest import LEFT_LOWER, draw_chest
from lesionlocator.formats import read_volume, write_prompts, write_volume
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click
from lesionlocator.resample import resample
from lesionlocator.segment import load_segmenter
from lesionlocator.synth.lesion import Appear
from lesionlocator.synth.paint import RegionSettings
from lesionlocator.synth.scene import Backgrounds
from lesionlocator.synth.visit import Visit
from lesionlocator.train.sources import Painted, as_background
from lesionlocator.volume import Mask, Volume

mpl.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

MODEL = "zoom"
METHODS = ("ellipsoid", "Otsu", "intensity", MODEL)
PROMPTS = ("box", "moved-box:0.1", "deepest-click", "inner-click")
SIZES = {"12 to 15 mm": (12.0, 15.0), "15 to 20 mm": (15.0, 20.0), "20 to 30 mm": (20.0, 30.0)}
"""The synthesis draws nothing smaller where slices are 5 to 6.5 mm apart, as they are in all four."""
DRAWN, EACH = 10, 16
KINDS = ("ring", "branch", "parts", "lobed", "necrotic")
SEED = 30_11
MANY = 32
COLD_SHAPE = (150, 512, 512)
PICTURE = ROOT / "docs" / "default_model.png"
COMMAND = "from lesionlocator.cli import main; main()"


def main():
    scans = {name: tumour(name, *files) for name, files in public_scans(cache_folder()).items()}
    segmenters = {name: load_segmenter(name) for name in METHODS if name != "Otsu"}
    real = [row for name, (scan, truth) in scans.items() for row in asked(segmenters, scan, truth, name, name)]
    print("the tumours of the scans are done", file=sys.stderr)
    small = [row for size in SIZES for row in by_size(segmenters, scans, size)]
    print("lesions by size are done", file=sys.stderr)
    painted = [row for kind in KINDS for row in by_shape(segmenters, scans, kind)]
    draw(scans, segmenters[MODEL])
    write("default_model", page(real, small, painted, cost(scans)))


def tumour(name, image, label):
    """A scan of the archive with its tumour as one outline."""
    scan = read_volume(image, "CT" if name.startswith("lung") else "MR")
    return scan, whole(label)


def asked(segmenters, scan, truth, name, kind, prompts=PROMPTS):
    """One row for each method and prompt; Otsu's rule takes a box alone."""
    found = []
    for method in METHODS:
        if method == "Otsu":
            made = [(prompt, Asking(None, None, truth, name).made(prompt)[0]) for prompt in prompts]
            boxes = [(prompt, box) for prompt, box in made if isinstance(box, Box)]
            rows = [{"prompt": prompt, "dice": best(simplest_rules(scan, box), truth)} for prompt, box in boxes]
        else:
            asking = Asking(segmenters[method], segmenters[method].prepare(scan), truth, name)
            rows = [asking.asked(prompt, asking.made(prompt)) for prompt in prompts]
        found += [{"kind": kind, "patient": name, "method": method, **row} for row in rows]
    return found


def best(sides, truth):
    """Dice of the better side of the threshold: more than the rule itself could know."""
    return max(truth.dice(side) for side in sides)


def by_size(segmenters, scans, size):
    """Drawn lesions of a size in these scans, as the synthesis makes them."""
    rng, found = np.random.default_rng([SEED, len(size)]), 0
    low, high = SIZES[size]
    visits = itertools.cycle([Visit.of(scan, {"1": truth}) for scan, truth in scans.values()])
    # Not every scan has room for every size: the next one is asked.
    for visit in visits:
        if found == DRAWN:
            return
        drawn = Appear.draw(rng, visit)
        if drawn is None or not low <= 2 * drawn.radius_mm < high:
            continue
        changed = drawn.apply(visit).visit
        lesion = next(mask for key, mask in changed.lesions.items() if key != "1")
        if lesion.voxels < 4:
            continue
        found += 1
        yield from asked(segmenters, changed.volume, lesion, f"{size} {found}", size, ("box", "deepest-click"))


def by_shape(segmenters, scans, kind):
    """Lesions of a shape, painted into these scans the way training regions are, from a seed of their own."""
    backgrounds = Backgrounds.gather([as_background(scan) for scan, _ in scans.values()])
    settings = RegionSettings(kind=kind, difficulty=0.6, pet_share=0.0)
    source = Painted(backgrounds, replace(settings, mr_share=1.0) if kind == "ring" else settings)
    rng = np.random.default_rng([SEED, *kind.encode()])
    for number in range(EACH):
        region = source(rng, 1.0)
        array = np.nan_to_num(region.scan.array, nan=float(np.nanmin(region.scan.array)))
        truth = Mask.from_array(region.truth, region.scan.geometry)
        scan = replace(region.scan, array=array)
        yield from asked(segmenters, scan, truth, f"{kind} {number}", kind, ("box",))


# --------------------------------------------------------------------------------------------------------------- cost


def cost(scans):
    """Seconds and megabytes: warm prompts, 32 lesions of one scan, and one outline from a cold start."""
    scan, truth = scans["lung2"]
    rows = []
    asks = {"one box": (Box.around(truth),), "one click": (Click(truth.deepest_mm),)}
    segmenter = load_segmenter(MODEL)
    prepared = segmenter.prepare(scan)
    for name, ask in asks.items():
        segmenter.outline(prepared, [ask])
        rows.append([f"{name}, warm", f"{middle(lambda ask=ask: segmenter.outline(prepared, [ask])):.2f}"])
    boxes = [(moved(Box.around(truth), number),) for number in range(MANY)]
    rows.append(
        [f"{MANY} boxes of one scan at once, warm", f"{middle(lambda: segmenter.outline(prepared, boxes)):.2f}"]
    )
    with tempfile.TemporaryDirectory() as folder:
        rows += cold(Path(folder))
    return table(["What", "Seconds, or as said"], rows)


def moved(box, number):
    """The box a little elsewhere, so that no two are the same."""
    at = np.array([number % 4, number // 4 % 4, number // 16]) * 4.0
    return Box(box.corner + at, box.edges)


def middle(work):
    found = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return float(np.median(found))


def cold(folder):
    """A new program outlines one lesion of a 512 x 512 x 150 CT, from file to file; the middle of three."""
    chest, masks = draw_chest((LEFT_LOWER,), np.random.default_rng(SEED))
    factor = np.array(chest.geometry.shape) / np.array(COLD_SHAPE)
    affine = chest.geometry.affine.copy()
    affine[:3, 3] = chest.geometry.index_to_world(((factor - 1) / 2)[None])[0]
    affine[:3, :3] *= factor
    grid = Geometry(COLD_SHAPE, affine)
    write_volume(
        folder / "scan.nii.gz", replace(chest, array=np.round(resample(chest, grid)).astype(np.int16), geometry=grid)
    )
    asked = [Lesion(name, (Box.around(mask),)) for name, mask in masks.items()]
    write_prompts(folder / "prompts.json", asked, grid)
    spent = []
    for number in range(3):
        words = ["segment", "scan.nii.gz", "--prompts", "prompts.json", "--modality", "CT", "--out", f"out{number}"]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", COMMAND, *words], cwd=folder, capture_output=True, check=True)
        whole = time.perf_counter() - began
        timings = json.loads((folder / f"out{number}" / "run.json").read_text())["timings_s"]
        spent.append(
            {"all of it": whole, **timings, "start of the program and the rest": whole - sum(timings.values())}
        )
    what = "512 x 512 x 150 CT (.nii.gz), one box, `segment`, cold"
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    own = np.prod(COLD_SHAPE) * np.dtype(np.int16).itemsize / 1024**2
    return [
        *([f"{what}: {name}", f"{np.median([one[name] for one in spent]):.2f}"] for name in spent[0]),
        [f"{what}: most memory it held, MB (the scan itself is {own:.0f})", f"{most:.0f}"],
    ]


# ------------------------------------------------------------------------------------------------------------- picture


def draw(scans, segmenter):
    """Each tumour where it is largest: the reader's outline dashed, the model's from a box, a moved box and a click."""
    figure, axes = plt.subplots(
        len(PROMPTS), len(scans), figsize=(3 * len(scans), 3.15 * len(PROMPTS)), facecolor="#0e1117"
    )
    for column, (name, (scan, truth)) in enumerate(scans.items()):
        prepared = segmenter.prepare(scan)
        plane = Plane(scan, truth)
        for axis, prompt in zip(axes[:, column], PROMPTS, strict=True):
            ask = Asking(segmenter, prepared, truth, name).made(prompt)
            (outline,) = segmenter.outline(prepared, [ask])
            found = outline.mask
            dice = 0.0 if found is None else found.dice(truth)
            axis.imshow(plane.image, cmap="gray", vmin=plane.low, vmax=plane.high)
            plane.contour(axis, truth, "#ffffff", "dashed")
            plane.contour(axis, found, "#ffb52e", "solid")
            sure = "" if outline.confidence is None else f", sure {outline.confidence:.2f}"
            axis.set_title(f"{name}, {prompt}: {dice:.2f}{sure}", color="#eef1f5", fontsize=8)
            axis.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(PICTURE, dpi=70, facecolor="#0e1117", pil_kwargs={"optimize": True})
    plt.close(figure)


class Plane:
    """The slice of a scan in which a tumour is largest, and the field round it, looked at with square pixels."""

    def __init__(self, scan, truth, pixels=220):
        size = np.array(truth.array.shape) * truth.geometry.spacing_mm
        axis = int(np.argmax(scan.geometry.spacing_mm))
        others = [a for a in range(3) if a != axis]
        areas = truth.array.sum(axis=tuple(others))
        inside = np.argwhere(np.take(truth.array, int(np.argmax(areas)), axis=axis)).mean(axis=0)
        index = np.zeros(3)
        index[axis], index[others] = int(np.argmax(areas)), inside
        at = truth.geometry.index_to_world(index[None])[0]
        step = float(max(2.2 * size[others].max(), 50.0)) / pixels
        affine = np.eye(4)
        direction = scan.geometry.affine[:3, :3] / scan.geometry.spacing_mm
        affine[:3, :3] = direction[:, [axis, *others]] * [scan.geometry.spacing_mm[axis], step, step]
        affine[:3, 3] = at - affine[:3, 1:3] @ np.full(2, (pixels - 1) / 2)
        self.grid = Geometry((1, pixels, pixels), affine)
        self.image = resample(scan, self.grid)[0]
        if scan.modality == "CT":
            self.low, self.high = (-1350.0, 250.0)
        else:
            self.low, self.high = (float(v) for v in np.quantile(self.image, (0.01, 0.995)))

    def contour(self, axis, mask, colour, style):
        if mask is None:
            return
        around = mask.geometry.crop((-1, -1, -1), tuple(n + 1 for n in mask.geometry.shape))
        soft = resample(Volume(np.pad(mask.array, 1).astype(np.float32), around, "MR"), self.grid, outside=0.0)[0]
        if soft.max() > 0.5:
            axis.contour(soft, [0.5], colors=[colour], linestyles=[style], linewidths=1.1)


# ---------------------------------------------------------------------------------------------------------------- page


def page(real, small, painted, costs):
    text = header(f"The default model (`{MODEL}`) on scans that anyone can get", "python evidence/default_model.py")
    text += """
The two chest CT and two brain MR of the `pyradiomics` 3.0.1 source archive were kept out of all training. Dice, mean.
*Otsu*: Otsu's threshold in the box, cut with the inscribed ellipsoid, and of its two sides the one that is nearer to
the truth.

![Outlines over the four scans](../default_model.png)

Dashed: the reader's outline. Below, the same as numbers.
"""
    for prompt in PROMPTS:
        methods = METHODS if "box" in prompt else tuple(name for name in METHODS if name != "Otsu")
        text += f"\n## {prompt}\n\n" + by_kind([one for one in real if one["prompt"] == prompt], methods)
    text += f"\n## Small lesions, drawn into these scans by the synthesis, {DRAWN} of each size\n\n"
    text += "Slices are 5 to 6.5 mm apart in all four scans, so nothing smaller than 12 mm is drawn.\n\n"
    for prompt in ("box", "deepest-click"):
        methods = METHODS if prompt == "box" else tuple(name for name in METHODS if name != "Otsu")
        own = [one for one in small if one["prompt"] == prompt]
        text += f"{prompt}\n\n" + rows_of(own, methods, list(SIZES)) + "\n"
    text += f"## Shapes, painted into these scans, {EACH} of each, from the tight box\n\n"
    text += (
        "A ring is asked for without its core, on MR. An ellipsoid is the answer of a network that does not look.\n\n"
    )
    text += rows_of(painted, METHODS, list(KINDS))
    return text + "\n## Cost\n\nOn the machine above, median of five.\n\n" + costs


def rows_of(rows, methods, kinds):
    found = []
    for kind in kinds:
        means = [np.mean([r["dice"] for r in rows if (r["kind"], r["method"]) == (kind, m)]) for m in methods]
        found.append([kind, *(f"{mean:.3f}" for mean in means)])
    return table(["Kind", *methods], found)


if __name__ == "__main__":
    main()

"""Draws the picture of the README: two tumours in a made-up chest, followed over three scans by the program itself.

    python docs/make_picture.py

No patient is in it. The scans are drawn (`lesionlocator.demo.chest`); at each visit the patient lies and breathes
differently, one tumour grows and then shrinks, the other shrinks and is gone. What is shown is what `track` found from
a box around each tumour in the first scan.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np

from lesionlocator.case import Lesion
from lesionlocator.demo.chest import LEFT_LOWER, RIGHT_UPPER, Tumour, draw_chest
from lesionlocator.demo.followup import Change, make_followup
from lesionlocator.formats import write_prompts, write_volume
from lesionlocator.picture import draw_case
from lesionlocator.prompt import Box
from lesionlocator.run import TrackSettings, run_track

BACKGROUND = "#0e1117"
COLOURS = ("#eef1f5", "#ffb52e", "#4cc9f0", "#8d97a5", "#ff8a75", "#7ddc9c")
PICTURE = Path(__file__).parent / "picture.png"
VISITS: tuple[tuple[str, tuple[float, float], Change | None], ...] = (
    ("january", (13.0, 9.0), None),
    ("april", (15.5, 6.6), Change(1.0, (1.0, -0.8, 3.0), (12.0, -15.0, 240.0), 7.0, (2.5, 1.0, 1.0))),
    ("july", (9.5, 0.0), Change(1.0, (-1.0, 0.6, -2.5), (-9.0, 10.0, -130.0), 6.0, (3.0, 0.9, 0.9))),
)
"""Name, radius of each tumour in mm (0 is gone), and how the patient lies."""


def tumours(radii_mm: tuple[float, float]) -> tuple[Tumour, ...]:
    """Those that are there at a visit."""
    pairs = zip((RIGHT_UPPER, LEFT_LOWER), radii_mm, strict=True)
    return tuple(dataclasses.replace(tumour, radius_mm=radius) for tumour, radius in pairs if radius > 0)


def write_scans(folder: Path) -> tuple[list[Path], Path]:
    """The three scans and the prompts."""
    scans: list[Path] = []
    for seed, (name, radii_mm, change) in enumerate(VISITS):
        # One generator seed: it is the same patient at every visit.
        volume, masks = draw_chest(tumours(radii_mm), np.random.default_rng(4))
        if change is None:
            lesions = [Lesion(lesion_id, (Box.around(mask).grown(1.5),)) for lesion_id, mask in masks.items()]
            write_prompts(folder / "prompts.json", lesions)
        else:
            volume, _ = make_followup(volume, masks, change, np.random.default_rng(seed))
        scans.append(folder / f"{name}.nii.gz")
        write_volume(scans[-1], volume)
    return scans, folder / "prompts.json"


def shrink(picture: Path) -> None:
    """A palette of greys and of the few colours that are used: a third of the bytes, and nobody sees it."""
    from PIL import Image, ImageColor

    greys = [(level, level, level) for level in np.linspace(0, 255, 104).astype(int)]
    page = np.array(ImageColor.getrgb(BACKGROUND))
    inks = [np.array(ImageColor.getrgb(colour)) for colour in COLOURS]
    shades = [page + (ink - page) * share for ink in inks for share in np.linspace(0, 1, 24)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.round([*greys, *shades]).astype(np.uint8).tobytes())
    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)
    small.save(picture, optimize=True)


def main() -> None:
    """Draw and shrink it."""
    with tempfile.TemporaryDirectory() as name:
        scans, prompts = write_scans(Path(name))
        settings = TrackSettings(prompts=prompts, out=Path(name) / "result", modality="CT")
        finished = run_track(scans, settings, lambda line: sys.stderr.write(line + "\n") and None)
        draw_case(finished.case, PICTURE, title="Two tumours in a made-up chest, followed over three scans")
    shrink(PICTURE)
    sys.stderr.write(f"{PICTURE.name}: {PICTURE.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()

"""Tiny made-up scans for the tests of data sets, and a data set of them that a test can kill."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from files import save_nifti
from lesionlocator.dataset.make import run_synthesize
from lesionlocator.dataset.settings import SynthesizeSettings
from phantoms import FAT_HU, in_ellipsoid, upright

GRID = upright((14, 24, 26), 4.0, (0.0, 0.0, 0.0))
BODY = (46.0, 42.0, 100.0)
LESIONS = {"two": {2: ((-18.0, 4.0, 4.0), 11.0), 5: ((20.0, -6.0, -8.0), 9.0)}, "one": {1: ((10.0, 8.0, 0.0), 12.0)}}


def save_sources(folder: Path) -> Path:
    """Three CT in the plain layout: with two lesions, with one, with none."""
    for number, name in enumerate(("none", "one", "two")):
        array = np.where(in_ellipsoid(GRID, (0, 0, 0), BODY), FAT_HU, -1000.0)
        labels = np.zeros(GRID.shape, np.uint8)
        for label, (centre, radius) in LESIONS.get(name, {}).items():
            where = in_ellipsoid(GRID, centre, (radius,) * 3)
            array[where], labels[where] = 60.0, label
        array += np.random.default_rng(number).normal(0, 12, GRID.shape)
        for kind in ("images", "labels")[: 2 if labels.any() else 1]:
            (folder / kind).mkdir(parents=True, exist_ok=True)
        save_nifti(folder / "images" / f"{name}.nii.gz", array.astype(np.int16), GRID)
        if labels.any():
            save_nifti(folder / "labels" / f"{name}.nii.gz", labels, GRID)
    return folder


def main(kind: str, source: str, out: str, pairs: str) -> None:
    settings = SynthesizeSettings(pairs=int(pairs), seed=4, modality="CT", executor=kind, workers=2, pictures=0)
    run_synthesize(source, Path(out), settings)


if __name__ == "__main__":
    main(*sys.argv[1:])

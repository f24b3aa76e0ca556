"""Noise and edges before and after a synthetic re-acquisition, against what was drawn: on real CT and on a phantom."""

from __future__ import annotations

import sys

import numpy as np
from provenance import ROOT, header, write
from scipy import ndimage, optimize, special

from lesionlocator.formats import read_volume
from lesionlocator.geometry import Geometry
from lesionlocator.measure import axial_axis
from lesionlocator.synth.scanner import FWHM, Dose, Kernel, Reslice, strength
from lesionlocator.synth.visit import Visit
from lesionlocator.volume import Volume

DATA = ROOT.parent / "shared" / "data"
SCANS = {
    "trunk_ct": "trunk_ct/ct.nii.gz",
    "lung_ct": "lung_ct/ct.nii.gz",
    "liver 1004": "liver_ct/CRLM-CT-1004.nii.gz",
    "liver 1006": "liver_ct/CRLM-CT-1006.nii.gz",
}
PATCH, PATCHES, MIDDLE = 24, 60, 24
BANDS = (0.3, 0.5, 0.7)


def phantom():
    """A cylinder of muscle in air, 0.8 mm pixels, 1 mm slices, with the noise of a scanner and edges of a pixel."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 0.8], [0, 0.8, 0], [1.0, 0, 0]])
    geometry = Geometry((60, 256, 256), affine)
    rows, columns = np.indices((256, 256)) - 127.5
    disc = ndimage.gaussian_filter((np.hypot(rows, columns) < 100).astype(float), 0.8)
    slab = 1 / (1 + np.exp(-(np.arange(60) - 29.5) / 0.5))[:, None, None]
    array = -1000 + 1050 * disc * (0.3 + 0.7 * slab) + np.random.default_rng(0).normal(0, 12, geometry.shape)
    return Volume(array.astype(np.float32), geometry, "CT", "phantom")


def cropped(volume):
    """The middle slices, as floating numbers, slices first."""
    axis = axial_axis(volume.geometry)
    start, stop = [0, 0, 0], list(volume.geometry.shape)
    middle = stop[axis] // 2
    start[axis], stop[axis] = max(0, middle - MIDDLE), min(stop[axis], middle + MIDDLE)
    part = volume.crop(tuple(start), tuple(stop))
    return Visit.of(Volume(np.array(part.array, np.float32), part.geometry, "CT", volume.name), {})


def planes(volume):
    return np.moveaxis(volume.array, axial_axis(volume.geometry), 0)


def quiet_patches(array):
    """Corners of the patches of soft tissue with the least spread: noise and little else."""
    mean = ndimage.uniform_filter(array, (1, PATCH, PATCH))
    spread = ndimage.uniform_filter(array**2, (1, PATCH, PATCH)) - mean**2
    half = PATCH // 2
    spread[(mean < -150) | (mean > 200)] = np.inf
    spread[:, :half], spread[:, -half:], spread[:, :, :half], spread[:, :, -half:] = (np.inf,) * 4
    corners = []
    for flat in np.argsort(spread[:, ::half, ::half].ravel()):
        d, h, w = np.unravel_index(flat, spread[:, ::half, ::half].shape)
        if not np.isfinite(spread[d, h * half, w * half]) or len(corners) == PATCHES:
            break
        corners.append((d, h * half - half, w * half - half))
    return corners


def power(array, corners):
    """Mean power of the patches, a plane fitted away, by frequency; and the frequencies as shares of the highest."""
    rows, columns = np.indices((PATCH, PATCH)).reshape(2, -1)
    plane = np.stack([rows, columns, np.ones_like(rows)], axis=1)
    fade = np.hanning(PATCH + 2)[1:-1]
    fade = np.outer(fade, fade)
    total = np.zeros((PATCH, PATCH))
    for d, h, w in corners:
        patch = array[d, h : h + PATCH, w : w + PATCH].astype(float)
        flat = plane @ np.linalg.lstsq(plane, patch.ravel(), rcond=None)[0]
        total += np.abs(np.fft.fft2((patch - flat.reshape(patch.shape)) * fade)) ** 2
    frequency = 2 * np.hypot(*np.meshgrid(np.fft.fftfreq(PATCH), np.fft.fftfreq(PATCH), indexing="ij"))
    return total / len(corners) / (fade**2).sum(), frequency


def by_band(values, frequency):
    return [float(values[np.abs(frequency - band) < 0.1].mean()) for band in BANDS]


def skin_lines(array):
    """Where rows of the middle step cleanly from air to tissue: (plane, row, direction, place of -500 HU)."""
    found = []
    middle = array.shape[1] // 2
    for d, plane in enumerate(array):
        for h in range(middle - 20, middle + 20):
            for step in (1, -1):
                line = plane[h, ::step]
                above = np.flatnonzero(line > -500)
                at = int(above[0]) if len(above) else 0
                # No arm, no table, no shirt.
                if (
                    at < 10
                    or at + 9 > len(line)
                    or line[at - 8 : at - 4].max() > -850
                    or line[at + 4 : at + 9].min() < -200
                ):
                    continue
                found.append((d, h, step, at - (line[at] + 500) / (line[at] - line[at - 1])))
    return found


def edge_mm(array, lines, pixel_mm):
    """Standard deviation of the edge over all these lines: that of the Gaussian whose integral fits them best."""
    if len(lines) < 40:
        return None
    at, hu = [], []
    for d, h, step, place in lines:
        first = int(place) - 7
        at.extend(np.arange(first, first + 16) - place)
        hu.extend(array[d, h, ::step][first : first + 16])

    def step_of(x, air, tissue, place, sigma):
        return air + (tissue - air) * special.ndtr((x - place) / sigma)

    fitted, _ = optimize.curve_fit(step_of, np.array(at), np.array(hu), (-1000.0, -50.0, 0.0, 1.0))
    return abs(float(fitted[3])) * pixel_mm


def pixel_of(volume):
    axis = axial_axis(volume.geometry)
    return float(volume.geometry.spacing_mm[(axis + 1) % 3])


def kernels(visit):
    """Rows: power after over before at three frequencies, drawn and measured; the edge, drawn and measured."""
    pixel = pixel_of(visit.volume)
    before = planes(visit.volume)
    corners = quiet_patches(before)
    start, frequency = power(before, corners)
    lines = skin_lines(before)
    for name, kernel in (("soft", Kernel(0.8 * pixel, 0.0, pixel)), ("sharp", Kernel(0.0, 0.8, 1.2 * pixel))):
        after = planes(kernel.apply(visit).visit.volume)
        measured, _ = power(after, corners)
        drawn = start * kernel.transfer(frequency.ravel() / 2 / pixel).reshape(frequency.shape) ** 2
        bands = zip(*(by_band(values, frequency) for values in (measured, drawn, start)), strict=True)
        ratios = [f"{m / s:.2f} / {d / s:.2f}" for m, d, s in bands]
        edges = edge_mm(before, lines, pixel), edge_mm(after, lines, pixel)
        edge = "no clean skin" if None in edges else f"{edges[1]:.2f} / {np.hypot(edges[0], kernel.blur_mm):.2f}"
        yield f"| {visit.volume.name} | {name} | {' | '.join(ratios)} | {edge if name == 'soft' else '-'} |"


def doses(visit):
    pixel = pixel_of(visit.volume)
    before = planes(visit.volume)
    corners = quiet_patches(before)
    start, frequency = power(before, corners)
    for added in (10.0, 25.0):
        dose = Dose(added, 0.4 * 0.5 / pixel, 0.5, 7)
        after, _ = power(planes(dose.apply(visit).visit.volume), corners)
        gained = after - start
        shape = dose.power(frequency / 2 / pixel)
        shape *= gained.mean() / shape.mean()
        spread = np.sqrt(start.mean()), np.sqrt(after.mean())
        bands = [f"{m / s:.2f}" for m, s in zip(by_band(gained, frequency), by_band(shape, frequency), strict=True)]
        here = np.moveaxis(strength(visit.volume.array, visit.geometry), axial_axis(visit.geometry), 0)
        shares = [here[d, h : h + PATCH, w : w + PATCH] ** 2 for d, h, w in corners]
        expected = np.hypot(spread[0], added * np.sqrt(np.mean(shares)))
        spreads = f"{spread[0]:.1f} | {spread[1]:.1f} / {expected:.1f}"
        yield f"| {visit.volume.name} | {added:.0f} | {spreads} | {' | '.join(bands)} |"


def slices(visit):
    """Power of lines across the slices, after over before, against the profile that was drawn."""
    axis = axial_axis(visit.geometry)
    own = float(visit.geometry.spacing_mm[axis])
    before = planes(visit.volume)
    for wider in (1.5, 2.5):
        reslice = Reslice(own, wider * own, pixel_of(visit.volume))
        after = planes(reslice.apply(visit).visit.volume)
        fade = np.hanning(len(before))[:, None, None]
        start, end = (
            (np.abs(np.fft.rfft((lines - lines.mean(axis=0)) * fade, axis=0)) ** 2).mean(axis=(1, 2))
            for lines in (before, after)
        )
        frequency = 2 * np.fft.rfftfreq(len(before))
        drawn = np.exp(-((np.pi * wider / FWHM * frequency) ** 2))
        near = [np.abs(frequency - band) < 0.05 for band in (0.15, 0.3, 0.45)]
        ratios = [
            f"{end[n].sum() / start[n].sum():.3f} / {(drawn * start)[n].sum() / start[n].sum():.3f}" for n in near
        ]
        yield f"| {visit.volume.name} | {own:.1f} | {wider * own:.1f} | {' | '.join(ratios)} |"


def main():
    volumes = [phantom()]
    if DATA.is_dir():
        for name, path in SCANS.items():
            found = read_volume(DATA / path, modality="CT")
            volumes.append(Volume(found.array, found.geometry, "CT", name))
    visits = [cropped(volume) for volume in volumes]
    write("reacquisition", page(visits))


def page(visits):
    rows = {kind: "\n".join(row for visit in visits for row in kind(visit)) for kind in (kernels, doses, slices)}
    return (
        header("Synthetic re-acquisition: noise and edges against what was drawn", "python evidence/reacquisition.py")
        + f"""
Middle slices of real CT and of a phantom that is drawn by the script. Noise power is that of the {PATCHES} quietest
patches of {PATCH} x {PATCH} pixels of soft tissue, at 0.3, 0.5 and 0.7 of the highest frequency of the pixels. Every
cell with a stroke says **measured / drawn**. Real tissue is never even, so the patches hold structure too, which a
kernel changes as it changes noise and which noise is added to. A scan with no clean step from air to skin in its middle
rows (a crop, a shirt, an arm) has no edge.

## Kernels

Power after over before; the edge is its standard deviation in mm, drawn as the root of the squares of what it was and
of the kernel's blur. The edges of scans with large pixels (`trunk_ct`: 3 mm) are narrower than a pixel, and no Gaussian
fits them.

| Scan | Kernel | 0.3 | 0.5 | 0.7 | edge, mm |
|---|---|---|---|---|---|
{rows[kernels]}

## Dose

HU of noise that were drawn, the standard deviation in the patches before and after, and the shape of the added power:
its share at three frequencies over that which was drawn. Near the skin less is added on purpose (rays through air are
hardly weakened); what is drawn for the patches takes that into account.

| Scan | Added | Before | After | 0.3 | 0.5 | 0.7 |
|---|---|---|---|---|---|---|
{rows[doses]}

## Slice profile

Power of lines across the slices after over before, at 0.15, 0.3 and 0.45 of the highest frequency of the slices, for a
profile of the width given (full width at half maximum) on slices as far apart as before.

| Scan | Slices, mm | Profile, mm | 0.15 | 0.3 | 0.45 |
|---|---|---|---|---|---|
{rows[slices]}
"""
    )


if __name__ == "__main__":
    sys.exit(main())

"""Whether this installation works: versions, memory, models, and a lesion of known volume outlined and measured."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from lesionlocator.errors import Refused
from lesionlocator.geometry import AffineMap, Geometry
from lesionlocator.prompt import Box
from lesionlocator.volume import Mask, Volume

_LIBRARIES = ("lesionlocator", "numpy", "scipy", "SimpleITK", "nibabel", "pydicom", "scikit-image", "matplotlib")
_RADIUS_MM = 12.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    finding: str


def examine() -> list[Check]:
    """All checks, in the order in which a person would look."""
    checks = [
        _checked("python", lambda: f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *(_checked(name, lambda name=name: metadata.version(name)) for name in _LIBRARIES),
        _checked("cores", lambda: str(os.cpu_count())),
        _checked("memory", _memory),
        _checked("disk", lambda: f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB free here"),
        _checked("alignment", _alignment),
    ]
    return [*checks, *verify_models(None)]


def verify_models(names: Sequence[str] | None) -> list[Check]:
    """For each model (all that are known by name, if none is named): its files are whole, and it outlines a phantom."""
    from lesionlocator.weights import damaged_models, list_models

    checks = [_checked(f"model {name}", lambda name=name: _model(name)) for name in (names or list(list_models()))]
    damaged = {} if names else damaged_models()
    return [*checks, *(Check(f"model {name}", False, reason) for name, reason in damaged.items())]


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except Refused as refused:
        return Check(name, False, str(refused))
    except Exception as error:  # noqa: BLE001 - whatever is broken is what a doctor is asked to find
        return Check(name, False, f"{type(error).__name__}: {error}")


def _memory() -> str:
    if not sys.platform.startswith("linux"):
        return "not known on this system"
    pages = os.sysconf("SC_AVPHYS_PAGES"), os.sysconf("SC_PHYS_PAGES")
    free, total = (count * os.sysconf("SC_PAGE_SIZE") / 1e9 for count in pages)
    return f"{free:.1f} GB free of {total:.1f} GB"


def _model(name: str) -> str:
    from lesionlocator.segment import load_segmenter

    volume, truth = _phantom()
    segmenter = load_segmenter(name)
    outline = segmenter.outline(segmenter.prepare(volume), [(Box.around(truth),)])[0]
    if outline.mask is None:
        raise Refused(found="no outline of a ball in its tight box", needed="one", do="install the package again")
    dice = outline.mask.dice(truth)
    finding = f"Dice {dice:.3f} on a ball of {truth.volume_ml:.1f} ml; licence {segmenter.card.licence}"
    if dice < 0.85:
        raise Refused(found=finding, needed="a Dice of 0.85 or more", do="install the package again")
    return finding


def _alignment() -> str:
    from lesionlocator.align import ALIGNERS

    baseline, _ = _phantom()
    moved = baseline.geometry.affine.copy()
    moved[:3, 3] += 30.0
    followup = Volume(baseline.array, Geometry(baseline.geometry.shape, moved), "CT")
    at_mm = baseline.geometry.centre_mm[None]
    shift = AffineMap.shift(np.full(3, 30.0))
    error_mm = float(np.linalg.norm(ALIGNERS["rigid"](baseline, followup).forward(at_mm) - shift(at_mm)))
    finding = f"a table shift of 52 mm found to {error_mm:.2f} mm"
    if error_mm > 2.0:
        raise Refused(found=finding, needed="2 mm or better", do="install SimpleITK again")
    return finding


def _phantom() -> tuple[Volume, Mask]:
    """A ball of 60 HU in fat within a body-like ellipsoid in air, with noise from a fixed seed."""
    geometry = Geometry((40, 64, 64), np.array([[0, 0, 2.0, -64], [0, 2.0, 0, -64], [3.0, 0, 0, -60], [0, 0, 0, 1]]))
    index = np.indices(geometry.shape).reshape(3, -1).T.astype(float)
    x, y, z = geometry.index_to_world(index).T
    ball = ((x - 10) ** 2 + (y + 4) ** 2 + z**2 <= _RADIUS_MM**2).reshape(geometry.shape)
    body = ((x / 58) ** 2 + (y / 44) ** 2 + (z / 80) ** 2 <= 1).reshape(geometry.shape)
    values = np.where(ball, 60.0, np.where(body, -90.0, -1000.0))
    noise = np.random.default_rng(0).normal(0, 12, geometry.shape)
    return Volume((values + noise).astype(np.int16), geometry, "CT", "phantom"), Mask.from_array(ball, geometry)

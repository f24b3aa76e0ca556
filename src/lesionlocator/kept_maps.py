"""A folder of alignments, so that a pair of scans that was aligned once is not aligned again by the next run."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesionlocator.align import FieldMap
from lesionlocator.geometry import AffineMap, Alignment, Composed, Geometry, PointMap


@dataclass(frozen=True)
class MapFolder:
    """One file for each pair, made of arrays (never of code). The folder is made if it does not exist.

    Maps made of affine maps and displacement fields are kept; any other map is not. A damaged file counts as none.
    Of more than `most` pairs those go that were not asked for longest.
    """

    folder: Path
    most: int = 64

    def get(self, key: str) -> Alignment | None:
        """What was put under this key; None when there is nothing, or nothing whole."""
        found = _load(self.folder / f"{key}.npz")
        if found is not None:
            with contextlib.suppress(OSError):
                (self.folder / f"{key}.npz").touch()
        return found

    def put(self, key: str, alignment: Alignment) -> None:
        """Written beside its place and then moved there: nobody ever reads half of it."""
        arrays = _arrays(alignment)
        if arrays is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=self.folder, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        Path(unfinished).replace(self.folder / f"{key}.npz")
        self._make_room()

    def _make_room(self) -> None:
        # Another process may be doing the same: what is gone already is gone.
        with contextlib.suppress(FileNotFoundError):
            kept = sorted(self.folder.glob("*.npz"), key=lambda path: path.stat().st_mtime)
            for path in kept[: max(0, len(kept) - self.most)]:
                path.unlink(missing_ok=True)


def _arrays(alignment: Alignment) -> dict[str, np.ndarray] | None:
    """None when it is made of other maps than affine and fields."""
    arrays: dict[str, np.ndarray] = {}
    kinds: list[list[str]] = []
    for side, whole in enumerate((alignment.forward, alignment.backward)):
        kinds.append([])
        for number, point_map in enumerate(_parts(whole)):
            if isinstance(point_map, AffineMap):
                arrays[f"{side}.{number}.matrix"] = point_map.matrix
            elif isinstance(point_map, FieldMap):
                arrays[f"{side}.{number}.field"] = point_map.displacement_mm
                arrays[f"{side}.{number}.grid"] = point_map.geometry.affine
            else:
                return None
            kinds[side].append(type(point_map).__name__)
    said = {"method": alignment.method, "warnings": list(alignment.warnings), "kinds": kinds}
    arrays["said"] = np.frombuffer(json.dumps(said).encode(), np.uint8)
    return arrays


def _load(path: Path) -> Alignment | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            said = json.loads(arrays["said"].tobytes())
            sides = [
                [_part(arrays, f"{side}.{number}", kind) for number, kind in enumerate(kinds)]
                for side, kinds in enumerate(said["kinds"])
            ]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    forward, backward = (_joined(maps) for maps in sides)
    return Alignment(forward, backward, said["method"], tuple(said["warnings"]))


def _part(arrays: np.lib.npyio.NpzFile, name: str, kind: str) -> PointMap:
    if kind == "AffineMap":
        return AffineMap(arrays[f"{name}.matrix"])
    field = arrays[f"{name}.field"]
    _, d, h, w = field.shape
    return FieldMap(field, Geometry((d, h, w), arrays[f"{name}.grid"]))


def _parts(point_map: PointMap) -> tuple[PointMap, ...]:
    """The maps of a composition, however nested, first one first."""
    if not isinstance(point_map, Composed):
        return (point_map,)
    return tuple(part for inner in point_map.maps for part in _parts(inner))


def _joined(maps: list[PointMap]) -> PointMap:
    return maps[0] if len(maps) == 1 else Composed(tuple(maps))

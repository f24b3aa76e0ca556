"""The truth of a synthetic patient as files: links and events, lesions measured, and where every point went."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lesionlocator.align.field import FieldMap
from lesionlocator.case import Case
from lesionlocator.formats.disk import whole
from lesionlocator.geometry import Geometry, PointMap, index3
from lesionlocator.measure import Row, measure_case
from lesionlocator.report import LINK_COLUMNS, link_rows, table, write_text
from lesionlocator.synth.chain import Chain

LINKS, LESIONS, DRAWS, MAPS = "links.csv", "lesions.csv", "draws.json", "maps"
_NODES_MM, _FINE_MM = 4.0, 2.0
_MOST_NODES = 3_000_000
_UNIT_MM = 0.01
_POINTS = 2000


def write_truth(folder: Path, chain: Chain, case: Case, draws: Mapping[str, Any]) -> None:
    """`links.csv`, `lesions.csv`, `draws.json` and the maps between neighbouring visits.

    Args:
        folder: Of the item.
        chain: What was made.
        case: Its `case`, with the names of its visits.
        draws: What was drawn, as JSON.
    """
    write_text(folder / LINKS, table(LINK_COLUMNS, link_rows(case)))
    rows = (asdict(row) for row in measure_case(case))
    write_text(folder / LESIONS, table([f.name for f in fields(Row)], rows))
    write_text(folder / DRAWS, json.dumps(draws, indent=1) + "\n")
    names = [timepoint.name for timepoint in case.timepoints]
    about = [_write_maps(folder / MAPS, chain, index, names) for index in range(len(names) - 1)]
    write_text(folder / MAPS / "maps.json", json.dumps(about, indent=1) + "\n")


def events_of(case: Case) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """For each visit after the first: (event, lesion, lesion there), in the words of `links.csv`."""
    found: list[list[tuple[str, ...]]] = [[] for _ in case.timepoints[1:]]
    for happening in case.events():
        words = (happening.event.value, happening.lesion_id, happening.to_lesion_id or "")
        found[happening.to_scan - 1].append(words)
    return tuple(tuple(sorted(visit)) for visit in found)


def read_map(path: Path) -> FieldMap:
    """A map that was written: a displacement in mm on a grid of nodes, linear between them."""
    with np.load(path) as content:
        steps = content["displacement"].astype(np.float32)
        return FieldMap(steps * np.float32(_UNIT_MM), Geometry(index3(steps.shape[1:]), content["affine"]))


def _write_maps(folder: Path, chain: Chain, index: int, names: list[str]) -> dict[str, Any]:
    """Both maps of a step, with how far the files are off, and how far going there and back leads astray, in mm."""
    maps = chain.alignment(index, index + 1)
    composed = chain.composition_error_mm(index, index + 1)
    about: dict[str, Any] = {"composition_error_mm": {"p95": round(composed[0], 4), "max": round(composed[1], 4)}}
    ways = (("forward", maps.forward, index, index + 1), ("backward", maps.backward, index + 1, index))
    for way, point_map, start, end in ways:
        field, errors = _on_nodes(point_map, chain.scans[start].volume.geometry)
        name = f"{names[start]}_to_{names[end]}.npz"
        _write_field(folder / name, field)
        p95, most = np.percentile(errors, [95, 100])
        about[way] = {"file": name, "error_mm": {"p95": round(float(p95), 3), "max": round(float(most), 3)}}
    return about


def _on_nodes(point_map: PointMap, geometry: Geometry) -> tuple[FieldMap, Float[np.ndarray, " n"]]:
    """The map on nodes near enough to each other, and how far it is off at places between them."""
    exact_at = _places(geometry)
    exact = point_map(exact_at)
    field = _sampled(point_map, geometry, _NODES_MM)
    errors = np.linalg.norm(field(exact_at) - exact, axis=1)
    extent_mm = np.array(geometry.shape) * geometry.spacing_mm
    if errors.max() > 0.25 * float(geometry.spacing_mm.min()) and np.prod(extent_mm / _FINE_MM) < _MOST_NODES:
        field = _sampled(point_map, geometry, _FINE_MM)
        errors = np.linalg.norm(field(exact_at) - exact, axis=1)
    return field, errors


def _sampled(point_map: PointMap, geometry: Geometry, spacing_mm: float) -> FieldMap:
    nodes = geometry.respaced(np.maximum(geometry.spacing_mm, spacing_mm))
    # One node beyond each side, so that every voxel lies between nodes.
    nodes = nodes.crop((-1, -1, -1), index3(np.array(nodes.shape) + 1))
    at_mm = nodes.index_to_world(np.indices(nodes.shape).reshape(3, -1).T.astype(float))
    moved_mm = np.round((point_map(at_mm) - at_mm) / _UNIT_MM) * _UNIT_MM
    return FieldMap(np.ascontiguousarray(moved_mm.T.reshape(3, *nodes.shape), np.float32), nodes)


def _write_field(path: Path, field: FieldMap) -> None:
    steps = np.round(field.displacement_mm / _UNIT_MM)
    kind = np.int16 if float(np.abs(steps).max()) < 32767 else np.int32
    with whole(path) as beside, beside.open("wb") as stream:
        np.savez_compressed(stream, displacement=steps.astype(kind), affine=field.geometry.affine)


def _places(geometry: Geometry) -> Float[np.ndarray, "n 3"]:
    """Places all over a scan, the same for the same grid."""
    index = np.random.default_rng(0).uniform(0, np.array(geometry.shape) - 1, (_POINTS, 3))
    return geometry.index_to_world(index)

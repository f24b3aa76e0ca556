"""Prompt files of others: the published LesionLocator JSON and 3D Slicer's markups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lesionlocator.case import Lesion
from lesionlocator.errors import Refused
from lesionlocator.formats.json_text import as_id, as_list, as_numbers, as_object, only_keys
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click, Line, Prompt

_LPS_FROM = {"LPS": np.ones(3), "RAS": np.array([-1.0, -1.0, 1.0])}


def is_published(content: dict[str, Any]) -> bool:
    """Whether this looks like the JSON of the released LesionLocator: lesion ids, each with a `point` or a `box`."""
    return any(isinstance(value, dict) and ("point" in value or "box" in value) for value in content.values())


def parse_published(content: dict[str, Any], path: Path, geometry: Geometry) -> tuple[Lesion, ...]:
    """`{"1": {"point": [z, y, x]}, "2": {"box": [z0, z1, y0, y1, x0, x1]}}`, half-open voxels in array order.

    Numbers may be strings, as in the released program's own examples.
    """
    return tuple(_published(key, value, path, geometry) for key, value in content.items())


def parse_markups(content: dict[str, Any], path: Path) -> tuple[Lesion, ...]:
    """3D Slicer markups: every point of a point list is a lesion, so is every ROI (a box) and every line.

    Ids: a point's label, or its number where labels are missing, repeated or no valid ids; the name of an ROI or line,
    else the file's name, with a number where there are several.
    """
    markups = [as_object(m, f"{path}, markup") for m in as_list(content.get("markups"), f"{path}, markups")]
    unnamed = [m for m in markups if m.get("type") in {"ROI", "Line"} and not m.get("name")]
    lesions: list[Lesion] = []
    for markup in markups:
        where = f"{path}, {markup.get('type')}"
        kind = str(markup.get("type"))
        if kind not in MARKUPS:
            raise Refused(
                found=f"{path}, a markup of the type {json.dumps(markup.get('type'))}",
                needed=f"one of {', '.join(MARKUPS)}",
                do="draw a point, a line or an ROI instead, or outline the lesion in a label map",
            )
        prompts = MARKUPS[kind](markup, where, _axes(markup, where))
        if kind == "Fiducial":
            lesions += _each_a_lesion(prompts, markup, where)
        else:
            stem = path.name.removesuffix(".json").removesuffix(".mrk")
            number = f"_{unnamed.index(markup) + 1}" if len(unnamed) > 1 and markup in unnamed else ""
            lesions.append(Lesion(as_id(markup.get("name") or stem + number, where), prompts))
    return tuple(lesions)


def _published(key: str, item: Any, path: Path, geometry: Geometry) -> Lesion:
    where = f"{path}, lesion {key!r}"
    value = as_object(item, where)
    only_keys(value, ("point", "box"), where)
    prompts: list[Prompt] = []
    if "point" in value:
        at = as_numbers(value["point"], f"{where}, point", 3, strings=True)
        prompts.append(Click(geometry.index_to_world(at[None])[0]))
    if "box" in value:
        ends = as_numbers(value["box"], f"{where}, box", 6, strings=True)
        start, stop = ends[0::2], ends[1::2]
        if not np.all(start < stop):
            raise Refused(
                found=f"{where}, a box {ends.tolist()}",
                needed="z0, z1, y0, y1, x0, x1 with each second number above its first",
                do="correct the order",
            )
        prompts.append(Box.from_index(start, stop, geometry))
    if not prompts:
        raise Refused(found=f"{where}, without any prompt", needed="a point or a box", do="add one")
    return Lesion(as_id(key, where), tuple(prompts))


def _axes(markup: dict[str, Any], where: str) -> Float[np.ndarray, "3"]:
    frame = markup.get("coordinateSystem")
    if frame not in _LPS_FROM:
        raise Refused(
            found=f"{where}, the coordinateSystem {json.dumps(frame)}",
            needed='"LPS" or "RAS"',
            do="save it again",
        )
    unit = markup.get("coordinateUnits", "mm")
    if unit != "mm" and not (isinstance(unit, list) and unit[:1] == ["mm"]):
        raise Refused(found=f"{where}, the coordinateUnits {json.dumps(unit)}", needed="mm", do="save it again in mm")
    return _LPS_FROM[frame]


def _points(markup: dict[str, Any], where: str, axes: Float[np.ndarray, "3"]) -> list[Float[np.ndarray, "3"]]:
    points: list[Float[np.ndarray, "3"]] = []
    for number, item in enumerate(as_list(markup.get("controlPoints"), f"{where}, controlPoints"), start=1):
        point = as_object(item, f"{where}, point {number}")
        if point.get("positionStatus", "defined") != "defined":
            raise Refused(
                found=f"{where}, point {number} ({point.get('label', '')}), which was never placed",
                needed="a position for every point",
                do="place it, or delete it",
            )
        points.append(as_numbers(point.get("position"), f"{where}, point {number}, position") * axes)
    return points


def _fiducials(markup: dict[str, Any], where: str, axes: Float[np.ndarray, "3"]) -> tuple[Prompt, ...]:
    return tuple(Click(at) for at in _points(markup, where, axes))


def _line(markup: dict[str, Any], where: str, axes: Float[np.ndarray, "3"]) -> tuple[Prompt, ...]:
    points = _points(markup, where, axes)
    if len(points) != 2 or np.array_equal(points[0], points[1]):
        raise Refused(found=f"{where} with {len(points)} points", needed="two different ends", do="draw it again")
    return (Line(points[0], points[1]),)


def _roi(markup: dict[str, Any], where: str, axes: Float[np.ndarray, "3"]) -> tuple[Prompt, ...]:
    if markup.get("insideOut") is True:
        raise Refused(found=f"{where}, which is inside out", needed="a box around the lesion", do="switch that off")
    centre = as_numbers(markup.get("center"), f"{where}, center") * axes
    size = as_numbers(markup.get("size"), f"{where}, size")
    straight = [1, 0, 0, 0, 1, 0, 0, 0, 1]
    turned = as_numbers(markup.get("orientation", straight), f"{where}, orientation", 9).reshape(3, 3)
    if np.any(size <= 0) or not np.allclose(turned.T @ turned, np.eye(3), atol=1e-3):
        raise Refused(
            found=f"{where} of the size {size.tolist()}, whose axes are {turned.ravel().tolist()}",
            needed="sizes above zero and three axes at right angles",
            do="draw it again",
        )
    edges = axes[:, None] * turned * size
    return (Box(centre - edges.sum(axis=1) / 2, edges),)


def _each_a_lesion(prompts: tuple[Prompt, ...], markup: dict[str, Any], where: str) -> list[Lesion]:
    labels = [str(as_object(point, where).get("label", "")) for point in markup["controlPoints"]]
    if len(set(labels)) < len(labels) or not all(_is_id(label, where) for label in labels):
        labels = [str(number) for number in range(1, len(labels) + 1)]
    return [Lesion(label, (prompt,)) for label, prompt in zip(labels, prompts, strict=True)]


def _is_id(label: str, where: str) -> bool:
    try:
        as_id(label, where)
    except Refused:
        return False
    return True


MARKUPS = {"Fiducial": _fiducials, "Line": _line, "ROI": _roi}
"""Type of a markup in the file -> reader of its prompts."""

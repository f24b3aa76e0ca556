"""Our own prompt file, version 1: what is in it, read and written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from lesionlocator.case import Lesion
from lesionlocator.errors import Refused
from lesionlocator.formats.disk import whole
from lesionlocator.formats.json_text import as_id, as_list, as_number, as_numbers, as_object, as_text, only_keys
from lesionlocator.formats.masks import label_masks, read_label_map, write_mask
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click, Line, Prompt, Shape
from lesionlocator.volume import Mask

_FILE_KEYS = ("version", "space", "axes", "frame", "scan", "lesions")
_LESION_KEYS = ("id", "clicks", "box", "line", "mask", "note", "confidence")
_LPS_FROM = {"LPS": np.ones(3), "RAS": np.array([-1.0, -1.0, 1.0])}


@dataclass(frozen=True, eq=False)
class Space:
    """What three numbers of a file mean.

    In voxel space, whole numbers are the centres of voxels for points, and their lower borders for boxes.
    """

    grid: Geometry | None
    kind: Literal["world", "voxel"] = "world"
    frame: Literal["LPS", "RAS"] = "LPS"
    axes: Literal["ijk", "zyx"] = "ijk"

    def point(self, numbers: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
        """In LPS mm."""
        if self.kind == "world":
            return numbers * _LPS_FROM[self.frame]
        return self.geometry.index_to_world(self._dhw(numbers)[None])[0]

    def box(self, low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"]) -> Box:
        """In LPS mm."""
        if self.kind == "world":
            ends = np.stack([low, high]) * _LPS_FROM[self.frame]
            return Box.from_bounds(ends.min(axis=0), ends.max(axis=0))
        return Box.from_index(self._dhw(low), self._dhw(high), self.geometry)

    @property
    def geometry(self) -> Geometry:
        """The scan's grid, which only voxels need."""
        if self.grid is None:
            raise no_grid("prompts in voxels")
        return self.grid

    def _dhw(self, numbers: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
        return numbers[::-1] if self.axes == "ijk" else numbers


def parse_prompts(content: dict[str, Any], path: Path, geometry: Geometry | None) -> tuple[Lesion, ...]:
    """The lesions of a version 1 file."""
    version = content.get("version")
    if type(version) is not int or version != 1:
        raise Refused(
            found=f"{path}, a prompt file of version {json.dumps(version)}"
            if "version" in content
            else f"{path}, a prompt file without a version",
            needed="version 1",
            do='write "version": 1 if it follows that version, or update this program',
        )
    only_keys(content, _FILE_KEYS, str(path))
    if "scan" in content:
        as_text(content["scan"], f"{path}, scan")
    space = _space(content, path, geometry)
    if "lesions" not in content:
        raise Refused(found=f"{path} without `lesions`", needed="a list of lesions", do="add it")
    lesions: list[Lesion] = []
    for number, item in enumerate(as_list(content["lesions"], f"{path}, lesions"), start=1):
        lesions.append(_lesion(as_object(item, f"{path}, lesion {number}"), number, path, space))
    return tuple(lesions)


def write_prompts(
    path: Path, lesions: Sequence[Lesion], geometry: Geometry | None = None, *, scan: str | None = None
) -> None:
    """The prompts of lesions as a version 1 file, in LPS mm and in the order given.

    A box that is oblique in the patient but lies along the grid `geometry` cannot be said in mm; then the whole file is
    in voxels (ijk) of that grid. Any other oblique box is written as its bounds. Mask prompts are written beside, as
    NIfTI. A lesion may hold any number of clicks and one of each other kind.
    """
    in_voxels = geometry is not None and _needs_voxels(lesions, geometry)
    content: dict[str, Any] = {"version": 1, "space": "voxel" if in_voxels else "world"}
    content |= {"axes": "ijk"} if in_voxels else {"frame": "LPS"}
    if scan is not None:
        content["scan"] = scan
    writer = _Writer(path, geometry, in_voxels)
    content["lesions"] = [writer.lesion(lesion) for lesion in lesions]
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    with whole(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def no_grid(what: str) -> Refused:
    """The refusal of a file that means nothing without its scan."""
    return Refused(found=f"{what} and no scan", needed="the scan whose voxels they count", do="add --scan SCAN")


def _space(content: dict[str, Any], path: Path, geometry: Geometry | None) -> Space:
    kind = _one_of(content, "space", ("world", "voxel"), path)
    if kind == "world":
        if "axes" in content:
            raise Refused(
                found=f"{path}, which has `axes` though its space is world",
                needed="`axes` in voxel space only: in mm the order is always x, y, z",
                do="remove it, or change the space",
            )
        return Space(geometry, "world", _one_of(content, "frame", ("LPS", "RAS"), path))
    if "frame" in content:
        _one_of(content, "frame", ("LPS", "RAS"), path)
    return Space(geometry, "voxel", axes=_one_of(content, "axes", ("ijk", "zyx"), path))


def _one_of(content: dict[str, Any], key: str, words: tuple[str, str], path: Path) -> Any:
    if content.get(key) not in words:
        found = f"{key} {json.dumps(content[key])}" if key in content else f"no `{key}`"
        raise Refused(
            found=f"{path}, which has {found}", needed=f'"{key}": "{words[0]}" or "{words[1]}"', do="say which it is"
        )
    return content[key]


def _lesion(item: dict[str, Any], number: int, path: Path, space: Space) -> Lesion:
    if "id" not in item:
        raise Refused(found=f"{path}, lesion {number}, without an id", needed="an id", do='add one, as in "id": "1"')
    lesion_id = as_id(item["id"], f"{path}, lesion {number}")
    where = f"{path}, lesion {lesion_id!r}"
    only_keys(item, _LESION_KEYS, where)
    prompts: list[Prompt] = [
        _click(click, where, space) for click in as_list(item.get("clicks", []), f"{where}, clicks")
    ]
    if "box" in item:
        prompts.append(_box(as_object(item["box"], f"{where}, box"), where, space))
    if "line" in item:
        prompts.append(_line(as_object(item["line"], f"{where}, line"), where, space))
    if "mask" in item:
        prompts.append(_mask(as_text(item["mask"], f"{where}, mask"), where, path, space.grid))
    if not prompts:
        raise Refused(found=f"{where}, without any prompt", needed="a click, box, line or mask", do="add one")
    confidence = _confidence(item, where)
    note = as_text(item.get("note", ""), f"{where}, note")
    return Lesion(lesion_id, tuple(prompts), confidence=confidence, note=note)


def _click(item: Any, where: str, space: Space) -> Click:
    click = as_object(item, f"{where}, click")
    only_keys(click, ("at", "positive"), f"{where}, click")
    positive = click.get("positive", True)
    if not isinstance(positive, bool):
        raise Refused(found=f"{where}, a click with positive {positive!r}", needed="true or false", do="correct it")
    return Click(space.point(as_numbers(_part(click, "at", f"{where}, click"), f"{where}, click")), positive)


def _box(box: dict[str, Any], where: str, space: Space) -> Box:
    only_keys(box, ("min", "max"), f"{where}, box")
    low, high = (as_numbers(_part(box, key, f"{where}, box"), f"{where}, box {key}") for key in ("min", "max"))
    if not np.all(low < high):
        raise Refused(
            found=f"{where}, a box from {low.tolist()} to {high.tolist()}",
            needed="each `max` above its `min`",
            do="swap or widen them (in voxels, a box of one slice is from 7 to 8)",
        )
    return space.box(low, high)


def _line(line: dict[str, Any], where: str, space: Space) -> Line:
    only_keys(line, ("from", "to"), f"{where}, line")
    start, end = (as_numbers(_part(line, key, f"{where}, line"), f"{where}, line {key}") for key in ("from", "to"))
    if np.array_equal(start, end):
        raise Refused(found=f"{where}, a line of no length", needed="two different ends", do="use a click for a point")
    return Line(space.point(start), space.point(end))


def _mask(name: str, where: str, path: Path, geometry: Geometry | None) -> Shape:
    if not name or Path(name).is_absolute():
        raise Refused(
            found=f"{where}, the mask path {name!r}", needed="a path relative to the prompt file", do="correct it"
        )
    masks = label_masks(read_label_map(path.parent / name))
    if len(masks) != 1:
        raise Refused(
            found=f"{where}, the mask {name} with {len(masks)} labels",
            needed="one label: the voxels of this lesion",
            do="write its voxels into a file of their own",
        )
    return Shape(carried(next(iter(masks.values())), geometry))


def carried(mask: Mask, geometry: Geometry | None) -> Mask:
    """The mask on the scan's grid; as it was if nothing of it would be left there (outside, or finer than a voxel)."""
    if geometry is None:
        return mask
    placed = mask.placed(geometry)
    return mask if placed.is_empty else placed


def _part(value: dict[str, Any], key: str, where: str) -> Any:
    if key not in value:
        raise Refused(found=f"{where} without `{key}`", needed=f"`{key}` with three numbers", do="add it")
    return value[key]


def _confidence(item: dict[str, Any], where: str) -> float | None:
    if item.get("confidence") is None:
        return None
    confidence = as_number(item["confidence"], f"{where}, confidence")
    if not 0 <= confidence <= 1:
        raise Refused(found=f"{where}, a confidence of {confidence}", needed="0 to 1", do="correct it")
    return confidence


def _needs_voxels(lesions: Sequence[Lesion], geometry: Geometry) -> bool:
    oblique = [p for lesion in lesions for p in lesion.prompts if isinstance(p, Box) and not _is_along(p, np.eye(3))]
    return bool(oblique) and all(_is_along(box, geometry.affine[:3, :3]) for box in oblique)


def _is_along(box: Box, axes: Float[np.ndarray, "3 3"]) -> bool:
    """Whether each edge runs along one of the axes, in either direction, to a millionth of its length."""
    parts = np.abs(np.linalg.solve(axes / np.linalg.norm(axes, axis=0), box.edges / box.size_mm))
    return bool(np.all(np.sort(parts, axis=0)[:2] < 1e-6))


@dataclass(frozen=True, eq=False)
class _Writer:
    path: Path
    geometry: Geometry | None
    in_voxels: bool

    def lesion(self, lesion: Lesion) -> dict[str, Any]:
        lesion_id = as_id(lesion.id, f"{self.path.name}, to be written")
        item: dict[str, Any] = {"id": lesion_id}
        clicks = [
            {"at": self._point(prompt.at), "positive": prompt.positive}
            for prompt in lesion.prompts
            if isinstance(prompt, Click)
        ]
        if clicks:
            item["clicks"] = clicks
        for prompt in lesion.prompts:
            if isinstance(prompt, Click):
                continue
            if prompt.kind in item:
                raise Refused(
                    found=f"lesion {lesion.id!r} with two prompts of the kind {prompt.kind}",
                    needed="one of each kind (clicks: any number)",
                    do="keep the one that is meant",
                )
            item[prompt.kind] = self._other(prompt, lesion_id)
        if not lesion.prompts:
            raise Refused(found=f"lesion {lesion.id!r} without a prompt", needed="at least one", do="add one")
        item |= {"note": lesion.note} if lesion.note else {}
        item |= {"confidence": float(lesion.confidence)} if lesion.confidence is not None else {}
        return item

    def _other(self, prompt: Prompt, lesion_id: str) -> Any:
        if isinstance(prompt, Box):
            return self._box(prompt)
        if isinstance(prompt, Line):
            return {"from": self._point(prompt.start), "to": self._point(prompt.end)}
        if isinstance(prompt, Shape):
            return self._mask(prompt.mask, lesion_id)
        raise Refused(
            found=f"lesion {lesion_id!r} with a prompt of the kind {prompt.kind}",
            needed="a click, box, line or mask: version 1 knows no others",
            do="write it in another form",
        )

    def _point(self, at_mm: Float[np.ndarray, "3"]) -> list[float]:
        if self.in_voxels and self.geometry is not None:
            at_mm = self.geometry.world_to_index(at_mm[None])[0][::-1]
        return [float(v) for v in at_mm]

    def _box(self, box: Box) -> dict[str, list[float]]:
        corners = box.points_mm
        if self.in_voxels and self.geometry is not None:
            corners = self.geometry.world_to_index(corners)[:, ::-1] + 0.5
        low, high = corners.min(axis=0), corners.max(axis=0)
        if self.in_voxels:
            # Borders of voxels are whole numbers; what a rounding error made of them would only look odd.
            low, high = (np.where(np.abs(v - np.round(v)) < 1e-9, np.round(v), v) for v in (low, high))
        return {"min": [float(v) for v in low], "max": [float(v) for v in high]}

    def _mask(self, mask: Mask, lesion_id: str) -> str:
        geometry = self.geometry
        if geometry is None or mask.geometry.offset_in(geometry) is None or mask.placed(geometry).voxels < mask.voxels:
            geometry = mask.geometry
        name = f"{self.path.name.removesuffix('.json')}_mask_{lesion_id}.nii.gz"
        write_mask(self.path.with_name(name), mask, geometry)
        return name

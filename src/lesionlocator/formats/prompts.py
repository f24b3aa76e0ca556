"""Any file that says where lesions are: our JSON, the published one, 3D Slicer markups, label maps, DICOM outlines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lesionlocator.case import Lesion, Timepoint
from lesionlocator.errors import Refused
from lesionlocator.formats.json_text import load_object
from lesionlocator.formats.masks import label_masks, read_label_map, refuse_other_frame
from lesionlocator.formats.prompt_file import carried, no_grid, parse_prompts
from lesionlocator.formats.prompt_foreign import is_published, parse_markups, parse_published
from lesionlocator.formats.rtstruct import is_rtstruct, read_rtstruct
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click, Prompt, Shape
from lesionlocator.volume import Mask

Kind = Literal["box", "click", "mask"]


def read_prompts(
    path: Path, scan: Timepoint | Geometry | None, *, kind: Kind | None = None, split: bool = False
) -> tuple[Lesion, ...]:
    """The lesions of a prompt file, for a scan. An empty file gives none.

    Without a scan, masks stay on their own grid, and prompts that count a scan's voxels are refused.

    `kind` says what to use: from a label map or a mask, the tight box (also without `kind`), a click on the deepest
    voxel, or the mask itself; from a JSON file, only the prompts of that kind, derived from the lesion's mask where it
    has none. `split` makes one lesion of each part of a label.
    """
    geometry = scan.geometry if isinstance(scan, Timepoint) else scan
    if path.name.lower().endswith(".json"):
        if split:
            raise Refused(
                found=f"{path} with --split", needed="a label map, whose parts can be split", do="leave --split out"
            )
        lesions = _from_json(path, geometry)
        lesions = tuple(_only(lesion, kind, path) for lesion in lesions) if kind else lesions
    else:
        masks = _masks(path, geometry, split)
        lesions = tuple(Lesion(name, (Shape(carried(mask, geometry)),)) for name, mask in masks.items())
        lesions = tuple(_only(lesion, kind or "box", path) for lesion in lesions)
    _refuse_twice(lesions, path)
    return lesions


def _masks(path: Path, geometry: Geometry | None, split: bool) -> Mapping[str, Mask]:
    if is_rtstruct(path):
        if geometry is None:
            raise no_grid("an RTSTRUCT")
        return {_as_id(name): mask for name, mask in read_rtstruct(path, geometry).items()}
    label_map = read_label_map(path)
    if geometry is not None:
        refuse_other_frame(label_map, geometry)
    return label_masks(label_map, split)


def _as_id(name: str) -> str:
    """The name of a region without what cannot be a part of a file's name."""
    kept = "".join(c if c.isalnum() or c in " -_.()" else "_" for c in name).strip(" .")
    return kept[:60] or "region"


def _from_json(path: Path, geometry: Geometry | None) -> tuple[Lesion, ...]:
    content = load_object(path)
    if "markups" in content:
        return parse_markups(content, path)
    if any(key in content for key in ("version", "lesions", "space")):
        return parse_prompts(content, path, geometry)
    if is_published(content):
        if geometry is None:
            raise no_grid("a published LesionLocator prompt file")
        return parse_published(content, path, geometry)
    raise Refused(
        found=f"{path}, a JSON file with the keys {', '.join(list(content)[:5]) or 'none'}",
        needed="a prompt file of version 1, a published LesionLocator prompt file, or 3D Slicer markups",
        do="check the path, or write the prompts as the page on prompt files shows",
    )


def _only(lesion: Lesion, kind: Kind, path: Path) -> Lesion:
    kept: tuple[Prompt, ...] = tuple(prompt for prompt in lesion.prompts if prompt.kind == kind)
    if not kept:
        shape = next((prompt for prompt in lesion.prompts if isinstance(prompt, Shape)), None)
        if shape is None or kind == "mask":
            held = ", ".join(sorted({prompt.kind for prompt in lesion.prompts}))
            raise Refused(
                found=f"{path}, lesion {lesion.id!r}, which has only: {held}",
                needed=f"a {kind}" if kind == "mask" else f"a {kind}, or a mask to take it from",
                do="leave the choice of the kind out, or add the prompt",
            )
        kept = (Box.around(shape.mask) if kind == "box" else Click.inside(shape.mask),)
    return Lesion(lesion.id, kept, confidence=lesion.confidence, note=lesion.note)


def _refuse_twice(lesions: tuple[Lesion, ...], path: Path) -> None:
    seen: set[str] = set()
    for lesion in lesions:
        if lesion.id in seen:
            raise Refused(
                found=f"{path}, in which the lesion id {lesion.id!r} comes twice",
                needed="one entry for each lesion",
                do="merge the two entries, or give one of them another id",
            )
        seen.add(lesion.id)

"""A reading as text and back: numbers in JSON, outlines as files that are named by their content."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lesionlocator.case import Case, Ending, Lesion, Link, Place, Status, Timepoint
from lesionlocator.errors import Refused
from lesionlocator.formats.disk import whole
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click, Line, Prompt, Shape
from lesionlocator.server.reading import Reading
from lesionlocator.server.store import Full
from lesionlocator.volume import Mask


class MaskFolder:
    """Outlines on disk. Each is written once, under the checksum of its content; none is ever changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, mask: Mask) -> str:
        """Writes the mask unless it is there, and gives its name.

        Raises:
            Full: It cannot be written.
        """
        packed = np.packbits(mask.array.reshape(-1))
        digest = hashlib.sha256(packed.tobytes())
        digest.update(np.array(mask.geometry.shape).tobytes() + mask.geometry.affine.tobytes())
        name = digest.hexdigest()
        path = self._path(name)
        if not path.exists():
            try:
                self._write(path, packed, mask.geometry)
            except Refused as problem:
                raise Full(f"the outline cannot be saved: {problem.found}") from problem
        return name

    @staticmethod
    def _write(path: Path, packed: np.ndarray, geometry: Geometry) -> None:
        # Two sessions may keep the same mask at once, so each writes under a name of its own first.
        with whole(path, f".{np.random.default_rng().integers(2**63):x}") as beside, beside.open("wb") as stream:
            np.savez_compressed(stream, packed=packed, shape=geometry.shape, affine=geometry.affine)
            stream.flush()
            # On the disk before the database speaks of it: what is saved outlives a power cut.
            os.fsync(stream.fileno())

    def mask(self, name: str) -> Mask:
        """The mask of this name.

        Raises:
            Refused: Its file is gone or damaged.
        """
        try:
            with np.load(io.BytesIO(self._path(name).read_bytes())) as found:
                d, h, w = (int(n) for n in found["shape"])
                values = np.unpackbits(found["packed"], count=d * h * w).reshape(d, h, w).view(bool)
                return Mask(values, Geometry((d, h, w), found["affine"]))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as problem:
            raise Refused(
                found=f"the outline {name[:12]} of this reading, which cannot be read ({problem})",
                needed="the folder of masks as the server left it",
                do="restore the state folder from a copy, or undo to a step before it",
            ) from problem

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.npz"


def to_text(reading: Reading, masks: MaskFolder) -> str:
    """All of a reading but the scans, as JSON."""
    case = reading.case
    content = {
        "version": 1,
        "title": reading.title,
        "scans": [[_lesion(lesion, masks) for lesion in timepoint.lesions] for timepoint in case.timepoints],
        "links": [_link(link) for link in case.links],
        "decisions": [[*place, said] for place, said in reading.decisions.items()],
        "lines": [[*place, line.to_json()] for place, line in reading.lines.items()],
        "warnings": list(case.warnings),
    }
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def from_text(text: str, timepoints: Sequence[Timepoint], masks: MaskFolder) -> Reading:
    """The reading that was written, on the scans of its case."""
    content = json.loads(text)
    read = [
        timepoint.with_lesions(tuple(_read_lesion(item, masks) for item in items))
        for timepoint, items in zip(timepoints, content["scans"], strict=True)
    ]
    links = tuple(_read_link(item) for item in content["links"])
    decisions = {(scan, lesion_id): said for scan, lesion_id, said in content["decisions"]}
    lines: dict[Place, Line] = {(scan, lesion_id): line_of(item) for scan, lesion_id, item in content["lines"]}
    case = Case(tuple(read), links, tuple(content["warnings"]))
    return Reading(content["title"], case, decisions, lines)


def line_of(item: Any) -> Line:
    """A line from its JSON."""
    return Line(np.array(item["from"], float), np.array(item["to"], float))


def _lesion(lesion: Lesion, masks: MaskFolder) -> dict[str, Any]:
    return {
        "id": lesion.id,
        "prompts": [_prompt(prompt, masks) for prompt in lesion.prompts],
        "mask": None if lesion.mask is None else masks.keep(lesion.mask),
        "status": lesion.status.value,
        "reason": lesion.reason,
        "confidence": lesion.confidence,
        "note": lesion.note,
    }


def _read_lesion(item: dict[str, Any], masks: MaskFolder) -> Lesion:
    return Lesion(
        item["id"],
        tuple(_read_prompt(prompt, masks) for prompt in item["prompts"]),
        None if item["mask"] is None else masks.mask(item["mask"]),
        Status(item["status"]),
        item["reason"],
        item["confidence"],
        item["note"],
    )


def _prompt(prompt: Prompt, masks: MaskFolder) -> dict[str, Any]:
    if isinstance(prompt, Shape):
        return {"kind": "mask", "mask": masks.keep(prompt.mask)}
    if isinstance(prompt, Box):
        return {"kind": "box", "corner": prompt.corner.tolist(), "edges": prompt.edges.tolist()}
    return {"kind": prompt.kind, **prompt.to_json()}


def _read_prompt(item: dict[str, Any], masks: MaskFolder) -> Prompt:
    if item["kind"] == "mask":
        return Shape(masks.mask(item["mask"]))
    if item["kind"] == "box":
        return Box(np.array(item["corner"], float), np.array(item["edges"], float))
    if item["kind"] == "line":
        return line_of(item)
    return Click(np.array(item["at"], float), item["positive"])


def _link(link: Link) -> dict[str, Any]:
    after = link.after.value if isinstance(link.after, Ending) else list(link.after)
    before = None if link.before is None else list(link.before)
    said = {"reason": link.reason, "confidence": link.confidence, "decided_by": link.decided_by}
    return {"before": before, "to": link.to, "after": after, **said}


def _read_link(item: dict[str, Any]) -> Link:
    before = None if item["before"] is None else (item["before"][0], item["before"][1])
    after = Ending(item["after"]) if isinstance(item["after"], str) else (item["after"][0], item["after"][1])
    return Link(before, item["to"], after, item["reason"], item["confidence"], item["decided_by"])

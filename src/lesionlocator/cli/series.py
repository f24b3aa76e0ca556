"""`lesionlocator series`: what lies in a folder of DICOM, and which of it can be read as a scan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lesionlocator.cli.answer import DONE, NOTHING, Answer, say


def series(path: Path, /) -> Answer:
    """List the DICOM series of a folder, a zip or a DICOMweb address: what each is, and whether it can be outlined.

    Parameters
    ----------
    path
        Folder, zip file, or DICOMweb address (of a service with a query such as `?PatientID=...`, or of a study).
    """
    rows = list(_rows(path))
    lines = [f"{row['name']:8} {'fits' if not row['flaw'] else '-':5} {row['text']}" for row in rows]
    lines += [f"{'':14} {row['flaw']}" for row in rows if row["flaw"] and not row["flaw"].startswith("no scan")]
    fits = any(not row["flaw"] for row in rows)
    return Answer(rows, "\n".join(lines) or "no DICOM series", DONE if fits else NOTHING)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    from lesionlocator.formats.dicom_web import find_web_series, is_address, parse_address

    if is_address(path):
        for one in find_web_series(parse_address(path)):
            flaw = "" if one.modality in ("CT", "MR", "PT") and one.images != 1 else "no scan"
            yield {"name": one.modality, "address": str(one.address), "flaw": flaw, "text": one.describe()}
        return
    yield from _on_disk(path)


def _on_disk(path: Path) -> Iterator[dict[str, Any]]:
    from lesionlocator.formats.dicom_series import find_series
    from lesionlocator.formats.sources import local

    found = find_series(local(path))
    for problem in found.problems:
        say(f"not read: {problem}")
    for one in found.series:
        text = f"{one.date or 'no date':10} {one.describe()}"
        yield {
            **{"name": f"#{one.number}", "uid": one.uid, "modality": one.modality, "description": one.description},
            **{"images": one.images, "date": one.date, "frame": one.frame, "flaw": one.flaw, "text": text},
        }

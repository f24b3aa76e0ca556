"""What `export` is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What `export` is told besides the folder."""

    to: str
    """What to write, separated by commas: dicom-seg, dicom-labelmap, dicom-sr, rtstruct, nrrd, sdtm."""
    out: Path
    """Folder for the files."""
    source: tuple[Path, ...] = ()
    """DICOM that the scans came from: a folder, a zip, FOLDER#SERIES or a DICOMweb address; may be given again.
    Default: where the run read its scans, if that was DICOM."""
    store: str | None = None
    """DICOMweb address to store the DICOM objects at as well."""
    study: str = ""
    """STUDYID of the rows for trials."""
    subject: str = ""
    """USUBJID of the rows for trials. Default: the patient's id in DICOM, else the name of the folder."""

"""The DICOM series that each scan of a finished run came from."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lesionlocator.errors import Refused
from lesionlocator.export.identity import derived_uid
from lesionlocator.export.outcome import Outcome, Visit
from lesionlocator.formats.dicom import split_selector
from lesionlocator.formats.dicom_series import Series
from lesionlocator.formats.dicom_web import is_address
from lesionlocator.formats.lattice import on_lattice, same_voxels
from lesionlocator.formats.scans import series_of
from lesionlocator.geometry import Geometry
from lesionlocator.volume import Mask

_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName"),
)
"""What every object has to have, if only empty, and what old headers lack."""
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


@dataclass(frozen=True, eq=False)
class Source:
    """A series: its grid, and the full headers of its files in the order of the grid's slices."""

    series: Series

    @property
    def geometry(self) -> Geometry:
        return self.series.stack.geometry

    @property
    def is_regular(self) -> bool:
        """Whether every slice of the grid is an image of the series, none interpolated."""
        return self.series.stack.is_regular

    @property
    def is_multi_frame(self) -> bool:
        return self.series.stack.slices[0].frame is not None

    @cached_property
    def headers(self) -> tuple[Any, ...]:
        """The header of each slice without its pixels; one for all slices of a multi-frame object."""
        from pydicom import dcmread

        read: dict[Path, Any] = {}
        for one in self.series.stack.slices:
            if one.path not in read:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    read[one.path] = _completed(dcmread(one.path, force=True, stop_before_pixels=True), one.path)
        return tuple(read[one.path] for one in self.series.stack.slices)

    @property
    def patient(self) -> str:
        return str(self.headers[0].get("PatientID") or "")

    def placed(self, mask: Mask, scan: str) -> Mask:
        """The mask on the series' own grid."""
        placed = on_lattice(mask, self.geometry)
        if placed is None:
            raise Refused(
                found=f"outlines of {scan} that are not on the voxels of {self.series.describe()}",
                needed="the series that the scan was made from, unresampled",
                do="name that series with --source",
            )
        return placed


def find_sources(outcome: Outcome, named: Sequence[Path]) -> Mapping[str, Source | Refused]:
    """The series of each scan: from the folders named, else from where the run read it; or why there is none."""
    offered = [series for path in named for series in series_of(path) if not series.flaw]
    found = {visit.scan: _source_of(visit, offered, bool(named), len(outcome.visits)) for visit in outcome.visits}
    uses = Counter(source.series.uid for source in found.values() if isinstance(source, Source))
    return {
        scan: _shared(scan, source)
        if isinstance(source, Source) and uses[source.series.uid] > 1 and not _is_called(scan, source.series)
        else source
        for scan, source in found.items()
    }


def _shared(scan: str, source: Source) -> Refused:
    """Two visits on one grid do not make one series the scan of both."""
    return Refused(
        found=f"one series for {scan} and for another visit ({source.series.describe()})",
        needed="the series of each visit",
        do="name the folders of all of them with --source",
    )


def _is_called(scan: str, series: Series) -> bool:
    return scan in {series.uid, series.first.path.parent.name, series.description}


def _source_of(visit: Visit, offered: Sequence[Series], is_named: bool, visits: int) -> Source | Refused:
    try:
        series = offered if is_named else _where_it_was(visit)
    except Refused as refused:
        return refused
    fitting = [one for one in series if _fits(visit, one, alone=len(series) == 1 and visits == 1)]
    called = [one for one in fitting if _is_called(visit.scan, one)]
    if len(called) == 1:
        fitting = called
    if len(fitting) == 1:
        return Source(fitting[0])
    said = "; ".join(one.describe() for one in fitting[:4]) or f"none of {len(series)} that were looked at"
    return Refused(
        found=f"{len(fitting)} DICOM series that fit the scan {visit.scan} ({said})",
        needed="one, with the same voxels",
        do="name the folder of the series with --source; FOLDER#NUMBER says which series of it",
    )


def _fits(visit: Visit, series: Series, *, alone: bool) -> bool:
    if visit.geometry is None:
        return alone or _is_called(visit.scan, series)
    return same_voxels(visit.geometry, series.stack.geometry)


def _where_it_was(visit: Visit) -> Sequence[Series]:
    path = Path(visit.path)
    if not visit.path or not (is_address(path) or split_selector(path)[0].exists()):
        raise Refused(
            found=f"no DICOM series for the scan {visit.scan} ({visit.path or 'no path'} is not there)",
            needed="the series that it was made from",
            do="name its folder with --source",
        )
    return [series for series in series_of(path) if not series.flaw]


def _completed(header: Any, path: Path) -> Any:
    for name in _EMPTY:
        if name not in header:
            setattr(header, name, "")
    missing = [
        n for n in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID") if not header.get(n)
    ]
    if missing:
        raise Refused(
            found=f"{path} without {' and '.join(missing)}",
            needed="a DICOM object that others can refer to",
            do="export the series again from its archive",
        )
    if not header.get("FrameOfReferenceUID"):
        header.FrameOfReferenceUID = derived_uid("frame", str(header.SeriesInstanceUID))
    return header

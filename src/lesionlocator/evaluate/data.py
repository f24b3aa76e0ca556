"""The cases of a protocol on this computer: which are there, which are not and why, and their truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lesionlocator.errors import Refused
from lesionlocator.evaluate.protocol import CaseFiles, DataSet, Protocol
from lesionlocator.formats import LabelMap, label_masks, read_label_map, read_volume
from lesionlocator.volume import Mask, Volume


@dataclass(frozen=True, eq=False)
class TrueVisit:
    """A scan and the true mask of every lesion in it, by id."""

    scan: Volume
    lesions: dict[str, Mask]


@dataclass(frozen=True)
class FoundCase:
    """A case whose files are there."""

    files: CaseFiles
    root: Path

    def load(self) -> list[TrueVisit]:
        """Its scans and truth, oldest first.

        Raises:
            Refused: A file cannot be read, a truth is on another grid than its scan, or no visit has a lesion.
        """
        pairs = zip(self.files.visits, self.files.truth, strict=True)
        visits = [_read_visit(self.root / scan, self.root / truth, self.files) for scan, truth in pairs]
        if not any(visit.lesions for visit in visits):
            raise Refused(found=f"no lesion in the truth of {self.files.name}", needed="one at least", do="check it")
        return visits


@dataclass(frozen=True)
class Available:
    """What is there of a protocol's data. `skipped` are whole data sets, `missing` single cases, each with a reason."""

    cases: tuple[FoundCase, ...]
    skipped: dict[str, str]
    missing: dict[str, str]


def find_data(
    protocol: Protocol, folder: Path | None, *, public: Callable[[], Path], only: Sequence[str] = ()
) -> Available:
    """Which of the protocol's cases can be read here.

    Args:
        protocol: With its table of files.
        folder: The root of all data sets that lie in a folder; None when the user has none.
        public: Gives the folder of the public scans, fetching them if need be; may refuse.
        only: Data sets to use; all without any.
    """
    cases: list[FoundCase] = []
    skipped: dict[str, str] = {}
    missing: dict[str, str] = {}
    for data in protocol.data:
        if only and data.name not in only:
            continue
        try:
            root = _root(data, folder, public)
        except Refused as refused:
            skipped[data.name] = str(refused)
            continue
        absent = {case.name: gone for case in data.cases if (gone := _absent(case, root))}
        if len(absent) == len(data.cases):
            skipped[data.name] = f"none of its files are there: {next(iter(absent.values()))}"
            continue
        missing |= absent
        cases += [FoundCase(case, root) for case in data.cases if case.name not in absent]
    return Available(tuple(cases), skipped, missing)


def _root(data: DataSet, folder: Path | None, public: Callable[[], Path]) -> Path:
    if data.source == "public-scans":
        return public()
    if folder is None:
        raise Refused(found="no data folder", needed=f"the folder with {data.name}", do="name it with --data")
    return folder


def _absent(case: CaseFiles, root: Path) -> str:
    gone = [name for name in (*case.visits, *case.truth) if not (root / name).exists()]
    return f"no {gone[0]}" if gone else ""


def _read_visit(scan: Path, truth: Path, files: CaseFiles) -> TrueVisit:
    volume = read_volume(scan, files.modality)
    label_map = read_label_map(truth)
    if not label_map.geometry.same_as(volume.geometry):
        raise Refused(
            found=f"{truth.name}, whose grid is not that of {scan.name}",
            needed="the same grid, to 0.01 mm",
            do="resample the truth to its scan",
        )
    if files.at_least > 1:
        votes = (label_map.values >= files.at_least).astype(np.uint8)
        label_map = LabelMap(votes, label_map.geometry, label_map.name)
    return TrueVisit(volume, label_masks(label_map, split=files.split))

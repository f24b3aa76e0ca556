"""The series of a folder, each with what it is and whether it can be one scan, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from lesionlocator.errors import Refused
from lesionlocator.formats.dicom_files import DicomFile, files_in, is_image, read_header
from lesionlocator.formats.dicom_frames import read_slices
from lesionlocator.formats.dicom_stack import Stack, stack_slices

_SHOWN = 12


@dataclass(frozen=True, eq=False)
class Series:
    """The objects of one series. `flaw` says why it is not one scan; empty when it fits."""

    uid: str
    files: tuple[DicomFile, ...]
    number: int = 0

    @property
    def first(self) -> DicomFile:
        return self.files[0]

    @property
    def modality(self) -> str:
        return self.first.text("Modality")

    @property
    def description(self) -> str:
        return self.first.text("SeriesDescription") or "without a name"

    @property
    def frame(self) -> str | None:
        """The frame of reference that its places are in."""
        return self.first.text("FrameOfReferenceUID") or None

    @property
    def date(self) -> str | None:
        """The day of the scan as YYYY-MM-DD, from the first image that tells it."""
        days = (file.text(name) for file in self.files for name in ("AcquisitionDate", "SeriesDate", "StudyDate"))
        return next((f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in days if len(day) == 8 and day.isdigit()), None)

    @property
    def images(self) -> int:
        """Slices, counting every frame of a multi-frame object."""
        return sum(int(file.header.get("NumberOfFrames") or 1) for file in self.files)

    @cached_property
    def is_stack(self) -> bool:
        """Whether it is meant to be a scan at all: not a report, a scout, a screenshot or a single picture."""
        if not is_image(self.first) or "Secondary Capture" in self.first.class_name or self.images < 2:
            return False
        return not all("LOCALIZER" in (file.header.get("ImageType") or ()) for file in self.files)

    @cached_property
    def _stacked(self) -> Stack | Refused:
        try:
            return stack_slices([one for file in self.files for one in read_slices(file.path, file.header)])
        except Refused as refused:
            return refused

    @property
    def stack(self) -> Stack:
        """Its slices as a grid.

        Raises:
            Refused: They are not one scan.
        """
        if isinstance(self._stacked, Refused):
            raise self._stacked
        return self._stacked

    @cached_property
    def flaw(self) -> str:
        """Why it is not one scan; empty when it fits."""
        if not is_image(self.first):
            return f"no scan: {self.first.class_name}"
        return self._stacked.found if isinstance(self._stacked, Refused) else ""

    def describe(self) -> str:
        """One line for a person who has to choose."""
        said = f"{self.description} ({self.modality or 'no modality'}, {self.images} images, {self.uid or 'no UID'})"
        return f"{self.number}: {said}"


@dataclass(frozen=True, eq=False)
class Found:
    """All series of a folder, by date and number, and what could not be read there."""

    path: Path
    series: tuple[Series, ...]
    problems: tuple[str, ...] = ()
    others: tuple[str, ...] = field(default=())


def find_series(path: Path) -> Found:
    """Every series below a path. Damaged files are named among the problems; what is not DICOM among the others."""
    if path.is_file():
        files = [path]
    else:
        if not path.exists():
            raise Refused(found=f"no folder {path}", needed="a folder with DICOM files", do="check the path")
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    grouped: dict[str, list[DicomFile]] = {}
    problems: list[str] = []
    others: list[str] = []
    for file in files:
        try:
            found = read_header(file) if file.stat().st_size else None
            if found is None:
                others.append(file.name)
            elif found.class_name != "Media Storage Directory Storage":
                is_image(found)
                grouped.setdefault(found.text("SeriesInstanceUID"), []).append(found)
        except Refused as refused:
            problems.append(refused.found)
    return Found(path, _ordered(grouped), tuple(problems), tuple(others))


def select_series(found: Found, said: str) -> Series:
    """The series with this number in the list, this UID (or the end of it), or this description."""
    series = found.series
    matching = [one for one in series if said in {str(one.number), one.uid}]
    if not matching:
        matching = [one for one in series if one.uid.endswith(f".{said}") or one.description == said]
    if len(matching) != 1:
        raise Refused(
            found=f"{len(matching)} series called {said!r} in {found.path}: {listed(series)}",
            needed="one",
            do="name its number or UID behind the `#`",
        )
    return matching[0]


def only_series(images: Sequence[DicomFile], path: Path) -> tuple[Series, tuple[str, ...]]:
    """The one series that is a scan among these images; single pictures beside it are left out with a warning."""
    grouped: dict[str, list[DicomFile]] = {}
    for image in images:
        grouped.setdefault(image.text("SeriesInstanceUID"), []).append(image)
    series = _ordered(grouped)
    if len(series) == 1:
        return series[0], ()
    stacks = [one for one in series if one.is_stack]
    if len(stacks) != 1:
        raise Refused(
            found=f"{len(series)} series in {path}: {listed(series)}",
            needed="one series",
            do=f"say which: `{path}#NUMBER`, or `#` and its UID; `lesionlocator series` lists which of them fit",
        )
    left = ", ".join(one.describe() for one in series if one is not stacks[0])
    return stacks[0], (f"series that are no stack of slices were left out: {left}",)


def listed(series: Sequence[Series]) -> str:
    """The series in one sentence."""
    return "; ".join(one.describe() for one in series[:_SHOWN]) + ("; ..." if len(series) > _SHOWN else "")


def images_in(path: Path) -> tuple[list[DicomFile], tuple[str, ...]]:
    """The images of a folder with their headers; what else lies there is named in a warning."""
    images: list[DicomFile] = []
    others: list[str] = []
    for file in files_in(path):
        found = read_header(file)
        if found is not None and is_image(found):
            images.append(found)
        elif file.name != "DICOMDIR":
            others.append(file.name)
    scouts = [image for image in images if "LOCALIZER" in (image.header.get("ImageType") or ())]
    if scouts and len(scouts) < len(images):
        images = [image for image in images if image not in scouts]
        others += [image.path.name for image in scouts]
    if not images:
        raise Refused(
            found=f"{path}, in which no DICOM image was found ({len(others)} other files)",
            needed="a folder with one DICOM series",
            do="check the path",
        )
    shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
    return images, (f"{len(others)} files that are not slices were ignored ({shown})",) if others else ()


def _ordered(grouped: dict[str, list[DicomFile]]) -> tuple[Series, ...]:
    series = [Series(uid, tuple(_without_scouts(files))) for uid, files in grouped.items()]
    series.sort(key=lambda one: (one.date or "", _number(one.first), one.uid))
    return tuple(Series(one.uid, one.files, number) for number, one in enumerate(series, start=1))


def _without_scouts(files: list[DicomFile]) -> list[DicomFile]:
    kept = [file for file in files if "LOCALIZER" not in (file.header.get("ImageType") or ())]
    return kept or files


def _number(file: DicomFile) -> int:
    text = file.text("SeriesNumber")
    return int(text) if text.isdecimal() and text.isascii() else 0

"""From a finished run to the files that other programs read; one line for everything made, and for what was not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lesionlocator.errors import Refused
from lesionlocator.export.nrrd import write_label_nrrd, write_segments_nrrd
from lesionlocator.export.outcome import Outcome, Visit, read_outcome
from lesionlocator.export.scene import Scene
from lesionlocator.export.sdtm import Naming, trial_tables
from lesionlocator.export.segmentation import Kind, make_segmentation
from lesionlocator.export.settings import ExportSettings
from lesionlocator.export.sources import Source, find_sources
from lesionlocator.export.structure_set import make_structure_set
from lesionlocator.export.structured_report import make_report
from lesionlocator.formats.disk import whole

Say = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """One file that was asked for: its path, or why it could not be made; and what has to be said about it."""

    target: str
    scan: str
    path: Path | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """What came of an export."""

    out: Path
    made: tuple[Made, ...]
    stored: int = 0

    @property
    def failed(self) -> list[Made]:
        return [one for one in self.made if one.path is None]


@dataclass(eq=False)
class Job:
    """What every target is made from. SEG objects are kept: a report refers to them."""

    outcome: Outcome
    sources: Mapping[str, Source | Refused]
    settings: ExportSettings
    segmentations: dict[tuple[str, Kind], tuple[Any, tuple[str, ...]]] = field(default_factory=dict)

    def scene(self, visit: Visit) -> Scene:
        """The visit with its series.

        Raises:
            Refused: There is none.
        """
        source = self.sources[visit.scan]
        if isinstance(source, Refused):
            raise source
        first = self.outcome.visits[0]
        known = self.sources[first.scan]
        baseline, day = (known.series.uid, known.series.date) if isinstance(known, Source) else (first.sha256, None)
        return Scene(self.outcome, visit, source, baseline, day)

    def segmentation(self, visit: Visit, kind: Kind) -> tuple[Any, tuple[str, ...]]:
        """The SEG of a visit, made once."""
        key = (visit.scan, kind)
        if key not in self.segmentations:
            self.segmentations[key] = make_segmentation(self.scene(visit), kind)
        return self.segmentations[key]


def run_export(folder: Path, settings: ExportSettings, say: Say = lambda _: None) -> Exported:
    """Write the targets asked for, from the output folder of `segment` or `track`.

    A visit that cannot be exported to a target is one of `failed`, with its reason; the others are written.

    Raises:
        Refused: The folder is not that of a finished run, a target is unknown, or nothing at all could be made.
    """
    targets = _targets(settings.to)
    outcome = read_outcome(folder)
    needs_source = any(target in DICOM_TARGETS or target == "sdtm" for target in targets)
    sources = find_sources(outcome, settings.source) if needs_source else {}
    job = Job(outcome, sources, settings)
    settings.out.mkdir(parents=True, exist_ok=True)
    made: list[Made] = []
    for target in targets:
        for one in TARGETS[target](job):
            said = [*one.warnings, *([one.reason] if one.reason else [])]
            for text in said:
                say(f"{one.scan + ': ' if one.scan else ''}{target}: {text}")
            made.append(one)
    done = [one for one in made if one.path is not None]
    if not done:
        raise Refused(
            found=f"nothing that could be written ({'; '.join(one.reason for one in made[:3])})",
            needed="at least one visit with what the targets need",
            do="see docs/dicom.md for what each target needs",
        )
    stored = _store(done, settings.store) if settings.store else 0
    return Exported(settings.out, tuple(made), stored)


def _targets(said: str) -> list[str]:
    names = [name.strip() for name in said.split(",") if name.strip()]
    unknown = [name for name in names if name not in TARGETS]
    if unknown or not names:
        raise Refused(
            found=f"the target {unknown[0]!r}" if unknown else "no target",
            needed=f"some of {', '.join(TARGETS)}, separated by commas",
            do="correct --to",
        )
    if "dicom-sr" in names and "dicom-seg" not in names:
        names.insert(0, "dicom-seg")  # The report refers to the segments: without them it would point nowhere.
    return list(dict.fromkeys(name for name in TARGETS if name in names))


def _each(job: Job, target: str, write: Callable[[Visit], tuple[Path, tuple[str, ...]]]) -> Iterator[Made]:
    """One file for each visit with an outline; a visit without one is left out, and that is no failure."""
    for visit in job.outcome.visits:
        if not visit.masks:
            continue
        try:
            path, warnings = write(visit)
        except Refused as refused:
            yield Made(target, visit.scan, None, str(refused))
        else:
            yield Made(target, visit.scan, path, "", warnings)


def _segmentations(job: Job, target: str, kind: Kind, ending: str) -> Iterator[Made]:
    def write(visit: Visit) -> tuple[Path, tuple[str, ...]]:
        made, warnings = job.segmentation(visit, kind)
        return _save(made, job.settings.out / f"{visit.scan}_{ending}.dcm"), warnings

    return _each(job, target, write)


def _reports(job: Job) -> Iterator[Made]:
    for visit in job.outcome.visits:
        try:
            segmentation = job.segmentation(visit, "BINARY")[0] if visit.masks else None
            path = _save(make_report(job.scene(visit), segmentation), job.settings.out / f"{visit.scan}_sr.dcm")
        except Refused as refused:
            yield Made("dicom-sr", visit.scan, None, str(refused))
        else:
            yield Made("dicom-sr", visit.scan, path)


def _structure_sets(job: Job) -> Iterator[Made]:
    def write(visit: Visit) -> tuple[Path, tuple[str, ...]]:
        return _save(make_structure_set(job.scene(visit)), job.settings.out / f"{visit.scan}_rtstruct.dcm"), ()

    return _each(job, "rtstruct", write)


def _label_maps(job: Job) -> Iterator[Made]:
    def labels(visit: Visit) -> tuple[Path, tuple[str, ...]]:
        path = job.settings.out / f"{visit.scan}_lesions.nrrd"
        return path, write_label_nrrd(path, job.outcome, visit)

    def segments(visit: Visit) -> tuple[Path, tuple[str, ...]]:
        path = job.settings.out / f"{visit.scan}.seg.nrrd"
        write_segments_nrrd(path, job.outcome, visit)
        return path, ()

    yield from _each(job, "nrrd", labels)
    yield from _each(job, "nrrd", segments)


def _trial(job: Job) -> Iterator[Made]:
    from lesionlocator.report import write_text

    patients = [source.patient for source in job.sources.values() if isinstance(source, Source)]
    subject = job.settings.subject or next(iter(patients), "") or job.outcome.folder.resolve().name
    tables, told = trial_tables(job.outcome, job.sources, Naming(job.settings.study, subject))
    for name, text in tables.items():
        path = job.settings.out / f"{name}.csv"
        write_text(path, text)
        yield Made("sdtm", "", path, "", told)
        told = ()


def _save(made: Any, path: Path) -> Path:
    with whole(path) as beside:
        made.save_as(beside, enforce_file_format=True)
    return path


def _store(made: list[Made], address: str) -> int:
    from lesionlocator.formats.dicom_web import store_files

    files = [one.path for one in made if one.path is not None and one.target in DICOM_TARGETS]
    store_files(address, files)
    return len(files)


TARGETS: dict[str, Callable[[Job], Iterator[Made]]] = {
    "dicom-seg": lambda job: _segmentations(job, "dicom-seg", "BINARY", "seg"),
    "dicom-labelmap": lambda job: _segmentations(job, "dicom-labelmap", "LABELMAP", "labelmap"),
    "dicom-sr": _reports,
    "rtstruct": _structure_sets,
    "nrrd": _label_maps,
    "sdtm": _trial,
}
"""Name of a target -> what writes it. A new target is one function and one row."""
DICOM_TARGETS = ("dicom-seg", "dicom-labelmap", "dicom-sr", "rtstruct")

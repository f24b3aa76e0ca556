"""The straight line from files to files: what `segment` and `track` do, for a shell, a batch or a server."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lesionlocator.errors import Refused
from lesionlocator.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from lesionlocator.batch import CaseJob
    from lesionlocator.case import Case, Lesion, Timepoint
    from lesionlocator.geometry import Alignment, Geometry
    from lesionlocator.measure import Row
    from lesionlocator.report import Record
    from lesionlocator.segment import Segmenter
    from lesionlocator.track import Following
    from lesionlocator.volume import Mask, Volume
    from lesionlocator.weights import ModelCard

Say = Callable[[str], None]
Modality = Literal["CT", "MR", "PT"]
Quality = Literal["fast", "balanced", "max"]
Precision = Literal["fp32", "bf16", "fp16"]
_SHELF_BYTES = 2_000_000_000


@dataclass(frozen=True, kw_only=True)
class OutlineSettings:
    """What every command that outlines is told: the model, how it runs, and how scans are read."""

    model: str = DEFAULT_MODEL
    """Name of a model (see `lesionlocator models`), or a model folder."""
    quality: Quality = "balanced"
    """More work for a finer outline, or less. Published checkpoints: one fold, all folds, all folds and mirrors."""
    modality: Modality | None = None
    """Modality of the scans. Default: what DICOM says, else guessed from the values, with a warning."""
    device: str = "auto"
    """Where the model runs: cpu, cuda. Default: a GPU if the model can use one."""
    precision: Precision = "fp32"
    """Numbers that networks compute with; fp16 on a GPU only. For published checkpoints."""
    folds: tuple[int, ...] = ()
    """A fold to use; may be given again. Default: what the quality says. For published checkpoints."""
    no_mirroring: bool = False
    """Leave out the mirrored passes of the quality max. For published checkpoints."""
    repeats: int = 0
    """Ask for every lesion this many times more, with drawn prompt errors (8 is enough), and write repeatability.csv:
    how far each measurement would move. Takes that many times longer."""


@dataclass(frozen=True, kw_only=True)
class CaseSettings:
    """What every command on one case is told."""

    prompts: Path
    """Prompt file for the scan, the first if there are several (JSON, label map, or 3D Slicer markups)."""
    out: Path
    """Folder for masks, tables and run.json."""
    split: bool = False
    """One lesion for each 26-connected part of a label map, instead of one for each id."""


# The order of the parents is that of `--help`, backwards: what has to be said comes first.
@dataclass(frozen=True, kw_only=True)
class SegmentSettings(OutlineSettings, CaseSettings):
    """What `segment` is told besides the scan."""

    as_: Literal["box", "click"] | None = None
    """What to make of each lesion of a label map: its tight box (default) or a click at its deepest voxel."""


@dataclass(frozen=True, kw_only=True)
class TrackSettings(OutlineSettings, CaseSettings):
    """What `track` is told besides the scans."""

    as_: Literal["box", "click", "mask"] | None = None
    """What to make of each lesion of a label map: box (default), click, or mask (kept as the baseline's outline)."""
    align: str | None = None
    """How scans are brought together: header, centre, rigid, affine or deformable. Default: the model's
    own way if it has one (published checkpoints), else deformable."""
    propose: bool = False
    """Also write NAME_proposed.json for each follow-up (where lesions seem to be, least sure first, to be checked) and
    a picture of each place in NAME_proposed/."""
    find_new: bool = False
    """Also write NAME_new.json for each follow-up: candidates for lesions that were not there at the visit before, best
    first, for a reader to accept; nothing of them enters the tables. Brighter or darker, roundish, from about 4 mm."""
    verified: tuple[Path, ...] = ()
    """A checked prompt file for a follow-up (its `scan` says which, if there are several); may be given again."""
    maps: Path | None = None
    """A folder that keeps alignments, so that another run on these scans (other prompts, one more visit) does not align
    them again."""


@dataclass(frozen=True, eq=False)
class Finished:
    """What came of a run. `failed` are the rows that were asked for and could not be done."""

    case: Case
    rows: Sequence[Row]
    record: Record
    folder: Path

    @property
    def failed(self) -> list[Row]:
        first = self.case.timepoints[0].name
        return [row for row in self.rows if row.status == "failed" or (row.status == "outside" and row.scan == first)]


def run_segment(scan: Path, settings: SegmentSettings, say: Say = lambda _: None) -> Finished:
    """Outline the prompted lesions of one scan and write the output folder.

    Raises:
        Refused: The input cannot be used, or no lesion could be outlined. Nothing is written then.
    """
    from lesionlocator.formats import open_case
    from lesionlocator.segment import segment_case

    record = _record("segment", settings, scan=str(scan))
    segmenter = _load(settings)
    with record.stage("read"):
        case = open_case([scan], settings.prompts, kind=settings.as_, split=settings.split, modality=settings.modality)
        case = _on_shelf(case)
        case.timepoints[0].load()
    say(f"{case.timepoints[0].name}: outlining {len(case.timepoints[0].lesions)} lesions with {segmenter.name}")
    with record.stage("outline"):
        case = segment_case(case, segmenter)
    _repeat(case, segmenter, settings, record)
    return finish_case(case, [scan], segmenter.card, record, settings.out)


def run_track(scans: Sequence[Path], settings: TrackSettings, say: Say = lambda _: None) -> Finished:
    """Outline the prompted lesions of the first scan, follow them through the others and write the output folder.

    Raises:
        Refused: The input cannot be used, or no lesion could be outlined. Nothing is written then.
    """
    from lesionlocator.formats import open_case
    from lesionlocator.segment.visit import keep_masks, segment_timepoint
    from lesionlocator.track import track_case

    if len(scans) < 2:
        raise Refused(found="one scan", needed="a baseline and at least one follow-up", do="use `segment` for one scan")
    record = _record("track", settings, scans=[str(scan) for scan in scans])
    following = _following(settings)
    segmenter = _load(settings)
    with record.stage("read"):
        case = open_case(
            list(scans), settings.prompts, kind=settings.as_, split=settings.split, modality=settings.modality
        )
        case = _on_shelf(case)
        verified = _read_verified(settings.verified, case)
    first = case.timepoints[0]
    with record.stage("outline baseline"):
        say(f"{first.name}: outlining {len(first.lesions)} lesions with {segmenter.name}")
        first = keep_masks(first) if settings.as_ == "mask" else segment_timepoint(first, segmenter)
    _refuse_if_none(first)
    with record.stage("follow"):
        case = replace(case, timepoints=(first, *case.timepoints[1:]))
        case = track_case(case, segmenter, settings=replace(following, verified=verified), say=say)
    _repeat(case, segmenter, settings, record, given=settings.as_ == "mask")
    finished = finish_case(case, scans, segmenter.card, record, settings.out)
    if settings.propose:
        _write_proposals(finished)
    if settings.find_new:
        _write_new(finished, following)
    return finished


@dataclass(frozen=True, kw_only=True)
class BatchSettings(OutlineSettings):
    """What a batch says for all of its cases; a case's own `as` and `modality` go before."""

    as_: Literal["box", "click", "mask"] | None = None
    """What to make of each lesion of a label map: box (default), click, or (with follow-ups) mask."""
    align: str | None = None
    """How scans are brought together: header, centre, rigid, affine or deformable. Default: the model's
    own way if it has one (published checkpoints), else deformable."""


def run_case(job: CaseJob, folder: Path, settings: BatchSettings | None = None) -> None:
    """One case of a batch: segmented if it has one scan, tracked if it has several."""
    said = asdict(settings or BatchSettings())
    said |= {"as_" if name == "as" else name: value for name, value in job.options}
    if len(job.scans) == 1:
        if said["as_"] == "mask":
            raise Refused(
                found="masks to be kept as outlines, in a case of one scan",
                needed="a follow-up to carry them to",
                do="use `--as box` or `--as click`, or `lesionlocator measure`",
            )
        said.pop("align")
        run_segment(job.scans[0], SegmentSettings(prompts=job.prompts, out=folder, **said))
    else:
        run_track(job.scans, TrackSettings(prompts=job.prompts, out=folder, **said))


def _load(settings: OutlineSettings) -> Segmenter:
    from lesionlocator.segment import Running, load_segmenter

    if settings.repeats < 0 or 0 < settings.repeats < 3:
        raise Refused(found=f"{settings.repeats} repeats", needed="none (0), or 3 and more", do="say --repeats 8")
    mirroring = False if settings.no_mirroring else None
    running = Running(settings.device, settings.quality, settings.precision, settings.folds, mirroring)
    return load_segmenter(settings.model, running=running)


def _following(settings: TrackSettings) -> Following:
    """How lesions are followed, an unknown aligner refused before anything is read."""
    from lesionlocator.kept_maps import MapFolder
    from lesionlocator.track import Following, find_aligner

    if settings.align:
        find_aligner(settings.align)
    maps = MapFolder(settings.maps) if settings.maps else _Remembered() if settings.find_new else None
    return Following(settings.align or None, maps=maps)


class _Remembered:
    """Alignments kept for one run, for what comes after the tracking."""

    def __init__(self) -> None:
        self._known: dict[str, Alignment] = {}

    def get(self, key: str) -> Alignment | None:
        return self._known.get(key)

    def put(self, key: str, alignment: Alignment) -> None:
        self._known[key] = alignment


def _repeat(
    case: Case, segmenter: Segmenter, settings: OutlineSettings, record: Record, *, given: bool = False
) -> None:
    """Every outline asked for again with drawn prompt errors, where that was asked for."""
    from lesionlocator.repeatability import PromptErrors, repeat_timepoint

    for index, timepoint in enumerate(case.timepoints if settings.repeats else ()):
        with record.stage("repeat"):
            prepared = segmenter.prepare(timepoint.load())
            record.repeatability += repeat_timepoint(
                timepoint,
                lambda asks, prepared=prepared: [answer.mask for answer in segmenter.outline(prepared, asks)],
                PromptErrors(repeats=settings.repeats),
                given=given and index == 0,
            )


def _write_proposals(finished: Finished) -> None:
    # Not among the files of run.json: a reader edits these, and a later run must not clear them away.
    from lesionlocator.formats import write_prompts
    from lesionlocator.propose import draw_proposals, proposals

    for index, (timepoint, lesions) in enumerate(proposals(finished.case), start=1):
        path = finished.folder / f"{timepoint.name}_proposed.json"
        write_prompts(path, lesions, timepoint.geometry, scan=timepoint.name)
        draw_proposals(finished.case, index, path.with_suffix(""))


def _write_new(finished: Finished, following: Following) -> None:
    # As the proposals: for a reader, and not among the files of run.json.
    from lesionlocator.appeared import as_prompts, find_new
    from lesionlocator.formats import write_prompts

    visits = finished.case.timepoints
    for before, after in zip(visits, visits[1:], strict=False):
        baseline, followup = before.load(), after.load()
        known = [lesion.mask for lesion in after.lesions if lesion.mask is not None]
        found = find_new(baseline, followup, following.aligner(baseline, followup), known)
        path = finished.folder / f"{after.name}_new.json"
        write_prompts(path, as_prompts(found), after.geometry, scan=after.name)


def finish_case(case: Case, scans: Sequence[Path], card: ModelCard, record: Record, out: Path) -> Finished:
    """Measure a case and write its output folder.

    Args:
        case: With outlines and links.
        scans: The paths of its scans, for the record.
        card: The model's.
        record: What was done so far; gets measuring, checksums and warnings.
        out: The output folder.

    Raises:
        Refused: No lesion of the first scan has an outline.
    """
    from lesionlocator.formats import scan_checksum
    from lesionlocator.measure import measure_timepoint
    from lesionlocator.report import write_report

    _refuse_if_none(case.timepoints[0])
    record.model = {"id": card.id, "kind": card.kind, "licence": card.licence}
    rows: list[Row] = []
    # One scan after the other, so that long scans are not read again for each question.
    for path, timepoint in zip(scans, case.timepoints, strict=True):
        with record.stage("measure"):
            rows.extend(measure_timepoint(timepoint))
            volume = timepoint.load()
        record.warnings.extend(f"{timepoint.name}: {warning}" for warning in volume.warnings)
        with record.stage("checksum"):
            sha256 = scan_checksum(path)
        record.inputs.append({"scan": timepoint.name, "path": str(path), "sha256": sha256, "modality": volume.modality})
    folder = write_report(case, rows, out, record)
    return Finished(case, rows, record, folder)


def _record(command: str, settings: CaseSettings, **scans: Any) -> Record:
    from lesionlocator.report import Record

    # Not `out`: the record lies there, and a folder may be moved (a batch does so with every finished case).
    arguments = {name.rstrip("_"): _plain(value) for name, value in asdict(settings).items() if name != "out"}
    return Record(command, {**scans, **arguments})


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _refuse_if_none(timepoint: Timepoint) -> None:
    if any(lesion.mask is not None for lesion in timepoint.lesions):
        return
    reasons = "; ".join(f"lesion {lesion.id}: {lesion.reason}" for lesion in timepoint.lesions)
    raise Refused(
        found=f"no lesion of {timepoint.name} that could be outlined ({reasons or 'no lesion in the prompts'})",
        needed="at least one prompt that can be answered",
        do="check the prompts against the scan (`space`, `frame` and order of axes are the usual suspects)",
    )


def _read_verified(files: Sequence[Path], case: Case) -> dict[str, tuple[Lesion, ...]]:
    from lesionlocator.formats import read_prompts

    later = {timepoint.name: timepoint for timepoint in case.timepoints[1:]}
    found: dict[str, tuple[Lesion, ...]] = {}
    for file in files:
        name = next(iter(later)) if len(later) == 1 else _scan_of(file)
        if name not in later or name in found:
            raise Refused(
                found=f"{file} for the scan {name!r}",
                needed=f"`scan` to be one of {', '.join(later)}, each once",
                do="write the follow-up's name into the file's `scan`",
            )
        found[name] = read_prompts(file, later[name])
    return found


def _scan_of(file: Path) -> str | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    name = content.get("scan") if isinstance(content, dict) else None
    return str(name) if name is not None else None


def _on_shelf(case: Case) -> Case:
    """The case with loaders that keep the last scans they read, up to some memory, so that files are read once."""
    shelf: OrderedDict[int, Volume] = OrderedDict()
    timepoints = tuple(
        replace(timepoint, load=partial(_take, shelf, index, timepoint.load))
        for index, timepoint in enumerate(case.timepoints)
    )
    return replace(case, timepoints=timepoints)


def _take(shelf: OrderedDict[int, Volume], index: int, load: Callable[[], Volume]) -> Volume:
    if index not in shelf:
        shelf[index] = load()
    shelf.move_to_end(index)
    while len(shelf) > 1 and sum(volume.array.nbytes for volume in shelf.values()) > _SHELF_BYTES:
        shelf.popitem(last=False)
    return shelf[index]


def convert_prompts(
    file: Path,
    out: Path,
    scan: Path | None,
    *,
    kind: Literal["box", "click", "mask"] | None = None,
    split: bool = False,
) -> tuple[Lesion, ...]:
    """Read a prompt file of any kind and write it as version 1 JSON, or painted as a label map if `out` is an image.

    Raises:
        Refused: The file needs a scan (prompts in voxels, a label map out) and none was given, or it cannot be read.
    """
    from lesionlocator.formats import open_timepoint, read_prompts, write_labels, write_prompts

    timepoint = open_timepoint(scan) if scan is not None else None
    geometry = timepoint.geometry if timepoint else None
    lesions = read_prompts(file, geometry, kind=kind, split=split)
    if out.suffix == ".json":
        write_prompts(out, lesions, geometry, scan=timepoint.name if timepoint else None)
        return lesions
    if timepoint is None:
        raise Refused(found=f"{out.name} to be painted", needed="the scan whose grid it gets", do="add --scan SCAN")
    write_labels(out, _painted(lesions, timepoint.geometry), timepoint.geometry)
    return lesions


def _painted(lesions: Sequence[Lesion], geometry: Geometry) -> dict[int, Mask]:
    import numpy as np

    from lesionlocator.report import label_numbers
    from lesionlocator.volume import Mask

    labels = label_numbers([lesion.id for lesion in lesions])
    return {
        labels[lesion.id]: Mask.from_array(np.logical_or.reduce([p.paint(geometry) for p in lesion.prompts]), geometry)
        for lesion in lesions
    }

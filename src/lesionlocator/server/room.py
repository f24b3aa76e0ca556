"""The reading room: which cases there are, and everything that can be done with one of them."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lesionlocator.case import Case, Lesion, Place, Timepoint
from lesionlocator.errors import Refused
from lesionlocator.formats import list_case_files, open_case, open_timepoint, read_prompts, read_volume, scan_names
from lesionlocator.geometry import Alignment
from lesionlocator.kept_maps import MapFolder
from lesionlocator.prompt import Click, Prompt
from lesionlocator.segment import Outline, Prepared, Segmenter, load_segmenter
from lesionlocator.segment.visit import outlined
from lesionlocator.server.again import Follower
from lesionlocator.server.correct import correct
from lesionlocator.server.jobs import Job, Queue
from lesionlocator.server.leave import pack, write_document, write_objects, write_result
from lesionlocator.server.reading import Reading
from lesionlocator.server.settings import ServeSettings
from lesionlocator.server.shelf import Shelf
from lesionlocator.server.store import Conflict, Kept, Store
from lesionlocator.server.view import Viewer
from lesionlocator.server.written import MaskFolder, from_text, to_text
from lesionlocator.track import Following
from lesionlocator.volume import Volume

Say = Callable[[str], None]
_Asking = Callable[[Prepared, Lesion], tuple[tuple[Prompt, ...], Outline]]
_READINGS = 32
_DEEPEST = 2


@dataclass(frozen=True)
class Found:
    """A case that can be opened."""

    id: str
    title: str
    scans: tuple[Path, ...]
    prompts: Path | None = None


class Room:
    """All cases of one server, and what readers do with them.

    Args:
        roots: Folders that may be read. A case outside them is not known.
        state: Folder for the database, the outlines, uploads and exports.
        settings: The server's.
        explain: What is told of an exception in a job.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        state: Path,
        settings: ServeSettings,
        explain: Callable[[Exception], dict[str, Any]],
    ) -> None:
        self.settings, self.state = settings, state
        self.roots = tuple(root.resolve() for root in roots)
        self.segmenter: Segmenter = load_segmenter(settings.model, device=settings.device)
        aligner = Following(settings.align, maps=MapFolder(state / "alignments")).aligner
        self.shelf = Shelf(self._read, self.segmenter, aligner, settings.memory_mb * 1_000_000)
        self.store = Store(state)
        self.masks = MaskFolder(state / "outlines")
        self.uploads = state / "uploads"
        self.uploads.mkdir(parents=True, exist_ok=True)
        self.queue = Queue(settings.queue, explain)
        # Bringing scans together takes long and needs no model: a click does not wait for it.
        self.aligning = Queue(settings.queue, explain)
        self.viewer = Viewer()
        self._readings: OrderedDict[str, tuple[int, Reading]] = OrderedDict()
        self._lock = threading.Lock()

    # What there is -----------------------------------------------------------------------------------------------

    def cases(self) -> list[Found]:
        """Every case in the folders and among the uploads, by title; those opened before stay known by their id."""
        found = {case.id: case for root in (*self.roots, self.uploads) for case in _cases_in(root, _DEEPEST)}
        return sorted(found.values(), key=lambda case: (case.title.lower(), case.id))

    def open(self, case_id: str) -> dict[str, Any]:
        """The case, entered into the database when it is opened for the first time.

        Raises:
            Refused: It is not known, or its scans cannot be read.
        """
        known = {known_id for known_id, _, _ in self.store.cases()}
        if case_id not in known:
            found = next((case for case in self.cases() if case.id == case_id), None)
            if found is None:
                raise Refused(found=f"no case {case_id!r}", needed="a case of the list", do="reload the list")
            reading = self._first(found)
            self.store.open(case_id, found.title, found.scans, to_text(reading, self.masks))
        return self.view(case_id)

    def view(self, case_id: str) -> dict[str, Any]:
        """The case as it stands, for the page."""
        kept, reading = self.reading(case_id)
        return self.viewer.view(kept, reading)

    def reading(self, case_id: str) -> tuple[Kept, Reading]:
        """The case as it stands, as a value."""
        kept = self.store.case(case_id)
        with self._lock:
            known = self._readings.get(case_id)
        if known is not None and known[0] == kept.revision:
            return kept, known[1]
        reading = from_text(kept.content, self._timepoints(kept.scans), self.masks)
        self._remember(case_id, kept.revision, reading)
        return kept, reading

    def scan(self, case_id: str, index: int) -> tuple[Path, Timepoint]:
        """The path of a scan, and the scan with its lesions."""
        kept, reading = self.reading(case_id)
        reading.refuse_unknown_scan(index)
        return kept.scans[index], reading.case.timepoints[index]

    def volume(self, case_id: str, index: int) -> Volume:
        """The voxels of a scan."""
        return self.shelf.volume(self.scan(case_id, index)[0])

    def counterpart(self, case_id: str, index: int, to: int, at_mm: Sequence[float]) -> list[float] | None:
        """The same place in another scan; None while their alignment has not been worked out."""
        kept, reading = self.reading(case_id)
        reading.refuse_unknown_scan(index)
        reading.refuse_unknown_scan(to)
        first, last = sorted((index, to))
        alignment = self.shelf.known_alignment(kept.scans[first], kept.scans[last])
        if index == to or alignment is None:
            return list(at_mm) if index == to else None
        carry = alignment.forward if index < to else alignment.backward
        return carry(np.array([at_mm], float))[0].tolist()

    # What is done at once ----------------------------------------------------------------------------------------

    def edit(
        self, case_id: str, revision: int, change: Callable[[Reading], Reading], *, action: str, session: str
    ) -> dict[str, Any]:
        """One step: the reading changed and saved.

        Raises:
            Conflict: The case is not at `revision` any more.
        """
        kept, reading = self.reading(case_id)
        if kept.revision != revision:
            raise Conflict(kept.revision, kept.action)
        return self._save(case_id, revision, change(reading), action=action, session=session)

    def undo(self, case_id: str, revision: int, session: str) -> dict[str, Any]:
        """One step back."""
        self.store.undo(case_id, revision, session)
        return self.view(case_id)

    def redo(self, case_id: str, revision: int, session: str) -> dict[str, Any]:
        """One step forward again."""
        self.store.redo(case_id, revision, session)
        return self.view(case_id)

    # What takes a while ------------------------------------------------------------------------------------------

    def outline(self, case_id: str, place: Place, prompts: tuple[Prompt, ...], *, revision: int, session: str) -> Job:
        """A lesion outlined from prompts, as a job whose answer is the case."""
        self.scan(case_id, place[0])

        def ask(prepared: Prepared, _: Lesion) -> tuple[tuple[Prompt, ...], Outline]:
            return prompts, self.segmenter.outline(prepared, [prompts])[0]

        work = partial(self._outline, case_id, place, ask, revision, session)
        return self.queue.add(Job(work, "outline", session))

    def correct(self, case_id: str, place: Place, clicks: tuple[Click, ...], *, revision: int, session: str) -> Job:
        """A lesion's outline as it is, corrected at clicks, as a job whose answer is the case."""
        self.reading(case_id)[1].lesion(place)

        def ask(prepared: Prepared, before: Lesion) -> tuple[tuple[Prompt, ...], Outline]:
            return (*before.prompts, *clicks), correct(self.segmenter, prepared, before, clicks)

        work = partial(self._outline, case_id, place, ask, revision, session)
        return self.queue.add(Job(work, "outline", session))

    def outline_asked(self, case_id: str, *, revision: int, session: str) -> Job:
        """Every lesion that came with prompts and was not outlined yet, as a job."""
        self.scan(case_id, 0)
        return self.queue.add(Job(partial(self._outline_asked, case_id, revision, session), "outline", session))

    def follow(self, case_id: str, *, revision: int, session: str) -> Job:
        """All lesions followed through the later scans, as a job."""
        self.scan(case_id, 0)
        return self.queue.add(Job(partial(self._follow, case_id, revision, session), "follow", session))

    def export(self, case_id: str, targets: tuple[str, ...], criteria: str, *, revision: int, session: str) -> Job:
        """The result written to disk with its report, as a job whose answer says what was made and what was not."""
        kept, reading = self.reading(case_id)
        if kept.revision != revision:
            raise Conflict(kept.revision, kept.action)

        def work(say: Say) -> dict[str, Any]:
            folder = self.result_folder(case_id)
            said = write_result(reading, kept.scans, self.segmenter, folder, say=say)
            said += write_objects(folder, targets, kept.scans, say=say) if targets else []
            said += write_document(folder, criteria, say=say)
            pack(folder)
            return {"revision": revision, "warnings": said}

        return self.queue.add(Job(work, "export", session))

    def result_folder(self, case_id: str) -> Path:
        """Where the last export of a case lies."""
        self.store.case(case_id)
        return self.state / "exports" / case_id

    def make_demo(self, session: str) -> Job:
        """The demo's two scans put among the uploads, as a job whose answer is the id of their case."""

        def work(say: Say) -> dict[str, Any]:
            from lesionlocator.demo import write_demo_case

            folder = self.uploads / "demo"
            if not (folder / "scans" / "prompts.json").is_file():
                write_demo_case(folder, say=say)
            return {"id": _cases_in(folder / "scans", 0)[0].id}

        return self.queue.add(Job(work, "demo", session))

    def align(self, case_id: str, first: int, last: int, *, session: str) -> Job:
        """Two scans brought together, so that their cursors can be linked, as a job."""
        self.scan(case_id, last)

        def work(say: Say) -> dict[str, Any]:
            say("bringing the scans together")
            self.alignment(case_id, first, last)
            return {"aligned": [first, last]}

        return self.aligning.add(Job(work, "align", session))

    def job(self, job_id: str) -> Job:
        """The job of this id.

        Raises:
            Refused: It is not known, or was forgotten.
        """
        return self.aligning.known(job_id) or self.queue.job(job_id)

    def close(self) -> None:
        """Cancels all work and waits for it to stop."""
        for queue in (self.aligning, self.queue):
            queue.close()
        self.store.close()

    def alignment(self, case_id: str, first: int, last: int) -> Alignment:
        """How two scans of a case correspond; worked out once."""
        return self.shelf.alignment(self.scan(case_id, first)[0], self.scan(case_id, last)[0])

    def _outline(
        self, case_id: str, place: Place, ask: _Asking, revision: int, session: str, say: Say
    ) -> dict[str, Any]:
        scan, lesion_id = place
        path, timepoint = self.scan(case_id, scan)
        say("outlining")
        prepared = self.shelf.prepared(path)
        # The lesion as it is when its turn has come, which is what the reader has seen.
        prompts, outline = ask(prepared, timepoint.lesion(lesion_id) or Lesion(lesion_id))
        lesion = outlined(Lesion(lesion_id, prompts), outline, timepoint.geometry)
        if lesion.mask is None:
            raise Refused(
                found=f"no outline for lesion {lesion_id}: {lesion.reason}",
                needed="a click or box on something that stands out",
                do="point at another place, or draw a box",
            )
        self.viewer.measured(timepoint, lesion, prepared.volume)
        kept, reading = self._current(case_id, revision, session)
        changed = reading.outlined(scan, lesion)
        action = f"outlined lesion {lesion_id} in {timepoint.name}"
        return self._save(case_id, kept.revision, changed, action=action, session=session)

    def _outline_asked(self, case_id: str, revision: int, session: str, say: Say) -> dict[str, Any]:
        path, timepoint = self.scan(case_id, 0)
        asked = [lesion for lesion in timepoint.lesions if lesion.prompts and lesion.mask is None]
        say(f"outlining {len(asked)} lesions")
        prepared = self.shelf.prepared(path)
        outlines = self.segmenter.outline(prepared, [lesion.prompts for lesion in asked])
        kept, reading = self._current(case_id, revision, session)
        for lesion, outline in zip(asked, outlines, strict=True):
            reading = reading.with_lesion(0, outlined(lesion, outline, timepoint.geometry))
        for lesion in reading.case.timepoints[0].lesions:
            self.viewer.measured(timepoint, lesion, prepared.volume)
        action = f"outlined {len(asked)} lesions in {timepoint.name}"
        return self._save(case_id, kept.revision, reading, action=action, session=session)

    def _follow(self, case_id: str, revision: int, session: str, say: Say) -> dict[str, Any]:
        _, reading = self._current(case_id, revision, session)
        follower = Follower(self.segmenter, lambda first, last: self.alignment(case_id, first, last))
        reading = follower.follow(reading, say)
        say("measuring")
        for timepoint in reading.case.timepoints[1:]:
            for lesion in timepoint.lesions:
                self.viewer.measured(timepoint, lesion, timepoint.load())
        kept, _ = self._current(case_id, revision, session)
        return self._save(case_id, kept.revision, reading, action="followed all lesions", session=session)

    # How it is kept ----------------------------------------------------------------------------------------------

    def _current(self, case_id: str, revision: int, session: str) -> tuple[Kept, Reading]:
        """The case now, if only this session has changed it since `revision`: its jobs may follow each other closely.

        Raises:
            Conflict: Someone else has changed it.
        """
        kept, reading = self.reading(case_id)
        if kept.revision != revision and not self.store.only_by(session, case_id, revision):
            raise Conflict(kept.revision, kept.action)
        return kept, reading

    def _save(self, case_id: str, revision: int, reading: Reading, *, action: str, session: str) -> dict[str, Any]:
        text = to_text(reading, self.masks)
        kept = self.store.save(case_id, revision, text, action=action, session=session)
        self._remember(case_id, kept.revision, reading)
        return self.viewer.view(kept, reading)

    def _remember(self, case_id: str, revision: int, reading: Reading) -> None:
        with self._lock:
            self._readings[case_id] = (revision, reading)
            self._readings.move_to_end(case_id)
            while len(self._readings) > _READINGS:
                self._readings.popitem(last=False)

    def _first(self, found: Found) -> Reading:
        if found.prompts is None:
            return Reading(found.title, open_case(found.scans, modality=self.settings.modality))
        timepoints = list(self._timepoints(found.scans))
        try:
            lesions = read_prompts(found.prompts, timepoints[0])
        except Refused as problem:
            warning = f"{found.prompts.name} was left out: {problem}"
            return Reading(found.title, Case(tuple(timepoints), warnings=(warning,)))
        timepoints[0] = timepoints[0].with_lesions(lesions)
        return Reading(found.title, Case(tuple(timepoints)))

    def _timepoints(self, scans: Sequence[Path]) -> tuple[Timepoint, ...]:
        opened = (
            open_timepoint(path, self.settings.modality, name=name)
            for path, name in zip(scans, scan_names(scans), strict=True)
        )
        return tuple(
            replace(timepoint, load=partial(self.shelf.volume, path))
            for path, timepoint in zip(scans, opened, strict=True)
        )

    def _read(self, path: Path) -> Volume:
        return read_volume(path, self.settings.modality)


def _cases_in(folder: Path, deeper: int) -> list[Found]:
    """The folder itself where it holds scan files, else the cases in its folders."""
    if not folder.is_dir():
        return []
    scans, prompts = list_case_files(folder)
    files = [path for path in scans if path.is_file()]
    if files or (scans and deeper == 0) or _is_dicom_case(scans):
        one = prompts[0] if len(prompts) == 1 else None
        title = folder.parent.name if folder.name == "scans" else folder.name
        return [Found(case_id_of(scans), title, scans, one)]
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [case for path in inner for case in _cases_in(path, deeper - 1)] if deeper else []


def _is_dicom_case(scans: Sequence[Path]) -> bool:
    """Whether each folder is a series: it holds files and no folders, and none of the files is an image of ours."""
    if not scans:
        return False
    for folder in scans:
        entries = list(folder.iterdir())
        if any(entry.is_dir() for entry in entries) or list_case_files(folder)[0]:
            return False
    return True


def case_id_of(scans: Sequence[Path]) -> str:
    """A case is its scans, where they lie: the same ones have the same id after a restart."""
    digest = hashlib.sha256("\n".join(str(path.resolve()) for path in scans).encode())
    return digest.hexdigest()[:16]

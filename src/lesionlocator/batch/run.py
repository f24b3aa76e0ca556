"""The batch itself: every case once, finished ones left as they are, a row for each, and the cohort's tables."""

from __future__ import annotations

import csv
import shutil
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from queue import Empty, SimpleQueue
from uuid import uuid4

from lesionlocator.batch.cases import BATCH_TABLE, CaseJob
from lesionlocator.batch.executors import Executor, Pending, WorkerDied
from lesionlocator.batch.lease import LEASE, holder, is_stale, leased
from lesionlocator.errors import Refused

RUN = "run.json"
"""Written last into the folder of a case: where it is, the case is done."""

Work = Callable[[CaseJob, Path], None]
"""Does one case into an empty folder that is named like the case, and writes `run.json` there last."""

_Answered = SimpleQueue[tuple[str, Pending]]
_WORKPLACES = ".work"
_TABLES = ("lesions.csv", "links.csv")
_COLUMNS = ("case", "status", "reason", "seconds", "folder")
_REST_SECONDS = 1.0
_HOLDER = "holder"
_OUTLIVING_SECONDS = 30.0


class Standing(StrEnum):
    """Where a case stands."""

    DONE = "done"
    FAILED = "failed"
    WAITING = "waiting"


@dataclass(frozen=True)
class CaseRow:
    """One line of `batch.csv`. `folder` is relative to the output folder; `seconds` is None when nobody measured it."""

    case: str
    status: Standing = Standing.WAITING
    reason: str = ""
    seconds: float | None = None
    folder: str = ""


@dataclass(frozen=True)
class BatchResult:
    """What became of every case, how many had been done before, and how many lesions failed in those that are done."""

    rows: tuple[CaseRow, ...]
    done_before: int
    failed_lesions: int

    @property
    def failed(self) -> tuple[CaseRow, ...]:
        """The cases that failed."""
        return tuple(row for row in self.rows if row.status is Standing.FAILED)

    @property
    def is_complete(self) -> bool:
        """Whether everything asked for was done: no case and no lesion failed."""
        return not self.failed and not self.failed_lesions


def run_batch(
    jobs: Sequence[CaseJob], work: Work, out: Path, *, executor: Executor, say: Callable[[str], None] = lambda _: None
) -> BatchResult:
    """Does `work` for every case that is not done yet, and gathers the tables of all.

    A case is worked on in `out/.work/<unique>/<case>` and moved to `out/<case>` when its `run.json` is there. So `out`
    holds finished cases only, whenever and however a batch is killed: an attempt's leftovers can neither be taken for
    results nor get among those of the next attempt, not even those of a worker on another computer that outlived its
    batch. (Working in `out/<case>` would mean to delete, before every new attempt, a folder that we cannot know to be
    ours.)

    `batch.csv` has a row for every case and is rewritten as cases finish. A case that failed is tried again by the
    next batch. An interruption (Ctrl-C) is raised again when the table says how far it came; the executor's `with`
    block then ends the cases that were running. No cases at all give a table without lines.
    """
    out = out.absolute()
    _refuse_twice(jobs)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(
            found=f"{out}, which cannot be a folder ({error})", needed="an output folder", do="change --out"
        ) from error
    with leased(out):
        # Whatever lies there is of a batch that is no more.
        _wait_for_outliving(out / _WORKPLACES, say)
        _remove(out / _WORKPLACES)
        ledger = _Ledger(out, jobs, say)
        ledger.write()
        try:
            _work_through(jobs, work, out, executor, ledger)
        finally:
            ledger.close()
        _remove(out / _WORKPLACES)
        done = [row.case for row in ledger.rows() if row.status is Standing.DONE]
        counts = [_gather(out, table, done) for table in _TABLES]
        return BatchResult(ledger.rows(), ledger.done_before, sum(counts))


def _refuse_twice(jobs: Iterable[CaseJob]) -> None:
    twice = sorted(name for name, count in Counter(job.name for job in jobs).items() if count > 1)
    if twice:
        raise Refused(
            found=f"cases twice: {', '.join(twice)}", needed="each case once", do="give each a name of its own"
        )


def _work_through(jobs: Iterable[CaseJob], work: Work, out: Path, executor: Executor, ledger: _Ledger) -> None:
    answered: _Answered = SimpleQueue()
    pending: dict[str, Pending] = {}
    try:
        for job in jobs:
            if ledger.waits(job.name):
                pending[job.name] = future = executor.submit(_attempt, work, job, out)
                future.add_done_callback(lambda future, name=job.name: answered.put((name, future)))
                _note(answered, pending, ledger, wait=False)
        while pending:
            _note(answered, pending, ledger, wait=True)
    except BaseException:
        for future in pending.values():
            future.cancel()
        raise


def _note(answered: _Answered, pending: dict[str, Pending], ledger: _Ledger, *, wait: bool) -> None:
    try:
        name, future = answered.get(block=wait)
    except Empty:
        return
    del pending[name]
    try:
        row = future.result()
    except WorkerDied as death:
        reason = f"its worker died twice: {death}; give it more memory or fewer --workers, then start again"
        row = CaseRow(name, Standing.FAILED, reason)
    except Refused as refusal:
        row = CaseRow(name, Standing.FAILED, str(refusal))
    except Exception as error:
        row = CaseRow(name, Standing.FAILED, _defect(error))
    ledger.put(row)


def _attempt(work: Work, job: CaseJob, out: Path) -> CaseRow:
    """Does one case, in whatever process this is; answers its row, whatever happened."""
    begun = time.perf_counter()
    row = CaseRow(job.name, Standing.FAILED)
    workplace = out / _WORKPLACES / uuid4().hex / job.name
    try:
        _check_that_we_see(out)
        workplace.mkdir(parents=True)
        (workplace.parent / _HOLDER).write_text(holder(), encoding="utf-8")
        work(job, workplace)
        _publish(workplace, out / job.name)
        row = replace(row, status=Standing.DONE, folder=job.name)
    except Refused as refusal:
        row = replace(row, reason=str(refusal))
    except MemoryError:
        row = replace(row, reason="not enough memory; use fewer --workers, then start again")
    except OSError as error:
        row = replace(row, reason=f"the system said: {error}")
    except (Exception, SystemExit) as error:
        row = replace(row, reason=_defect(error))
    shutil.rmtree(workplace.parent, ignore_errors=True)
    return replace(row, reason=" ".join(row.reason.split()), seconds=time.perf_counter() - begun)


def _check_that_we_see(out: Path) -> None:
    if not (out / LEASE).exists():
        raise Refused(
            found=f"no {out} on {socket.gethostname()}",
            needed="an output folder that every computer of the cluster sees under the same path",
            do="put the cases and --out on storage that they share",
        )


def _publish(workplace: Path, folder: Path) -> None:
    if not (workplace / RUN).is_file():
        raise RuntimeError(f"the work ended without {RUN}")
    try:
        workplace.rename(folder)
    except OSError:
        # An outliving worker of a killed batch may have been faster: then the case is done, and once is enough.
        if not (folder / RUN).is_file():
            raise


def _defect(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f", {Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else ""
    return f"a defect of ours, please report it ({type(error).__name__}: {error}{where})"


class _Ledger:
    """The rows, the table on disk, and what is said about progress."""

    def __init__(self, out: Path, jobs: Iterable[CaseJob], say: Callable[[str], None]) -> None:
        self._out = out
        self._say = say
        earlier = _seconds_of_earlier(out / BATCH_TABLE)
        self._rows = {job.name: _row_on_disk(out, job.name, earlier.get(job.name)) for job in jobs}
        self.done_before = sum(row.status is Standing.DONE for row in self._rows.values())
        self._to_do = sum(row.status is Standing.WAITING for row in self._rows.values())
        self._finished = 0
        self._begun = self._written = time.monotonic()
        if self.done_before:
            say(f"{self.done_before} of {len(self._rows)} cases were done before and stay as they are")

    def rows(self) -> tuple[CaseRow, ...]:
        return tuple(self._rows[name] for name in sorted(self._rows))

    def waits(self, name: str) -> bool:
        return self._rows[name].status is Standing.WAITING

    def put(self, row: CaseRow) -> None:
        self._rows[row.case] = row
        self._finished += 1
        took = "" if row.seconds is None else f" in {row.seconds:.1f} s"
        became = f"done{took}" if row.status is Standing.DONE else f"failed{took}: {row.reason}"
        left = (time.monotonic() - self._begun) / self._finished * (self._to_do - self._finished)
        later = f", about {_rounded(left)} left" if self._finished < self._to_do else ""
        self._say(f"{self._finished}/{self._to_do} {row.case} {became}{later}")
        # A long table is not written anew for each of many short cases.
        if time.monotonic() - self._written > _REST_SECONDS:
            self.write()

    def close(self) -> None:
        """Writes the table for the last time, with the cases whose answers an interruption kept from being noted."""
        waiting = [name for name, row in self._rows.items() if row.status is Standing.WAITING]
        self._rows.update({name: _row_on_disk(self._out, name, None) for name in waiting})
        self.write()

    def write(self) -> None:
        lines = [
            (row.case, str(row.status), row.reason, "" if row.seconds is None else f"{row.seconds:.1f}", row.folder)
            for row in self.rows()
        ]
        _write_table(self._out / BATCH_TABLE, [_COLUMNS, *lines])
        self._written = time.monotonic()


def _row_on_disk(out: Path, name: str, seconds: float | None) -> CaseRow:
    folder = out / name
    if (folder / RUN).is_file():
        return CaseRow(name, Standing.DONE, "", seconds, name)
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        refusal = Refused(
            found=f"{folder} without {RUN}, so not a finished case, and not of this batch",
            needed="a free place for the case",
            do="move it away or delete it, then start again",
        )
        return CaseRow(name, Standing.FAILED, str(refusal))
    return CaseRow(name)


def _seconds_of_earlier(table: Path) -> dict[str, float]:
    if not table.is_file():
        return {}
    with table.open(encoding="utf-8", newline="") as file:
        done = [row for row in csv.DictReader(file) if row.get("status") == Standing.DONE and row.get("seconds")]
    return {row["case"]: float(row["seconds"]) for row in done}


def _gather(out: Path, table: str, cases: Iterable[str]) -> int:
    """One table of all cases, a case at a time, however many; answers how many of its rows say `failed`."""
    parts = [(case, out / case / table) for case in cases if (out / case / table).is_file()]
    columns: dict[str, None] = {}
    for _, part in parts:
        with part.open(encoding="utf-8", newline="") as file:
            columns.update(dict.fromkeys(next(csv.reader(file), [])))
    failed = 0

    def lines() -> Iterator[Sequence[str]]:
        nonlocal failed
        yield ("case", *columns)
        for case, part in parts:
            with part.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    failed += row.get("status") == "failed"
                    yield (case, *(row.get(column) or "" for column in columns))

    if parts:
        _write_table(out / table, lines())
    else:
        (out / table).unlink(missing_ok=True)
    return failed


def _write_table(path: Path, lines: Iterable[Sequence[str]]) -> None:
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    unfinished.replace(path)


def _wait_for_outliving(workplaces: Path, say: Callable[[str], None]) -> None:
    """Workers of a killed batch live on for a moment (Ray's do); what they are about to finish is not begun again."""
    until = time.monotonic() + _OUTLIVING_SECONDS
    while alive := [path for path in workplaces.glob(f"*/{_HOLDER}") if _is_held_here(path)]:
        if time.monotonic() > until:
            say(f"{len(alive)} workers of an earlier batch are still at work; what they do does not count any more")
            return
        time.sleep(0.1)


def _is_held_here(path: Path) -> bool:
    try:
        held = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return f'"{socket.gethostname()}"' in held and not is_stale(held)


def _remove(workplaces: Path) -> None:
    # Renamed first, as an outliving worker of a killed batch may be writing there for another second or two.
    if workplaces.exists():
        old = workplaces.with_name(f"{workplaces.name}-{uuid4().hex}")
        workplaces.rename(old)
        shutil.rmtree(old, ignore_errors=True)


def _rounded(seconds: float) -> str:
    for size, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"

"""`lesionlocator batch`: many cases, on many workers."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from lesionlocator.cli.answer import DONE, NOTHING, PARTLY, Answer, Flat, say
from lesionlocator.run import BatchSettings

_BATCH_SETTINGS = BatchSettings()


def batch(
    cases: Path,
    /,
    *,
    out: Path,
    executor: Literal["same", "process", "ray"] = "process",
    address: str | None = None,
    workers: int | None = None,
    settings: Annotated[BatchSettings, Flat] = _BATCH_SETTINGS,
) -> Answer:
    """Segment or track many cases; finished cases are skipped when it is started again.

    Parameters
    ----------
    cases
        A folder of case folders, or a CSV or TSV table of cases.
    out
        One folder for each case, `batch.csv` with one row for each, and all their tables joined.
    executor
        same: one after another in this process; process: a pool on this machine; ray: a Ray cluster.
    address
        Address of a Ray cluster. Default: a local one.
    workers
        How many cases at once. Default: one for each core.
    """
    from functools import partial

    from lesionlocator.batch import find_cases, open_executor, run_batch
    from lesionlocator.run import run_case

    jobs = find_cases(cases)
    with open_executor(executor, address=address, workers=workers) as pool:
        result = run_batch(jobs, partial(run_case, settings=settings), out, executor=pool, say=say)
    rows = [asdict(row) for row in result.rows]
    done = len(rows) - len(result.failed)
    text = f"{len(rows)} cases: {done} done, {len(result.failed)} failed; see {out / 'batch.csv'}"
    code = DONE if result.is_complete else PARTLY if done else NOTHING
    return Answer({"out": str(out), "cases": rows, "failed_lesions": result.failed_lesions}, text, code)

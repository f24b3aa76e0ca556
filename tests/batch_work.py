"""Pieces of work for the tests of batches: importable by workers, and a small batch that a test can kill."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from lesionlocator.batch import CaseJob, SameProcess, process_pool, ray_pool, run_batch
from lesionlocator.errors import Refused

PACE_S = 0.15


def note(log: Path, *words: object) -> None:
    with log.open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def noted(log: Path, first: str) -> list[str]:
    """The cases of all lines that begin with this word."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.split()[1] for line in lines if line.split()[0] == first]


def outline(
    job: CaseJob, folder: Path, *, log: Path, trouble: dict[str, str] | None = None, pace_s: float = 0.0
) -> None:
    """What a case leaves behind, in the order in which it would: masks, tables, run.json last."""
    note(log, "begun", job.name, os.getpid())
    (folder / f"{job.name}_lesion_1.nii.gz").write_bytes(job.name.encode() * 1000)
    time.sleep(pace_s)
    TROUBLES[(trouble or {}).get(job.name, "none")](log, job)
    (folder / "lesions.csv").write_text(f"scan,lesion_id,status,volume_ml\n{job.name},1,outlined,{len(job.name)}.5\n")
    (folder / "links.csv").write_text('lesion_id,from_scan,to_scan,reason\n1,a,b,"half, and half"\n')
    (folder / ".run.json").write_text('{"command": "segment"}\n')
    (folder / ".run.json").rename(folder / "run.json")
    note(log, "ended", job.name)


def refuse(log: Path, job: CaseJob) -> None:
    raise Refused(found="a box outside the scan", needed="a box inside", do="draw it again")


def stumble(log: Path, job: CaseJob) -> None:
    raise ValueError("shapes (3,) and (4,)\ndo not match")


def die(log: Path, job: CaseJob) -> None:
    os._exit(9)


def die_once(log: Path, job: CaseJob) -> None:
    if noted(log, "begun").count(job.name) == 1:
        os._exit(9)


def run_out_of_memory(log: Path, job: CaseJob) -> None:
    raise MemoryError


def fill_the_disk(log: Path, job: CaseJob) -> None:
    raise OSError(28, "No space left on device")


def leave(log: Path, job: CaseJob) -> None:
    sys.exit(1)


def nothing(log: Path, job: CaseJob) -> None:
    pass


TROUBLES = {
    "none": nothing,
    "refused": refuse,
    "defect": stumble,
    "dies": die,
    "dies once": die_once,
    "memory": run_out_of_memory,
    "disk": fill_the_disk,
    "leaves": leave,
}


def forget_the_end(job: CaseJob, folder: Path) -> None:
    (folder / "mask.nii.gz").write_bytes(b"half")


def count_threads(job: CaseJob, folder: Path) -> None:
    import SimpleITK as sitk

    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    (folder / "run.json").write_text(f"{os.environ['OMP_NUM_THREADS']} {threads}")


def cases(folder: Path, count: int) -> list[CaseJob]:
    return [CaseJob(f"case_{number:02}", (folder / "scan.nii.gz",), folder / "prompts.json") for number in range(count)]


def main(kind: str, out: Path, log: Path, count: int) -> None:
    pools = {"same process": SameProcess, "process pool": partial(process_pool, 2), "ray": partial(ray_pool, workers=2)}
    begin = pools.get(kind) or partial(ray_pool, address=kind)
    with begin() as executor:
        run_batch(cases(out, count), partial(outline, log=log, pace_s=PACE_S), out, executor=executor)


if __name__ == "__main__":
    # Where the tests run in the background, a shell has it ignored, and children take that over.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))

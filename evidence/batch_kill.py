"""A batch killed in the middle and started again leaves the files of an undisturbed one, and does no case twice."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from provenance import header, write

CASES = 40
PAIR_EVERY = 3
WORKERS = 2
KILL_AT = 15
COMMAND = "from lesionlocator.cli import main; main()"
AFFINE = np.array([[-2.0, 0, 0, 47], [0, -2.0, 0, 47], [0, 0, 3.0, -45], [0, 0, 0, 1]])


def main():
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        make_cases(scratch / "cases")
        undisturbed, lines = {}, []
        for executor in ("process", "ray"):
            whole, seconds = undisturbed_batch(scratch, executor)
            undisturbed[executor] = whole
            lines.append((executor, seconds, *killed_batch(scratch, executor, whole)))
        alike = different(undisturbed["process"], undisturbed["ray"])
    write("batch_kill", page(lines, alike))
    for executor, _, before, again, _, differing, twice in lines:
        if differing or twice or not 0 < before < before + again <= CASES:
            raise SystemExit(f"{executor}: files that differ {differing}, cases done twice {twice}")


def make_cases(folder):
    """Small abdomens of fat with a spine and one or two tumours; every third case has a follow-up."""
    for number in range(CASES):
        draw = np.random.default_rng(number)
        case = folder / f"case_{number:02}"
        case.mkdir(parents=True)
        centres = [draw.uniform([-30, -25, -20], [-12, 5, 20]), draw.uniform([12, -25, -20], [30, 5, 20])]
        tumours = [(centre, draw.uniform(6, 10)) for centre in centres[: 1 + number % 2]]
        write_scan(case / "1_baseline.nii.gz", tumours, draw)
        if number % PAIR_EVERY == 0:
            write_scan(case / "2_followup.nii.gz", [(at + 3.0, radius * 1.2) for at, radius in tumours], draw)
        boxes = [{"min": list(at - radius), "max": list(at + radius)} for at, radius in tumours]
        lesions = [{"id": str(2 * index + 1), "box": box} for index, box in enumerate(boxes)]
        prompts = {"version": 1, "space": "world", "frame": "LPS", "lesions": lesions}
        (case / "prompts.json").write_text(json.dumps(prompts))


def write_scan(path, tumours, draw):
    shape = (48, 48, 30)
    x, y, z = np.einsum("ab,b...->a...", AFFINE[:3, :3], np.indices(shape)) + AFFINE[:3, 3, None, None, None]
    x, y = -x, -y
    body = (x / 44) ** 2 + (y / 38) ** 2 <= 1
    spine = (x / 8) ** 2 + ((y - 25) / 8) ** 2 <= 1
    values = np.select([spine, body], [300.0, -90.0], -1000.0)
    for (a, b, c), radius in tumours:
        values[(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 <= radius**2] = 60.0
    nib.save(nib.Nifti1Image((values + draw.normal(0, 12, shape)).astype(np.int16), AFFINE), path)


def undisturbed_batch(scratch, executor):
    out = scratch / f"{executor}_undisturbed"
    started = time.perf_counter()
    finish(begin(scratch, out, executor))
    return out, time.perf_counter() - started


def killed_batch(scratch, executor, whole):
    """(done when killed, begun by the second batch, files compared, files that differ, cases done twice)."""
    out = scratch / f"{executor}_killed"
    first = begin(scratch, out, executor)
    while len(finished(out)) < KILL_AT:
        if first.poll() is not None:
            raise SystemExit(f"{executor}: over before it could be killed\n{first.stderr.read()}")
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    before = finished(out)
    said = finish(begin(scratch, out, executor))
    again = re.findall(r"^\d+/\d+ (\S+) done", said, re.MULTILINE)
    after = finished(out)
    rewritten = {case for case in before if after[case] != before[case]}
    twice = sorted(rewritten | (set(again) & set(before)) | {case for case in again if again.count(case) > 1})
    return len(before), len(again), len(contents(whole)), different(whole, out), twice


def begin(scratch, out, executor):
    command = [sys.executable, "-c", COMMAND, "batch", scratch / "cases", "--out", out]
    command += ["--executor", executor, "--workers", str(WORKERS)]
    # In a process group of its own: the kill reaches its workers and its cluster, as a power cut would.
    return subprocess.Popen(list(map(str, command)), start_new_session=True, stderr=subprocess.PIPE, text=True)


def finish(batch):
    _, said = batch.communicate()
    if batch.returncode:
        raise SystemExit(f"the batch ended with {batch.returncode}\n{said}")
    return said


def finished(out):
    """The cases that are done, each with what tells whether its record was written anew."""
    found = ((path.parent.name, path.stat()) for path in out.glob("case_*/run.json"))
    return {case: (status.st_ino, status.st_mtime_ns) for case, status in found}


def different(left, right):
    left, right = contents(left), contents(right)
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def contents(out):
    """Every file, bit for bit; of run.json and batch.csv what is not a time or the name of the output folder."""
    return {path.relative_to(out).as_posix(): timeless(path) for path in out.rglob("*") if path.is_file()}


def timeless(path):
    if path.name == "batch.csv":
        with path.open(newline="") as file:
            return [{**row, "seconds": ""} for row in csv.DictReader(file)]
    if path.name == "run.json":
        said = json.loads(path.read_text())
        arguments = {name: value for name, value in said["arguments"].items() if name != "out"}
        return {**said, "arguments": arguments, "finished": "", "timings_s": {}}
    return path.read_bytes()


def page(lines, alike):
    pairs = len(range(0, CASES, PAIR_EVERY))
    text = header("A batch killed in the middle and started again", "python evidence/batch_kill.py")
    text += f"""
{CASES} made-up cases ({CASES - pairs} of one scan, segmented; {pairs} of two, tracked), {WORKERS} workers,
`lesionlocator batch`. The whole process group is killed with signal 9 when {KILL_AT} cases or more are done, and the
same command started again. Every file is compared with that of an undisturbed batch, bit for bit; of `run.json` and
`batch.csv` everything but times and the name of the output folder.

| Executor | Undisturbed, s | Done when killed | Done by the second batch | Files compared | Differ | Done twice |
|---|---|---|---|---|---|---|
"""
    for executor, seconds, before, again, compared, differing, twice in lines:
        listed = ", ".join(differing) or "none"
        done_twice = ", ".join(twice) or "none"
        text += f"| {executor} | {seconds:.0f} | {before} | {again} | {compared} | {listed} | {done_twice} |\n"
    text += """
Where the two batches add up to less than all cases, workers of the killed one lived for another moment (Ray's do, for
a second or two) and finished what they had begun; the second batch found those cases done.
"""
    return text + f"\nFiles that differ between the process pool and Ray: {', '.join(alike) or 'none'}.\n"


if __name__ == "__main__":
    main()

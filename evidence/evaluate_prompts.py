"""`lesionlocator evaluate prompts` on nine sarcoma patients, three modalities: time, interruption, the numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from provenance import ROOT, header, write

DATA = ROOT.parent / "shared" / "data"
COMMAND = "from lesionlocator.cli import main; main()"
KILL_AFTER = 4


def main():
    if not (DATA / "sarcoma").is_dir():
        raise SystemExit(f"no sarcoma data in {DATA.name}: see the protocol's citation for where to get it")
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "prompts"
        started = time.perf_counter()
        killed_after = begin_and_kill(out)
        said = finish(out)
        seconds = time.perf_counter() - started
        results = json.loads((out / "results.json").read_text())
        sizes = {name: (out / name).stat().st_size for name in ("report.html", "results.json", "results.csv")}
        journal = [json.loads(line).get("case") for line in (out / "journal.jsonl").read_text().splitlines()[1:]]
    twice = len(journal) - len(set(journal))
    write("evaluate_prompts", page(results, seconds, (killed_after, said, twice), sizes))
    if twice or results["problems"] or results["skipped"]:
        raise SystemExit(f"cases twice {twice}, problems {results['problems']}, skipped {results['skipped']}")


def begin(out):
    command = [sys.executable, "-c", COMMAND, "evaluate", "prompts", "--out", str(out), "--data", str(DATA)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def begin_and_kill(out):
    """Kills the first run without warning when some cases are done; how many there were."""
    run, journal = begin(out), out / "journal.jsonl"
    while not journal.is_file() or len(journal.read_text().splitlines()) <= KILL_AFTER:
        if run.poll() is not None:
            raise SystemExit(f"over before it could be killed\n{run.stderr.read()}")
        time.sleep(0.2)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    return len(journal.read_text().splitlines()) - 1


def finish(out):
    run = begin(out)
    _, said = run.communicate()
    if run.returncode:
        raise SystemExit(f"ended with {run.returncode}\n{said}")
    return said.splitlines()[0]


def page(results, seconds, resumed, sizes):
    killed_after, said, twice = resumed
    text = header("Outlines from prompts, nine sarcoma patients", "python evidence/evaluate_prompts.py")
    text += f"""
`lesionlocator evaluate prompts`: 27 scans (CT, MR, PET), {len(results["protocol"]["prompts"])} kinds of prompts,
{len(results["protocol"]["methods"])} methods, {len(results["rows"])} answers. {seconds:.0f} s from start to page, one
process. Killed with signal 9 when {killed_after} cases were done and started again, it said "{said}"; cases measured
twice: {twice}. Written: {", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())}.

Dice, mean over lesions with its 95 % interval, resampled by patient.

| Prompt | Method | CT | MR | PET |
|---|---|---|---|---|
"""
    dice = [one for one in results["summary"] if (one["by"], one["score"]) == ("modality", "dice")]
    found = {(one["prompt"], one["method"], one["stratum"]): one for one in dice}
    for prompt in results["protocol"]["prompts"]:
        for method in results["protocol"]["methods"]:
            cells = [interval(found[prompt, method, modality]) for modality in ("CT", "MR", "PT")]
            text += f"| {prompt} | {method} | {' | '.join(cells)} |\n"
    text += "\nGained over the ellipsoid on the same prompts, all modalities, lesion by lesion:\n\n"
    text += "| Prompt | Method | Dice | NSD |\n|---|---|---|---|\n"
    paired = {(one["prompt"], one["method"], one["score"]): one for one in results["paired"]}
    for prompt, method in dict.fromkeys((one["prompt"], one["method"]) for one in results["paired"]):
        cells = [interval(paired[prompt, method, score], "+") for score in ("dice", "nsd")]
        text += f"| {prompt} | {method} | {' | '.join(cells)} |\n"
    sources = " ".join(f"{one['citation']} {one['licence']}." for one in results["data"])
    return text + f"\n{sources}\n"


def interval(mean, sign=""):
    low, high = mean["interval"]
    return f"{mean['over_lesions']:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


if __name__ == "__main__":
    main()

"""`lesionlocator evaluate zero-shot`: every tumour kind at hand in a line of its own, and how few there are of each."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from provenance import ROOT, header, write

DATA = ROOT.parent / "shared" / "data"
COMMAND = "from lesionlocator.cli import main; main()"


def main():
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "kinds"
        command = [sys.executable, "-c", COMMAND, "evaluate", "zero-shot", "--out", str(out)]
        # Without the folder the public archive alone is measured, which anyone can get.
        command += ["--data", str(DATA)] if DATA.is_dir() else []
        subprocess.run(command, check=True, capture_output=True)
        results = json.loads((out / "results.json").read_text())
    write("evaluate_kinds", page(results))


def page(results):
    text = header("Tumour kinds at hand, each by itself", "python evidence/evaluate_kinds.py")
    text += f"""
`lesionlocator evaluate zero-shot`, {results["seconds"]:.0f} s for {len(results["rows"])} answers. Dice, mean over
lesions. The number of patients is that of people, not of lesions: with one to nine of a kind, a row shows where a
method fails and does not rank methods that are close. These methods have no trained weights; they were developed on
scans among these.

| Prompt | Kind | Lesions | Patients | {" | ".join(results["protocol"]["methods"])} |
|---|---|---|---|{"---|" * len(results["protocol"]["methods"])}
"""
    rows = results["rows"]
    for prompt in results["protocol"]["prompts"]:
        for kind in dict.fromkeys(row["kind"] for row in rows):
            own = [row for row in rows if (row["prompt"], row["kind"]) == (prompt, kind)]
            patients = len({row["patient"] for row in own})
            lesions = len({(row["case"], row["visit"], row["lesion"]) for row in own})
            means = [mean([row["dice"] for row in own if row["method"] == m]) for m in results["protocol"]["methods"]]
            text += f"| {prompt} | {kind} | {lesions} | {patients} | {' | '.join(means)} |\n"
    text += "".join(f"\nNot measured: {name} ({reason})." for name, reason in results["skipped"].items())
    sources = "\n".join(f"- {one['name']}: {one['citation']} {one['licence']}." for one in results["data"])
    return text + f"\n{sources}\n"


def mean(values):
    return f"{sum(values) / len(values):.3f}"


if __name__ == "__main__":
    main()

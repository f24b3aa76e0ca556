"""The claims that tests carry: properties of space and files, tracking situations, input that is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from provenance import ROOT, header, write

CLAIMS = {
    "A prompt means the same place in any order of storage and at any angle": (
        "tests/test_geometry.py tests/test_prompt.py tests/test_volume.py tests/test_formats_prompts.py"
    ),
    "Masks come back unchanged, NIfTI affines bit for bit": "tests/test_formats_nifti.py tests/test_formats_masks.py",
    "DICOM series: sorted by geometry, and what is wrong with them is named": "tests/test_formats_dicom.py",
    "Tracking situations": "tests/situations/test_situations.py",
    "The contract of the command line, and input that is refused": "tests/test_cli.py",
}


def main():
    text = header("Claims that tests carry", "python evidence/stories.py")
    failures = 0
    for claim, files in CLAIMS.items():
        cases = run(files.split())
        bad = [name for name, outcome in cases if outcome == "failed"]
        skipped = sum(outcome == "skipped" for _, outcome in cases)
        failures += len(bad)
        text += f"\n## {claim}\n\n`pytest {files}`: {len(cases) - len(bad) - skipped} passed, {len(bad)} failed"
        text += f", {skipped} skipped.\n\n"
        marks = {"failed": "**failed:** ", "skipped": "skipped: ", "passed": ""}
        text += "\n".join(f"- {marks[outcome]}{name}" for name, outcome in cases)
        text += "\n"
    write("stories", text)
    sys.exit(1 if failures else 0)


def run(files):
    """Every test as a sentence, with its outcome; one that runs over many inputs is one sentence."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
        subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        cases = list(ElementTree.parse(report).iter("testcase"))
    outcomes: dict[str, str] = {}
    for case in cases:
        name = case.get("name", "").split("[")[0].removeprefix("test_").replace("_", " ")
        tags = {child.tag for child in case}
        outcome = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        if outcomes.get(name) != "failed":
            outcomes[name] = outcome
    return sorted(outcomes.items(), key=lambda item: item[0])


if __name__ == "__main__":
    main()

"""How long a cohort takes: 1,000 visits of 20 lesions each, from rows to categories to plots (wanted: under 60 s)."""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path

import numpy as np

from lesionlocator.measure import Row
from lesionlocator.report import LINK_COLUMNS
from lesionlocator.report.documents import write_documents
from lesionlocator.report.settings import ReportSettings

COLUMNS = [column.name for column in fields(Row)]
LINKS = LINK_COLUMNS


def write_case(folder, visits, lesions, draw):
    """A finished case without scans: diameters that shrink and grow, some lesions gone, some new."""
    folder.mkdir(parents=True)
    names = [f"visit{index}" for index in range(visits)]
    size = draw.uniform(8, 60, lesions)
    trend = draw.normal(-0.15, 0.25)
    rows, links = [], []
    for index, name in enumerate(names):
        for lesion in range(lesions):
            if index:
                size[lesion] *= np.exp(draw.normal(trend * 0.8**index, 0.12))
                happened = "same" if size[lesion] > 4 else "vanished"
                links.append([lesion + 1, names[index - 1], name, lesion + 1, happened, "", "", "model"])
            rows.append(row(name, lesion + 1, size[lesion]))
        if draw.random() < 0.04 and index:
            rows.append(row(name, 100 + index, 12.0))
    write(folder / "lesions.csv", COLUMNS, rows)
    write(folder / "links.csv", LINKS, links)
    (folder / "run.json").write_text(json.dumps({"version": 1, "scans": names, "inputs": [], "warnings": []}))


def row(name, lesion, long_mm):
    if long_mm <= 4:
        return [name, lesion, "absent", "nothing at its place looks like it any more", *[""] * 11]
    numbers = [long_mm**3 / 1910, long_mm, 0.8 * long_mm, 40.0, 0.0, 90.0]
    return [name, lesion, "outlined", "", "", *(f"{number:.6g}" for number in numbers), "HU", 0, 0, 0]


def write(path, columns, rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])


def timed(what, cases, visits, criteria, pdf, out):
    draw = np.random.default_rng(5)
    folder = out / f"{cases}x{visits}"
    for number in range(cases):
        write_case(folder / f"case{number:04d}", visits, 20, draw)
    started = time.perf_counter()
    settings = ReportSettings(out=out / f"report{cases}", criteria=criteria, pdf=pdf, cohort_only=True)
    found = write_documents(folder, settings)
    seconds = time.perf_counter() - started
    print(f"{what:56}{seconds:7.1f} s   {len(found.assessments)} cases, {len(found.failed)} failed")


def main():
    with tempfile.TemporaryDirectory() as made:
        out = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(made)
        timed("250 cases of 4 visits, RECIST 1.1, HTML and PDF", 250, 4, ("recist-1.1",), True, out)
        every = ("recist-1.1", "irecist", "volume")
        timed("100 cases of 10 visits, three criteria, HTML", 100, 10, every, False, out)
        timed("2 cases of 500 visits, RECIST 1.1, HTML", 2, 500, ("recist-1.1",), False, out)


if __name__ == "__main__":
    main()

"""The README and the pages: their code runs, their links lead somewhere, the files that they name exist."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest

from lesionlocator.align import ALIGNERS
from lesionlocator.dataset.layouts import LAYOUTS
from lesionlocator.formats import READERS
from lesionlocator.prompt import PROMPTS
from lesionlocator.segment import KINDS, MODELS
from lesionlocator.synth.changes import CHANGES

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted(
    page
    for page in [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]
    if "docs/evidence" not in page.as_posix()
)
CODE = re.compile(r"^```python[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
NAMED_FILE = re.compile(r"`((?:src|tests|docs|evidence|benchmarks|\.ci)/[\w./-]+|[\w-]+/[\w./-]+\.(?:py|md|toml))`")


def named(pages):
    return [pytest.param(page, id=page.relative_to(REPOSITORY).as_posix()) for page in pages]


@pytest.fixture
def tables():
    """The extension tables, as they were before a page put rows of its own into them."""
    known = [READERS, ALIGNERS, KINDS, MODELS, PROMPTS, LAYOUTS, CHANGES]
    before = [dict(table) for table in known]
    yield
    for table, rows in zip(known, before, strict=True):
        table.clear()
        table.update(rows)


@pytest.mark.parametrize("page", named(page for page in PAGES if CODE.search(page.read_text(encoding="utf-8"))))
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, tables):
    stage(tmp_path)
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in CODE.finditer(page.read_text(encoding="utf-8")):
        line = page.read_text(encoding="utf-8")[: block.start()].count("\n") + 1
        # Blank lines in front make a traceback point at the line of the page.
        exec(compile("\n" * line + block.group(1), str(page), "exec", dont_inherit=True), vars(module))


@pytest.mark.parametrize("page", named(PAGES))
def test_every_relative_link_of_a_page_leads_somewhere(page):
    broken = []
    for target in LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", named(page for page in PAGES if page.name != "CHANGELOG.md"))
def test_every_file_that_a_page_names_exists(page):
    homes = [REPOSITORY, REPOSITORY / "src/lesionlocator", page.parent]
    missing = [
        path
        for path in NAMED_FILE.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
        if not any((home / path).exists() for home in homes)
    ]
    assert not missing


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def stage(folder: Path) -> None:
    """What the pages' code finds in its folder: a made-up patient, two scans, one lesion boxed in the first."""
    patient = folder / "patient_007"
    patient.mkdir()
    write_scan(patient / "2026_03.nii.gz", centre_mm=(10.0, -4.0, 0.0), radius_mm=10.0)
    write_scan(patient / "2026_06.nii.gz", centre_mm=(14.0, -2.0, 6.0), radius_mm=12.0)
    box = {"min": [0.0, -14.0, -10.0], "max": [20.0, 6.0, 10.0]}
    prompts = {"version": 1, "space": "world", "frame": "LPS", "lesions": [{"id": "1", "box": box}]}
    (patient / "prompts.json").write_text(json.dumps(prompts))


def write_scan(path, *, centre_mm, radius_mm):
    """A ball of 60 HU in a body of fat in air, as NIfTI (RAS)."""
    affine = np.array([[-2.0, 0, 0, 62], [0, -2.0, 0, 62], [0, 0, 3.0, -60], [0, 0, 0, 1]])
    x, y, z = np.einsum("ab,b...->a...", affine[:3, :3], np.indices((62, 62, 40))) + affine[:3, 3, None, None, None]
    x, y = -x, -y
    body = (x / 55) ** 2 + (y / 42) ** 2 + (z / 80) ** 2 <= 1
    spine = (x / 8) ** 2 + ((y - 28) / 8) ** 2 <= 1
    ball = (x - centre_mm[0]) ** 2 + (y - centre_mm[1]) ** 2 + (z - centre_mm[2]) ** 2 <= radius_mm**2
    values = np.select([ball, spine & body, body], [60.0, 300.0, -90.0], -1000.0)
    noise = np.random.default_rng(7).normal(0, 12, values.shape)
    nib.save(nib.Nifti1Image((values + noise).astype(np.int16), affine), path)

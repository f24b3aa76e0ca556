"""The README and the pages: their code runs, their links lead somewhere, the files that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("page", named(page for page in PAGES if CODE.search(page.read_text())))
def test_the_code_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    stage(tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for block in CODE.finditer(page.read_text()):
        line = page.read_text()[: block.start()].count("\n") + 1
        # Blank lines in front make a traceback point at the line of the page.
        exec(compile("\n" * line + block.group(1), str(page), "exec"), names)


@pytest.mark.parametrize("page", named(PAGES))
def test_every_relative_link_of_a_page_leads_somewhere(page):
    broken = []
    for target in LINK.findall(FENCED.sub("", page.read_text())):
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
        for path in NAMED_FILE.findall(FENCED.sub("", page.read_text()))
        if not any((home / path).exists() for home in homes)
    ]
    assert not missing


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def stage(folder: Path) -> None:
    """What the pages' code finds in its folder: a made-up patient with two scans and a lesion boxed in the first."""

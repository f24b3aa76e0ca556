"""What every page of evidence says on top: when, where, from which commit; and how a page is written."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "evidence"
PACKAGES = ("numpy", "scipy", "scikit-image", "SimpleITK", "nibabel", "pydicom")


def header(title: str, command: str) -> str:
    """The top of a page: title, the command that writes it, date, machine, versions and commit."""
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return (
        f"# {title}\n\n"
        f"Written by `{command}`.\n\n"
        f"| | |\n|---|---|\n"
        f"| Date | {day} |\n"
        f"| Commit | {_commit()} |\n"
        f"| Machine | {platform.system()} {platform.machine()}, {os.cpu_count()} cores, {_memory_gb():.0f} GB |\n"
        f"| Python | {platform.python_version()} |\n"
        f"| Packages | {versions} |\n"
    )


def write(name: str, text: str) -> Path:
    """Prints a page and keeps it as docs/evidence/NAME.md."""
    page = PAGES / f"{name}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text.rstrip() + "\n", encoding="utf-8")
    print(text.rstrip())
    return page


def _commit() -> str:
    """The commit of the sources, and whether they were changed since."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "src", "evidence")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} (with changes)" if changed else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3

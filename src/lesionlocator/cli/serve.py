"""`lesionlocator serve`: the reading room, in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from lesionlocator.cli.answer import Answer, Flat, say
from lesionlocator.server.settings import ServeSettings

_SETTINGS = ServeSettings()


def serve(folder: Path | None = None, /, *, settings: Annotated[ServeSettings, Flat] = _SETTINGS) -> Answer:
    """Open the reading room: a page on which lesions are outlined, followed, checked and exported.

    Parameters
    ----------
    folder
        Folder with cases: a case is a folder of scans, oldest first by name. Default: the current folder.
    """
    from lesionlocator.server.run import run_server

    address = run_server(folder, settings, say)
    return Answer({"address": address.partition("?")[0]}, "closed")

"""Wherever a scan is, it becomes files on this disk: archives are unpacked, what is on a server is fetched."""

from __future__ import annotations

import re
import shutil
import zipfile
from functools import lru_cache
from pathlib import Path, PurePosixPath

from lesionlocator.errors import Refused
from lesionlocator.formats.dicom import SELECTOR, split_selector
from lesionlocator.formats.dicom_web import fetch, is_address
from lesionlocator.formats.disk import DEFLATE_LIMIT, ScratchFolder, size_of, unreadable

_KEPT = 64
"""How many unpacked archives are kept on this disk while the program runs."""
ARCHIVE = ".zip"


def local(path: Path) -> Path:
    """The path on this disk: that of an unpacked archive or of a fetched series, or the path as it is."""
    if is_address(path):
        return fetch(path)
    archive, selector = split_selector(path)
    if not is_archive(archive):
        return path
    state = archive.stat()
    folder = _unpacked(archive, state.st_mtime_ns, state.st_size).path
    return folder if selector is None else folder.with_name(f"{folder.name}{SELECTOR}{selector}")


def is_archive(path: Path) -> bool:
    """Whether a path is a zip on this disk."""
    return path.suffix.lower() == ARCHIVE and path.is_file()


@lru_cache(maxsize=_KEPT)
def _unpacked(path: Path, changed_ns: int, size: int) -> ScratchFolder:  # noqa: ARG001
    size_of(path)
    folder = ScratchFolder()
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _refuse_swollen(path, members, folder.path)
            for number, member in enumerate(members, start=1):
                with archive.open(member) as packed, (folder.path / _name(number, member)).open("wb") as out:
                    shutil.copyfileobj(packed, out, 1 << 20)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as bad:
        raise unreadable(path, bad) from bad
    return folder


def _name(number: int, member: zipfile.ZipInfo) -> str:
    """A name of ours, so that no member can leave the folder: its number and what is harmless of its own name."""
    kept = re.sub(r"[^\w.-]", "_", PurePosixPath(member.filename.replace("\\", "/")).name)[-60:]
    return f"{number:06d}_{kept}" if kept != "DICOMDIR" else kept


def _refuse_swollen(path: Path, members: list[zipfile.ZipInfo], folder: Path) -> None:
    announced = sum(member.file_size for member in members)
    swollen = [m for m in members if m.file_size > DEFLATE_LIMIT * max(m.compress_size, 1) + 4096]
    if swollen or announced > shutil.disk_usage(folder).free:
        raise Refused(
            found=f"{path}, whose {len(members)} files announce {announced} bytes",
            needed="an archive that fits on this disk and is what it says",
            do="unpack it yourself and name the folder",
        )

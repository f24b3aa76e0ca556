"""Scans that come in through the browser: checked before anything is unpacked, kept as a case of their own."""

from __future__ import annotations

import re
import secrets
import shutil
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from lesionlocator.errors import Refused
from lesionlocator.formats import read_geometry, scan_stem
from lesionlocator.server.room import Room, case_id_of

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".zip")
_BLOCK = 1 << 20
_MOST_FILES = 20_000
_RATIO = 60
"""DICOM and NIfTI pack to a third or so; what unpacks to sixty times its size was made to do harm."""


@runtime_checkable
class Upload(Protocol):
    """A file of a form."""

    filename: str | None
    file: BinaryIO


def receive_upload(room: Room, files: Sequence[Upload]) -> str:
    """Keeps the uploaded scans as a case and gives its id.

    Raises:
        Refused: A file is of another kind, a zip file that is not what it seems, or no scan that can be read. Nothing
            is kept then.
    """
    if not 1 <= len(files) <= 100:
        raise Refused(found=f"{len(files)} files", needed="1 to 100 scans", do="choose the scans of one patient")
    # The case is listed under the name of its first scan; a few random letters keep two of that name apart.
    folder = room.uploads / f"{_stem(files[0])}-{secrets.token_hex(3)}"
    limit = room.settings.upload_mb * 1_000_000
    try:
        folder.mkdir(parents=True)
        paths = [_keep(upload, folder, number, limit) for number, upload in enumerate(files)]
        for path in paths:
            read_geometry(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return case_id_of(sorted(paths))


def _keep(upload: Upload, folder: Path, number: int, limit: int) -> Path:
    ending = _ending(upload)
    if ending is None:
        raise Refused(
            found=f"an upload named {_name(upload)[:60]!r}",
            needed=f"one of {', '.join(_ENDINGS)}",
            do="convert or zip it",
        )
    path = folder / f"{_stem(upload)}{'' if number == 0 else f'_{number}'}{ending}"
    with path.open("wb") as stream:
        while block := upload.file.read(_BLOCK):
            stream.write(block)
    if ending != ".zip":
        return path
    unpacked = folder / path.name.removesuffix(".zip")
    _unpack(path, unpacked, limit)
    path.unlink()
    return unpacked


def _name(upload: Upload) -> str:
    return (upload.filename or "").replace("\\", "/").rpartition("/")[2]


def _ending(upload: Upload) -> str | None:
    return next((ending for ending in _ENDINGS if _name(upload).lower().endswith(ending)), None)


def _stem(upload: Upload) -> str:
    """The name without its ending. Only harmless characters are kept: it becomes a file's, and a part of others'."""
    name = _name(upload)
    bare = name[: len(name) - len(_ending(upload) or "")] or "scan"
    return re.sub(r"[^A-Za-z0-9._-]+", "_", scan_stem(Path(bare))).strip("._-")[:40] or "scan"


def _unpack(path: Path, into: Path, limit: int) -> None:
    """A zip file's files, flat and under names of our own: no path of it is ever used."""
    try:
        with zipfile.ZipFile(path) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir()]
            announced = sum(entry.file_size for entry in entries)
            if len(entries) > _MOST_FILES or announced > min(2 * limit, _RATIO * path.stat().st_size + _BLOCK):
                raise Refused(
                    found=f"a zip file of {len(entries)} files that would unpack to {announced} bytes",
                    needed=f"at most {_MOST_FILES} files and {2 * limit} bytes, not many times its own size",
                    do="upload the series one by one",
                )
            into.mkdir()
            left = announced
            for number, entry in enumerate(entries):
                with packed.open(entry) as source, (into / f"{number:05d}.dcm").open("wb") as target:
                    while block := source.read(_BLOCK):
                        left -= len(block)
                        if left < 0:
                            raise Refused(found="a zip file that lies", needed="an honest one", do="zip it again")
                        target.write(block)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as problem:
        with suppress(OSError):
            shutil.rmtree(into, ignore_errors=True)
        raise Refused(
            found=f"{path.name}, which cannot be unpacked ({problem})",
            needed="a whole zip file without a password",
            do="zip it again",
        ) from problem

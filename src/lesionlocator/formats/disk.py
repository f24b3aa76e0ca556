"""Files as they lie on disk: checked before they are opened, written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from lesionlocator.errors import Refused

DEFLATE_LIMIT = 1100
"""No deflate stream (gzip, zlib) unpacks to more than 1032 times its size; a header that asks for more is wrong."""


def size_of(path: Path) -> int:
    """Bytes of a file that is there and not empty."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise Refused(found=f"no file {path}", needed="a file that exists", do="check the path") from None
    except (OSError, ValueError) as problem:  # A name with a null byte is a ValueError.
        raise unreadable(path, problem) from problem
    if path.is_dir():
        raise Refused(found=f"{path}, which is a folder", needed="a file", do="name the file inside it")
    if size == 0:
        raise Refused(found=f"{path}, which has 0 bytes", needed="a whole file", do="copy it again from its source")
    return size


def unreadable(path: Path, problem: Exception) -> Refused:
    """The refusal for a file that the system or a library could not read."""
    said = " ".join(str(problem).split()) or type(problem).__name__
    return Refused(
        found=f"{path}, which cannot be read ({said[:200]})",
        needed="a whole, readable file",
        do="check its permissions, or copy it again from its source",
    )


def truncated(path: Path, needed_bytes: int, found_bytes: int | None = None) -> Refused:
    """The refusal for a file that ends before its header says so."""
    holds = "ends early" if found_bytes is None else f"holds {found_bytes} bytes"
    return Refused(
        found=f"{path}, which {holds} though its header announces {needed_bytes} bytes of voxels",
        needed="a whole file with a header that fits it",
        do="copy it again from its source, or repair the sizes in its header",
    )


@contextmanager
def whole(path: Path, ending: str = ".partial") -> Generator[Path]:
    """A temporary path beside `path`, which takes its name when the block ends well and is removed when it does not.

    The temporary name does not change from run to run, so that what a killed run left is overwritten by the next one.
    """
    temporary = path.with_name(path.name + ending)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as problem:
        _remove(temporary)
        raise Refused(
            found=f"{path} cannot be written ({problem.strerror or problem})",
            needed="a folder with room that may be written to",
            do="choose another output folder",
        ) from problem
    except BaseException:
        _remove(temporary)
        raise


class ScratchFolder:
    """A folder of this program's own, removed when nobody holds it any more, at the latest when the program ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="lesionlocator-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)

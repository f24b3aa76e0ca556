"""One batch at a time in one output folder: the lease that says who is at work there."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from lesionlocator.errors import Refused

LEASE = "batch.lock"


@contextmanager
def leased(out: Path) -> Generator[None]:
    """The folder is ours until the block ends. A lease whose process is gone from this computer is taken over."""
    lease = out / LEASE
    mine = holder()
    if not _written(lease, mine):
        _take_over(lease)
        if not _written(lease, mine):
            raise _refused(lease, "just beginning")
    try:
        yield
    finally:
        lease.unlink(missing_ok=True)


def holder() -> str:
    """This process, as a text by which `is_stale` knows it again."""
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())})


def _written(lease: Path, text: str) -> bool:
    try:
        with lease.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _take_over(lease: Path) -> None:
    aside = lease.with_name(f".{uuid4().hex}.lock")
    try:
        held = lease.read_text(encoding="utf-8")
        if not is_stale(held):
            raise _refused(lease, held)
        lease.rename(aside)
    except FileNotFoundError:
        return
    # Between reading and renaming another batch may have taken it over: then this is its lease, and goes back.
    if aside.read_text(encoding="utf-8") != held:
        aside.rename(lease)
        raise _refused(lease, "just beginning")
    aside.unlink()


def is_stale(held: str) -> bool:
    """Whether the process that wrote `held` was on this computer and is no more. False where that cannot be known."""
    try:
        holder = json.loads(held)
        host, pid, started = holder["host"], int(holder["pid"]), holder["started"]
    except (ValueError, KeyError, TypeError):
        return False
    # On Windows asking with os.kill ends the process that one asks about.
    if host != socket.gethostname() or sys.platform == "win32":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    # The number may belong to another process by now.
    return started != _started(pid)


def _started(pid: int) -> str:
    """When the process began, in the system's own count; empty where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _refused(lease: Path, held: str) -> Refused:
    return Refused(
        found=f"another batch at work in {lease.parent} ({held or 'just beginning'})",
        needed="one batch at a time in one folder",
        do=f"wait for it or use another --out; if it is certain that none is running, delete {lease}",
    )

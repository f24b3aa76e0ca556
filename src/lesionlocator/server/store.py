"""Where readings are kept: every step of every case in SQLite, so that nothing saved is lost and all can be undone."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import weakref
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionlocator.errors import Refused

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cases (
    id TEXT PRIMARY KEY, title TEXT NOT NULL, scans TEXT NOT NULL, head INTEGER NOT NULL, opened TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS steps (
    case_id TEXT NOT NULL REFERENCES cases(id), number INTEGER NOT NULL, parent INTEGER, action TEXT NOT NULL,
    session TEXT NOT NULL, at TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (case_id, number)
);
CREATE TABLE IF NOT EXISTS journal (
    case_id TEXT NOT NULL, at TEXT NOT NULL, session TEXT NOT NULL, what TEXT NOT NULL, step INTEGER NOT NULL
);
"""
_WAIT_S = 5.0


class Conflict(Exception):
    """Someone else changed the case since it was last read."""

    def __init__(self, current: int, action: str) -> None:
        super().__init__(f"the case was changed in the meantime ({action})")
        self.current, self.action = current, action


class Busy(Exception):
    """The database is locked by another program for longer than one waits."""


class Full(Exception):
    """There is no room on the disk for what should be saved."""


@dataclass(frozen=True)
class Kept:
    """A case as it stands: the scans' paths, the number of the last step, and what it came to."""

    id: str
    title: str
    scans: tuple[Path, ...]
    revision: int
    content: str
    action: str
    can_undo: bool
    can_redo: bool


class Store:
    """The database of one server. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "readings.sqlite"
        self._lock = threading.Lock()
        with self._connected() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(_SCHEMA)
        # SQLite's index of the journal needs room when it is made: one that stays open keeps it, so that cases can
        # still be looked at when the disk is full.
        held = sqlite3.connect(self.path, check_same_thread=False)
        held.execute("SELECT count(*) FROM cases").fetchone()
        self.close = weakref.finalize(self, held.close)
        """Lets go of the database; nothing is lost by not calling it."""

    def cases(self) -> list[tuple[str, str, tuple[Path, ...]]]:
        """Id, title and scans of every case that was ever opened, in the order of opening."""
        with self._connected() as database:
            rows = database.execute("SELECT id, title, scans FROM cases ORDER BY opened, id").fetchall()
        return [(row[0], row[1], _paths(row[2])) for row in rows]

    def open(self, case_id: str, title: str, scans: Sequence[Path], content: str) -> None:
        """Enters a case with its first step; one that is there already is left as it is."""
        written = json.dumps([str(path) for path in scans])
        with self._changing() as database:
            if database.execute("SELECT 1 FROM cases WHERE id = ?", (case_id,)).fetchone():
                return
            database.execute("INSERT INTO cases VALUES (?, ?, ?, 1, ?)", (case_id, title, written, _now()))
            row = (case_id, 1, None, "opened", "", _now(), content)
            database.execute("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def case(self, case_id: str) -> Kept:
        """The case as it stands.

        Raises:
            Refused: There is none of this id.
        """
        with self._connected() as database:
            return _kept(database, case_id)

    def save(self, case_id: str, revision: int, content: str, *, action: str, session: str) -> Kept:
        """The next step of a case.

        Raises:
            Conflict: The case is no longer at `revision`; nothing is saved.
        """
        with self._changing() as database:
            _refuse_stale(database, case_id, revision)
            last = database.execute("SELECT max(number) FROM steps WHERE case_id = ?", (case_id,)).fetchone()[0]
            row = (case_id, last + 1, revision, action, session, _now(), content)
            database.execute("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            _go(database, case_id, last + 1, action, session)
            return _kept(database, case_id)

    def undo(self, case_id: str, revision: int, session: str) -> Kept:
        """Back to the step before."""
        with self._changing() as database:
            _refuse_stale(database, case_id, revision)
            parent, action = database.execute(
                "SELECT parent, action FROM steps WHERE case_id = ? AND number = ?", (case_id, revision)
            ).fetchone()
            if parent is None:
                raise Refused(found="nothing to undo", needed="a step before this one", do="go on")
            _go(database, case_id, parent, f"undid: {action}", session)
            return _kept(database, case_id)

    def redo(self, case_id: str, revision: int, session: str) -> Kept:
        """Forward again to the latest step that followed this one."""
        with self._changing() as database:
            _refuse_stale(database, case_id, revision)
            number = _next(database, case_id, revision)
            if number is None:
                raise Refused(found="nothing to redo", needed="a step that was undone", do="go on")
            _go(database, case_id, number, "redid", session)
            return _kept(database, case_id)

    def only_by(self, session: str, case_id: str, since: int) -> bool:
        """Whether every step after `since` is this session's own, one after the other."""
        with self._connected() as database:
            head = _kept(database, case_id).revision
            while head != since:
                parent, who = database.execute(
                    "SELECT parent, session FROM steps WHERE case_id = ? AND number = ?", (case_id, head)
                ).fetchone()
                if parent is None or who != session:
                    return False
                head = parent
        return True

    def journal(self, case_id: str) -> list[dict[str, Any]]:
        """Everything that was done to a case, oldest first, undone steps too."""
        with self._connected() as database:
            rows = database.execute(
                "SELECT at, session, what, step FROM journal WHERE case_id = ? ORDER BY rowid", (case_id,)
            ).fetchall()
        return [{"at": at, "session": session, "what": what, "step": step} for at, session, what, step in rows]

    @contextmanager
    def _connected(self) -> Generator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)) as database:
                database.execute("PRAGMA synchronous = FULL")
                yield database
        except sqlite3.OperationalError as problem:
            said = str(problem)
            if "full" in said or "disk I/O" in said:
                raise Full(f"the database cannot be written ({said})") from problem
            raise Busy(said) from problem

    @contextmanager
    def _changing(self) -> Generator[sqlite3.Connection]:
        with self._lock, self._connected() as database:
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise


def _kept(database: sqlite3.Connection, case_id: str) -> Kept:
    row = database.execute(
        "SELECT c.title, c.scans, c.head, s.content, s.action, s.parent FROM cases c "
        "JOIN steps s ON s.case_id = c.id AND s.number = c.head WHERE c.id = ?",
        (case_id,),
    ).fetchone()
    if row is None:
        raise Refused(found=f"no case {case_id!r}", needed="a case that was opened", do="open it from the list")
    title, scans, head, content, action, parent = row
    can_redo = _next(database, case_id, head) is not None
    return Kept(case_id, title, _paths(scans), head, content, action, parent is not None, can_redo)


def _refuse_stale(database: sqlite3.Connection, case_id: str, revision: int) -> None:
    kept = _kept(database, case_id)
    if kept.revision != revision:
        raise Conflict(kept.revision, kept.action)


def _next(database: sqlite3.Connection, case_id: str, revision: int) -> int | None:
    query = "SELECT max(number) FROM steps WHERE case_id = ? AND parent = ?"
    return database.execute(query, (case_id, revision)).fetchone()[0]


def _go(database: sqlite3.Connection, case_id: str, number: int, what: str, session: str) -> None:
    database.execute("UPDATE cases SET head = ? WHERE id = ?", (number, case_id))
    database.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?)", (case_id, _now(), session, what, number))


def _paths(text: str) -> tuple[Path, ...]:
    return tuple(Path(path) for path in json.loads(text))


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")

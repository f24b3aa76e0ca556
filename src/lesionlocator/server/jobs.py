"""Work that takes a while: queued fairly between sessions, done one at a time on a device, told step by step."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lesionlocator.errors import Refused

_KEPT = 500
"""Finished jobs that can still be asked about."""


class State(StrEnum):
    """How far a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class QueueFull(Exception):
    """As many jobs wait as may wait."""


class Cancelled(Exception):
    """Raised in a job, at its next sign of progress, when nobody wants its answer any more."""


@dataclass(eq=False)
class Job:
    """One piece of work. `work` gets a function that tells a line of progress, and gives the answer."""

    work: Callable[[Callable[[str], None]], Any]
    kind: str
    session: str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    state: State = State.WAITING
    lines: list[str] = field(default_factory=list[str])
    answer: Any = None
    error: dict[str, Any] | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _unwanted: bool = False

    @property
    def is_over(self) -> bool:
        return self.state in {State.DONE, State.FAILED, State.CANCELLED}

    def say(self, line: str) -> None:
        """Tells a line of progress; the place where a job that was cancelled ends."""
        if self._unwanted:
            raise Cancelled
        with self._changed:
            self.lines.append(line)
            self._changed.notify_all()

    def end(self, state: State, answer: Any = None, error: dict[str, Any] | None = None) -> None:
        """Sets the outcome and wakes all who wait."""
        with self._changed:
            self.state, self.answer, self.error = state, answer, error
            self._changed.notify_all()

    def start(self) -> bool:
        """Whether it is still wanted; it is running then."""
        with self._changed:
            if self.state is not State.WAITING:
                return False
            self.state = State.RUNNING
            self._changed.notify_all()
            return True

    def cancel(self) -> None:
        """Not wanted any more: at once if it waits, at its next line of progress if it runs."""
        self._unwanted = True
        with self._changed:
            if self.state is State.WAITING:
                self.state = State.CANCELLED
                self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Waits for the end, and says whether it came."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_over, seconds)

    def follow(self, seconds: float = 15.0) -> Iterator[str | None]:
        """Lines as they come; None when nothing came for some seconds, so that a client that left is noticed."""
        told = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda seen=told: len(self.lines) > seen or self.is_over, seconds)
                new, over = self.lines[told:], self.is_over
            yield from new
            told += len(new)
            if over and told == len(self.lines):
                return
            if not new:
                yield None

    def to_json(self) -> dict[str, Any]:
        """What a page needs to know."""
        return {
            "id": self.id,
            "kind": self.kind,
            "state": self.state.value,
            "lines": self.lines[-50:],
            "answer": self.answer,
            "error": self.error,
        }


class Queue:
    """Jobs of all sessions and one thread that does them, each session's in turn.

    Args:
        limit: Jobs that may wait.
        explain: What is told of an exception in a job: a JSON object for the page.
    """

    def __init__(self, limit: int, explain: Callable[[Exception], dict[str, Any]]) -> None:
        self._limit, self._explain = limit, explain
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()
        self._known: OrderedDict[str, Job] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="lesionlocator-worker", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        with self._changed:
            return self._count()

    def add(self, job: Job) -> Job:
        """Puts a job at the end of its session's line.

        Raises:
            QueueFull: Too many wait already.
        """
        with self._changed:
            # Half of the places are kept for sessions of which no job waits: who asks without end, alone or with
            # others, cannot shut out a reader who asks once.
            has_one = _waiting(self._waiting.get(job.session, ())) > 0
            if self._closed or self._count() >= (self._limit // 2 if has_one else self._limit):
                raise QueueFull
            self._waiting.setdefault(job.session, deque()).append(job)
            self._known[job.id] = job
            while len(self._known) > _KEPT and next(iter(self._known.values())).is_over:
                self._known.popitem(last=False)
            self._changed.notify_all()
        return job

    def job(self, job_id: str) -> Job:
        """The job of this id.

        Raises:
            Refused: It is not known, or was forgotten.
        """
        found = self.known(job_id)
        if found is None:
            raise Refused(found=f"no job {job_id!r}", needed="a job of this server", do="ask for it again")
        return found

    def known(self, job_id: str) -> Job | None:
        """The job of this id, if there is one."""
        with self._changed:
            return self._known.get(job_id)

    def close(self, seconds: float = 5.0) -> None:
        """Cancels everything and waits for the worker to stop."""
        with self._changed:
            self._closed = True
            for job in self._known.values():
                job.cancel()
            self._changed.notify_all()
        self._thread.join(seconds)

    def _count(self) -> int:
        return sum(_waiting(line) for line in self._waiting.values())

    def _take(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            session, line = self._waiting.popitem(last=False)
            job = line.popleft()
            if line:
                # To the end of the round: everyone else has a turn before this session's next job.
                self._waiting[session] = line
            return job

    def _run(self) -> None:
        while (job := self._take()) is not None:
            if job.start():
                self._do(job)

    def _do(self, job: Job) -> None:
        begun = time.perf_counter()
        try:
            answer = job.work(job.say)
        except Cancelled:
            job.end(State.CANCELLED)
        except Exception as problem:  # noqa: BLE001 - whatever a job raises must not end the worker
            job.end(State.FAILED, error=self._explain(problem))
        else:
            seconds = round(time.perf_counter() - begun, 3)
            job.end(State.DONE, answer={**answer, "seconds": seconds} if isinstance(answer, dict) else answer)


def _waiting(jobs: Iterable[Job]) -> int:
    """How many of them wait; those that were cancelled are still in line and take no place."""
    return sum(job.state is State.WAITING for job in jobs)

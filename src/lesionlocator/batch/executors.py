"""Where the cases are worked on: in this process, in worker processes of this computer, or on a Ray cluster.

All three keep one contract. `submit` gives a future, as in the standard library. A task whose worker dies (killed by
the system for its memory, say) is tried once more in a fresh worker; when that dies too, its future raises
`WorkerDied`, and the tasks of other workers notice nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from lesionlocator.errors import Refused

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
_TRIES = 2
_FAREWELL_SECONDS = 10
_PATIENCE_SECONDS = 10
_changing = threading.Lock()


Stoppable = TypeVar("Stoppable", bound="_Stoppable")
AnyExecutor: TypeAlias = "SameProcess | ProcessPool | RayPool"


class WorkerDied(Exception):
    """The process that worked on a task ended twice without an answer."""


@runtime_checkable
class Pending(Protocol):
    """What `submit` gives: the part of `concurrent.futures.Future` that a batch needs."""

    def result(self) -> Any: ...

    def cancel(self) -> Any: ...

    def add_done_callback(self, fn: Callable[[Any], object], /) -> Any: ...


@runtime_checkable
class Executor(Protocol):
    """Anything that takes a function and its arguments, all of which can be pickled, and answers later."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Pending: ...


class _Stoppable(ABC):
    """A `with` block around an executor, at whose end no worker is left."""

    def __enter__(self: Stoppable) -> Stoppable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def stop(self) -> None:
        """Ends all workers, those at work too. What they had not finished is begun again by the next batch."""


class SameProcess(_Stoppable):
    """Does each task when it is submitted, here; the simplest place to look for a defect."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def stop(self) -> None:
        """Nothing is left running: a task has ended when `submit` has."""


def open_executor(name: str, *, address: str | None = None, workers: int | None = None) -> AnyExecutor:
    """The executor of this name in `EXECUTORS`, to be used in a `with` block."""
    if name not in EXECUTORS:
        raise Refused(found=f"executor {name!r}", needed=f"one of {', '.join(EXECUTORS)}", do="check its name")
    if address is not None and name != "ray":
        raise Refused(
            found=f"an address ({address}) for the executor {name!r}",
            needed="the executor `ray`, which alone goes to another computer",
            do="add --executor ray, or leave --address out",
        )
    return EXECUTORS[name](address, workers)


def process_pool(workers: int | None = None) -> ProcessPool:
    """Worker processes on this computer; as many as it has cores, unless told. To be used in a `with` block."""
    return ProcessPool(_workers(workers))


def ray_pool(address: str | None = None, workers: int | None = None) -> RayPool:
    """Workers on a Ray cluster: a small one of its own on this computer, or the one at `address`.

    The cluster's computers need the same lesionlocator installed, and must see the cases and the output folder under
    the same paths. Without `workers` all cores of the cluster are used. To be used in a `with` block.
    """
    return RayPool(address, None if workers is None else _workers(workers))


class ProcessPool(_Stoppable):
    """One thread for each worker process, which hands it one task at a time: so it is known whose task a death was.

    (`concurrent.futures.ProcessPoolExecutor` fails every task when one worker dies, and does not say which it was.)
    """

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers, "lesionlocator-batch", _hold_back_interrupts)
        self._limits = thread_limits(workers)
        self._idle: SimpleQueue[_Worker | None] = SimpleQueue()
        self._living: set[_Worker] = set()
        self._stopped = False
        for _ in range(workers):
            self._idle.put(None)

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        return self._threads.submit(self._answer, fn, args)

    def _answer(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        worker = self._idle.get()
        reason = ""
        try:
            for _ in range(_TRIES):
                worker = worker or self._begun()
                try:
                    return worker.ask(fn, args)
                except EOFError:
                    reason = worker.ended()
                    self._living.discard(worker)
                    worker = None
                if self._stopped:
                    break
            raise WorkerDied(reason)
        finally:
            self._idle.put(worker)

    def _begun(self) -> _Worker:
        worker = _Worker(self._limits)
        self._living.add(worker)
        if self._stopped:
            worker.stop()
        return worker

    def stop(self) -> None:
        self._stopped = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in tuple(self._living):
            # Its thread may have noticed the end of this one already.
            with suppress(ValueError):
                worker.stop()
        self._threads.shutdown(wait=True)
        for worker in tuple(self._living):
            worker.ended()


class _Worker:
    """A process that answers one question at a time through a pipe, for as long as its asker lives."""

    def __init__(self, limits: dict[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_answer_questions, args=(theirs,), daemon=True)
        with _environment(limits):
            self._process.start()
        theirs.close()

    def ask(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Answers what `fn` gave, raises what it raised, and EOFError when the process ended instead."""
        question = pickle.dumps((fn, args))
        try:
            self._pipe.send_bytes(question)
            answer, error = pickle.loads(self._pipe.recv_bytes())
        except OSError as gone:
            raise EOFError from gone
        if error is not None:
            raise error
        return answer

    def stop(self) -> None:
        self._process.terminate()

    def ended(self) -> str:
        """How the process ended, once it has."""
        self._process.join(_FAREWELL_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()
        code = self._process.exitcode
        self._process.close()
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (" (often: out of memory)" if name == "SIGKILL" else "")
        return f"ended with code {code}"


def _hold_back_interrupts() -> None:
    # Ctrl-C reaches every process of a terminal; what becomes of the workers is for the main thread to say. A process
    # takes this over from the thread that begins it.
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _answer_questions(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_asker, daemon=True).start()
    while True:
        try:
            question = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send_bytes(answered(question))


def answered(question: bytes) -> bytes:
    """Does the pickled task, in a worker, and answers its pickled result and error."""
    try:
        fn, args = pickle.loads(question)
        return pickle.dumps((fn(*args), None))
    except Exception as error:
        try:
            whole = pickle.dumps((None, error))
            pickle.loads(whole)
        except Exception:
            return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
        return whole


def _end_with_asker() -> None:
    # A worker that outlived a killed batch would go on writing while the next batch does the same case.
    asker = multiprocessing.parent_process()
    if asker is not None:
        asker.join()
        os._exit(1)


class RayPool(_Stoppable):
    """One thread for each task that may run at a time, which waits for the cluster's answer."""

    def __init__(self, address: str | None, workers: int | None) -> None:
        self._ray = _imported_ray()
        self._is_ours = not self._ray.is_initialized()
        begun_here = self._is_ours and address is None
        if begun_here:
            _begin_cluster(self._ray, workers or _cores())
        elif self._is_ours:
            _join_cluster(self._ray, str(address))
        workers = workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._threads = ThreadPoolExecutor(workers, "lesionlocator-batch")
        # On a cluster of others a task keeps to the one core that it reserves. Ours was begun with its share.
        around = {} if begun_here else {"runtime_env": {"env_vars": dict.fromkeys(_THREADS, "1")}}
        self._task = self._ray.remote(num_cpus=1, max_retries=_TRIES - 1, **around)(answered)
        self._running: set[Any] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        return self._threads.submit(self._answer, self._ray.cloudpickle.dumps((fn, args)))

    def _answer(self, question: bytes) -> Any:
        running = self._task.remote(question)
        self._running.add(running)
        try:
            answer, error = pickle.loads(self._ray.get(running))
        except self._ray.exceptions.RayTaskError as error:
            raise Refused(
                found=f"a worker of the cluster that could not begin ({error.cause})",
                needed="the same lesionlocator on every computer of the cluster",
                do="install it there, with the version that is here",
            ) from error
        except self._ray.exceptions.RayError as death:
            raise WorkerDied(f"{type(death).__name__}: {str(death).splitlines()[0]}") from death
        finally:
            self._running.discard(running)
        if error is not None:
            raise error
        return answer

    def stop(self) -> None:
        """Ends the tasks that run and leaves the cluster; a cluster of our own ends."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for running in tuple(self._running):
            self._ray.cancel(running, force=True)
        self._threads.shutdown(wait=True)
        if self._is_ours:
            self._ray.shutdown()


def _imported_ray() -> Any:
    # Ray reads this when it is imported: nothing is reported to anybody.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise Refused(
            found="no Ray in this environment",
            needed="the `ray` extra for --executor ray",
            do="pip install 'lesionlocator[ray]', or use --executor process",
        ) from error
    return ray


def _begin_cluster(ray: Any, workers: int) -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    with _environment({**thread_limits(workers), "PYTHONPATH": paths}):
        ray.init(
            # Or Ray would join a cluster that it finds on this computer.
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="CRITICAL",
            _system_config={"task_oom_retries": _TRIES - 1},
        )


def _join_cluster(ray: Any, address: str) -> None:
    host, _, port = address.rpartition("/")[2].rpartition(":")
    try:
        if host and port.isdecimal():
            # Ray itself would go on trying for minutes.
            socket.create_connection((host, int(port)), timeout=_PATIENCE_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
    except (ImportError, OSError, OverflowError, RuntimeError, ValueError) as error:
        raise Refused(
            found=f"no Ray cluster at {address} ({error})",
            needed="the address of a running one",
            do="check the address, or leave --address out for a cluster on this computer",
        ) from error


@contextmanager
def _environment(values: dict[str, str]) -> Generator[None]:
    """What is begun inside finds these; libraries read their number of threads when they are loaded, not later."""
    with _changing:
        before = {name: os.environ.get(name) for name in values}
        os.environ.update(values)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def thread_limits(workers: int) -> dict[str, str]:
    """Threads for each library in each worker: together as many as there are cores, never more than were set."""
    share = max(1, _cores() // workers)
    return {name: str(min(share, _number(os.environ.get(name)) or share)) for name in _THREADS}


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _workers(workers: int | None) -> int:
    if workers is not None and workers < 1:
        raise Refused(found=f"{workers} workers", needed="one or more", do="give --workers a number from 1")
    return workers or _cores()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


EXECUTORS: dict[str, Callable[[str | None, int | None], AnyExecutor]] = {
    "same": lambda address, workers: SameProcess(),
    "process": lambda address, workers: process_pool(workers),
    "ray": ray_pool,
}

"""Many cases: the same work for each, on this computer or on a cluster, taken up again where it stopped."""

from lesionlocator.batch.cases import CaseJob, find_cases
from lesionlocator.batch.executors import EXECUTORS, Executor, SameProcess, open_executor, process_pool, ray_pool
from lesionlocator.batch.run import BatchResult, CaseRow, Standing, run_batch

__all__ = [
    "EXECUTORS",
    "BatchResult",
    "CaseJob",
    "CaseRow",
    "Executor",
    "SameProcess",
    "Standing",
    "find_cases",
    "open_executor",
    "process_pool",
    "ray_pool",
    "run_batch",
]

"""Many cases: one contract for all executors, every case once, whatever fails or is killed."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

import batch_work
from batch_work import cases, count_threads, forget_the_end, noted, outline
from lesionlocator.batch import SameProcess, Standing, open_executor, process_pool, ray_pool, run_batch
from lesionlocator.batch.executors import thread_limits
from lesionlocator.errors import Refused

HAS_RAY = importlib.util.find_spec("ray") is not None
RAY = [
    pytest.mark.ray,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(not HAS_RAY, reason="needs the `ray` extra"),
]
KINDS = ["same process", "process pool", pytest.param("ray", marks=RAY)]
POOLS = KINDS[1:]


@pytest.fixture(scope="module")
def pools():
    """One of each, begun when first asked for and shared, as beginning a cluster takes seconds."""
    begin = {"same process": SameProcess, "process pool": lambda: process_pool(2), "ray": lambda: ray_pool(workers=2)}
    begun = {}

    def pool(kind):
        if kind not in begun:
            begun[kind] = begin[kind]()
        return begun[kind]

    yield pool
    for executor in begun.values():
        executor.stop()


def run(tmp_path, executor, *, count=6, name="out", trouble=None, say=lambda _: None):
    work = partial(outline, log=tmp_path / "log", trouble=trouble)
    return run_batch(cases(tmp_path, count), work, tmp_path / name, executor=executor, say=say)


def files(out):
    """Everything in a folder, without the one column that no two runs share."""
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    found["batch.csv"] = [{**row, "seconds": ""} for row in table(out / "batch.csv")]
    return found


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# one contract for all


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_gets_its_folder_and_its_row(tmp_path, pools, kind):
    said = []
    result = run(tmp_path, pools(kind), say=said.append)
    assert [(row.status, row.reason) for row in result.rows] == [(Standing.DONE, "")] * 6
    assert result.is_complete
    rows = table(tmp_path / "out/batch.csv")
    assert list(rows[0]) == ["case", "status", "reason", "seconds", "folder"]
    assert [(row["case"], row["status"], row["folder"]) for row in rows] == [
        (f"case_{number:02}", "done", f"case_{number:02}") for number in range(6)
    ]
    assert all((tmp_path / "out" / row["folder"] / "run.json").is_file() for row in rows)
    assert len(said) == 6
    assert "left" in said[0]
    assert "left" not in said[-1]


@pytest.mark.parametrize("kind", POOLS)
def test_the_same_files_come_from_any_executor(tmp_path, pools, kind):
    run(tmp_path, pools(kind), name="pool")
    run(tmp_path, SameProcess(), name="same")
    assert files(tmp_path / "pool") == files(tmp_path / "same")


@pytest.mark.parametrize("kind", KINDS)
def test_a_case_that_fails_is_a_row_with_its_reason_and_the_others_go_on(tmp_path, pools, kind):
    trouble = {"case_00": "refused", "case_01": "defect", "case_02": "memory", "case_03": "disk", "case_04": "leaves"}
    result = run(tmp_path, pools(kind), trouble=trouble)
    reasons = {row["case"]: row["reason"] for row in table(tmp_path / "out/batch.csv") if row["status"] == "failed"}
    assert reasons["case_00"] == "found a box outside the scan; needed a box inside; draw it again"
    assert reasons["case_01"].startswith(
        "a defect of ours, please report it (ValueError: shapes (3,) and (4,) do not match, batch_work.py line "
    )
    assert "memory" in reasons["case_02"]
    assert "No space left on device" in reasons["case_03"]
    assert "SystemExit" in reasons["case_04"]
    assert len(result.failed) == 5
    assert not result.is_complete
    assert not any((tmp_path / "out" / row.case).exists() for row in result.failed)
    assert (tmp_path / "out/case_05/run.json").is_file()


@pytest.mark.parametrize("kind", KINDS)
def test_finished_cases_stay_as_they_are_and_failed_ones_are_tried_again(tmp_path, pools, kind):
    run(tmp_path, pools(kind), trouble={"case_02": "defect"})
    first = {row["case"]: row["seconds"] for row in table(tmp_path / "out/batch.csv")}
    said = []
    result = run(tmp_path, pools(kind), say=said.append)
    begun = noted(tmp_path / "log", "begun")
    assert {case: begun.count(case) for case in begun} == {f"case_{n:02}": 1 + (n == 2) for n in range(6)}
    assert result.done_before == 5
    assert said[0] == "5 of 6 cases were done before and stay as they are"
    second = {row["case"]: row["seconds"] for row in table(tmp_path / "out/batch.csv")}
    assert all(second[case] == first[case] for case in first if case != "case_02")


@pytest.mark.parametrize("kind", POOLS)
def test_a_worker_that_dies_takes_no_other_case_with_it(tmp_path, pools, kind):
    result = run(tmp_path, pools(kind), trouble={"case_01": "dies", "case_03": "dies once"})
    assert [row.case for row in result.failed] == ["case_01"]
    assert result.failed[0].reason.startswith("its worker died twice: ")
    begun = noted(tmp_path / "log", "begun")
    assert {case: begun.count(case) for case in begun if begun.count(case) > 1} == {"case_01": 2, "case_03": 2}
    undisturbed = [case for case in begun if case not in ("case_01", "case_03")]
    assert sorted(undisturbed) == ["case_00", "case_02", "case_04", "case_05"]


def test_the_row_of_a_killed_worker_names_the_signal(tmp_path):
    with process_pool(1) as executor:
        future = executor.submit(os.kill, 0, 0)
        assert future.result() is None
        with pytest.raises(Exception, match=r"killed by SIGKILL \(often: out of memory\)"):
            executor.submit(kill_myself).result()


def kill_myself():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("kind", KINDS)
def test_work_that_leaves_no_run_json_has_failed(tmp_path, pools, kind):
    result = run_batch(cases(tmp_path, 1), forget_the_end, tmp_path / "out", executor=pools(kind))
    assert "without run.json" in result.rows[0].reason
    assert not (tmp_path / "out/case_00").exists()


@pytest.mark.parametrize("kind", POOLS)
def test_workers_together_use_as_many_threads_as_there_are_cores(tmp_path, pools, kind, monkeypatch):
    run_batch(cases(tmp_path, 2), count_threads, tmp_path / "out", executor=pools(kind))
    share = thread_limits(2)["OMP_NUM_THREADS"]
    assert [(tmp_path / f"out/case_0{n}/run.json").read_text() for n in (0, 1)] == [f"{share} {share}"] * 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert thread_limits(1)["OMP_NUM_THREADS"] == "1"


# killed, interrupted


def start(kind, out, log, count=12):
    """A batch of its own, in a process group of its own."""
    paths = os.pathsep.join([str(Path(batch_work.__file__).parent), *filter(None, sys.path)])
    command = [sys.executable, "-W", "error", batch_work.__file__, kind, str(out), str(log), str(count)]
    # Ray's own modules and their shutdown warn; ours are watched by the other tests.
    command = (
        command
        if kind in ("same process", "process pool")
        else [part for part in command if part not in ("-W", "error")]
    )
    return subprocess.Popen(
        command, start_new_session=True, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, seconds=240.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def done(out):
    return {path.parent.name: path.stat().st_ino for path in out.glob("case_*/run.json")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_killed_in_the_middle_and_started_again_leaves_the_same_files_and_does_no_case_twice(
    tmp_path, pools, kind
):
    out, log = tmp_path / "out", tmp_path / "log"
    batch = start(kind, out, log)
    wait_for(lambda: len(done(out)) >= 3)
    os.killpg(batch.pid, signal.SIGKILL)
    batch.communicate()
    before = done(out)
    assert 3 <= len(before) < 12
    assert (out / "batch.lock").exists()
    begun_before = len(noted(log, "begun"))
    assert run(tmp_path, pools(kind), count=12).is_complete
    begun_again = noted(log, "begun")[begun_before:]
    # (Ray's workers live for another second or two and may finish what they have: no case of theirs is begun again.)
    assert len(begun_again) == len(set(begun_again))
    assert not set(begun_again) & set(before)
    assert set(done(out)) == {f"case_{n:02}" for n in range(12)}
    assert {case: inode for case, inode in done(out).items() if case in before} == before
    run(tmp_path, SameProcess(), name="undisturbed", count=12)
    assert files(out) == files(tmp_path / "undisturbed")


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_batch(tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    batch = start("process pool", out, log, count=40)
    wait_for(lambda: len(done(out)) >= 2)
    os.kill(batch.pid, signal.SIGKILL)
    batch.communicate()
    pids = {int(line.split()[2]) for line in log.read_text().splitlines() if line.startswith("begun")}
    wait_for(lambda: not any(is_alive(pid) for pid in pids), seconds=60)


def is_alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["same process", "process pool"])
def test_ctrl_c_keeps_what_is_finished_and_brings_the_table_up_to_date(tmp_path, kind):
    out, log = tmp_path / "out", tmp_path / "log"
    batch = start(kind, out, log)
    wait_for(lambda: len(done(out)) >= 2)
    os.killpg(batch.pid, signal.SIGINT)
    _, said = batch.communicate(timeout=120)
    assert said.strip().endswith("KeyboardInterrupt")
    assert "SpawnProcess" not in said, "workers have nothing to say about it"
    rows = table(out / "batch.csv")
    assert len(rows) == 12
    assert {row["case"] for row in rows if row["status"] == "done"} <= set(done(out))
    assert {row["status"] for row in rows} == {"done", "waiting"}
    assert not (out / "batch.lock").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_interrupted_is_finished_by_the_next(tmp_path, pools, kind):
    def interrupt(line):
        if line.startswith("3/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, pools(kind), say=interrupt)
    # Others may have finished while the third was noted.
    assert sum(row["status"] == "done" for row in table(tmp_path / "out/batch.csv")) >= 3
    result = run(tmp_path, pools(kind))
    assert result.is_complete
    assert result.done_before >= 3
    run(tmp_path, SameProcess(), name="undisturbed")
    assert files(tmp_path / "out") == files(tmp_path / "undisturbed")


# the executors


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@pytest.mark.skipif(not HAS_RAY, reason="needs the `ray` extra")
def test_a_batch_goes_to_the_ray_cluster_at_an_address(tmp_path, pools):
    import ray

    pools("ray")
    batch = start(ray.get_runtime_context().gcs_address, tmp_path / "out", tmp_path / "log", count=4)
    _, said = batch.communicate(timeout=240)
    assert batch.returncode == 0, said
    assert ray.is_initialized()
    assert len(done(tmp_path / "out")) == 4
    assert not any(
        int(line.split()[2]) == batch.pid for line in (tmp_path / "log").read_text().splitlines() if "begun" in line
    )


@pytest.mark.ray
@pytest.mark.skipif(not HAS_RAY, reason="needs the `ray` extra")
def test_an_address_without_a_ray_cluster_is_refused():
    code = "from lesionlocator.batch import ray_pool; ray_pool('127.0.0.1:1')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=240)
    assert "Refused: found no Ray cluster at 127.0.0.1:1" in ended.stderr


def test_an_executor_is_opened_by_its_name():
    with open_executor("same") as executor:
        assert isinstance(executor, SameProcess)
    with open_executor("process", workers=1) as executor:
        assert executor.submit(sum, (1, 2)).result() == 3


@pytest.mark.parametrize(
    ("name", "address", "said"), [("slurm", None, "one of same, process, ray"), ("process", "a:1", "--executor ray")]
)
def test_an_executor_that_is_not_there_is_refused(name, address, said):
    with pytest.raises(Refused, match=said):
        open_executor(name, address=address)


def test_an_error_comes_back_from_a_worker_as_it_was_raised(tmp_path):
    with process_pool(1) as executor:
        with pytest.raises(FileNotFoundError):
            executor.submit(Path.stat, tmp_path / "nothing").result()
        with pytest.raises(RuntimeError, match="Unpicklable: no way"):
            executor.submit(raise_unpicklable).result()
        with pytest.raises((pickle.PicklingError, AttributeError)):
            executor.submit(lambda: None).result()
        assert executor.submit(abs, -1).result() == 1


def raise_unpicklable():
    class Unpicklable(Exception):
        pass

    raise Unpicklable("no way")


# the output folder


def test_a_second_batch_in_the_same_folder_is_refused_by_name(tmp_path):
    def again(line):
        with pytest.raises(Refused, match=f"another batch at work in .*{os.getpid()}"):
            run(tmp_path, SameProcess())

    assert run(tmp_path, SameProcess(), count=1, say=again).is_complete


def held_by(out, **holder):
    out.mkdir()
    (out / "batch.lock").write_text(json.dumps({"host": socket.gethostname(), "pid": 1, "started": "1", **holder}))


def test_a_lease_of_a_process_that_is_gone_is_taken_over(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    held_by(tmp_path / "out", pid=gone.pid)
    assert run(tmp_path, SameProcess()).is_complete
    assert not (tmp_path / "out/batch.lock").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs the start times of processes")
def test_a_lease_whose_process_number_belongs_to_another_by_now_is_taken_over(tmp_path):
    held_by(tmp_path / "out", pid=os.getpid(), started="1")
    assert run(tmp_path, SameProcess()).is_complete


@pytest.mark.parametrize("holder", [{"host": "another-computer"}, {"pid": "what"}])
def test_a_lease_that_cannot_be_checked_is_respected(tmp_path, holder):
    held_by(tmp_path / "out", **holder)
    with pytest.raises(Refused, match=r"delete .*batch\.lock"):
        run(tmp_path, SameProcess())


def test_a_folder_that_is_not_a_finished_case_is_named_and_left_alone(tmp_path):
    (tmp_path / "out/case_01").mkdir(parents=True)
    (tmp_path / "out/case_01/notes.txt").write_text("mine")
    result = run(tmp_path, SameProcess(), count=3)
    assert [row.case for row in result.failed] == ["case_01"]
    assert "case_01 without run.json" in result.failed[0].reason
    assert (tmp_path / "out/case_01/notes.txt").read_text() == "mine"


def test_nothing_but_cases_and_tables_is_left_at_the_end(tmp_path):
    run(tmp_path, SameProcess(), count=2, trouble={"case_01": "refused"})
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == ["batch.csv", "case_00", "lesions.csv", "links.csv"]


def test_the_tables_of_all_cases_are_joined_with_the_case_in_front(tmp_path):
    run(tmp_path, SameProcess(), count=3, trouble={"case_01": "refused"})
    assert (tmp_path / "out/lesions.csv").read_text() == (
        "case,scan,lesion_id,status,volume_ml\ncase_00,case_00,1,outlined,7.5\ncase_02,case_02,1,outlined,7.5\n"
    )
    assert table(tmp_path / "out/links.csv")[1]["reason"] == "half, and half"


def test_a_lesion_that_failed_is_counted_though_its_case_is_done(tmp_path):
    run(tmp_path, SameProcess(), count=2)
    (tmp_path / "out/case_01/lesions.csv").write_text("scan,lesion_id,status\nb,1,failed\nb,2,outlined\n")
    result = run(tmp_path, SameProcess(), count=2)
    assert result.failed_lesions == 1
    assert not result.failed
    assert not result.is_complete


def test_no_case_twice_in_one_batch(tmp_path):
    with pytest.raises(Refused, match="cases twice: case_00"):
        run_batch(cases(tmp_path, 1) * 2, forget_the_end, tmp_path / "out", executor=SameProcess())


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(Refused, match="cannot be a folder"):
        run(tmp_path, SameProcess())


def test_ray_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Refused, match=r"pip install 'lesionlocator\[ray\]'"):
        ray_pool()


@pytest.mark.parametrize("pool", [process_pool, partial(ray_pool, None)])
def test_no_workers_at_all_are_refused(pool):
    with pytest.raises(Refused, match="0 workers"):
        pool(0)

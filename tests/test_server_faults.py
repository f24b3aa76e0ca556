"""What goes wrong around a reading room: killed in mid-work, a full disk, a locked database, clients that leave."""

from __future__ import annotations

import errno
import http.client
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from files import LEFT

pytest.importorskip("fastapi", reason="needs the extra `server`")

from lesionlocator.server.jobs import Job, Queue, QueueFull, State  # noqa: E402
from lesionlocator.server.store import Store  # noqa: E402
from page_work import TOKEN, Server  # noqa: E402
from room_calls import Caller  # noqa: E402
from room_work import Reader, lesion, outline_body, save_cases  # noqa: E402

STROKE = {"scan": 0, "lesion_id": "1", "radius_mm": 4.0}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults") / "cases"
    folder.mkdir()
    return save_cases(folder)


@pytest.fixture
def reader(cases, tmp_path):
    return Reader(cases, tmp_path / "state")


def outlined(reader) -> dict:
    """The case of one scan, with its lesion outlined."""
    view = reader.case("smith")
    reader.done(f"/api/cases/{view['id']}/outline", outline_body(view, LEFT))
    return reader.case("smith")


def stroke(view: dict, at: float) -> dict:
    return {**STROKE, "points": [[at, 0.0, 10.0]], "revision": view["revision"]}


# Killed ---------------------------------------------------------------------------------------------------------------


def work_until_killed(caller: Caller, view: dict, kill: threading.Timer) -> dict:
    """Strokes and outlines, each after the one before is confirmed; gives the case as it was confirmed last.

    The clock of the killer starts with the fourth, so that it strikes in the middle of one of the next.
    """
    path = f"/cases/{view['id']}"
    number = 0
    with suppress(OSError, http.client.HTTPException):
        while True:
            number += 1
            if number == 4:
                kill.start()
            if number % 3:
                view = caller.post(f"{path}/paint", stroke(view, number % 40 - 20.0))
            else:
                view = caller.done(f"{path}/outline", outline_body(view, LEFT, "2"))
    return view


def check_nothing_is_lost(caller: Caller, confirmed: dict) -> dict:
    """What was confirmed is there, at most with the one step more whose answer did not arrive; outlines can be read."""
    path = f"/cases/{confirmed['id']}"
    view = caller.get(path)
    steps = [entry["step"] for entry in caller.get(f"{path}/journal")]
    assert steps == list(range(2, view["revision"] + 1))
    assert view["revision"] - confirmed["revision"] in (0, 1)
    if view["revision"] == confirmed["revision"]:
        assert view == confirmed
    for found in view["scans"][0]["lesions"]:
        outline = caller.get(f"{path}/scans/0/lesions/{found['lesion_id']}/outline.nii")
        assert len(outline) > 352
    return view


@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_its_work_loses_no_step_that_it_confirmed(cases, tmp_path):
    draw = random.Random(5)
    (tmp_path / "cases").symlink_to(cases)
    with Server(tmp_path / "cases", "--modality", "CT") as server:
        server.wait()
        caller = Caller(server)
        view = caller.case("smith")
        first = view["revision"]
        for _ in range(4):
            kill = threading.Timer(draw.uniform(0.02, 0.5), server.process.kill)
            confirmed = work_until_killed(caller, view, kill)
            kill.join()
            server.kill()
            server.start()
            server.wait()
            view = check_nothing_is_lost(caller, confirmed)
    assert view["revision"] >= first + 12
    assert list((tmp_path / "state" / "outlines").rglob("*.npz"))


# A full disk ----------------------------------------------------------------------------------------------------------


def check_full(reader, view: dict) -> None:
    """A stroke and an outline are refused in words, and the case is as it was."""
    path = f"/api/cases/{view['id']}"
    said = reader.post(f"{path}/paint", stroke(view, 0.0), 507)["error"]
    job = reader.job(f"{path}/outline", outline_body(view, LEFT.scaled(0.3), "3"))
    for error in (said, job["error"]):
        assert error["needed"] == "room on the disk"
        assert "No space left" in error["found"] or "full" in error["found"]
    assert reader.get(path) == view


def no_room(*_args, **_named):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_when_an_outline_cannot_be_written_its_step_is_not_made(reader, tmp_path, monkeypatch):
    view = outlined(reader)
    path = f"/api/cases/{view['id']}"
    files = sorted((tmp_path / "state").rglob("*.npz*"))
    with monkeypatch.context() as full:
        # The last thing that is done with a file: what numpy wrote did not fit.
        full.setattr(os, "fsync", no_room)
        check_full(reader, view)
    assert sorted((tmp_path / "state").rglob("*.npz*")) == files
    view = reader.post(f"{path}/paint", stroke(view, 0.0))
    assert lesion(view, 0, "1")["volume_ml"] > 3


def test_when_the_database_cannot_grow_its_step_is_not_made(reader, monkeypatch):
    view = outlined(reader)
    path = f"/api/cases/{view['id']}"
    connect = sqlite3.connect

    def small(*args, **named):
        database = connect(*args, **named)
        # SQLite itself says that the disk is full at this many pages.
        database.execute("PRAGMA max_page_count = 1")
        return database

    with monkeypatch.context() as full:
        full.setattr(sqlite3, "connect", small)
        noted = view
        # A page has room for some more steps.
        for _ in range(40):
            status, said = raw_note(reader, noted)
            if status == 507:
                break
            noted = said
        assert status == 507
        assert "full" in said["error"]["found"]
        assert reader.get(path) == noted
    assert raw_note(reader, noted)[0] == 200


def raw_note(reader, view: dict) -> tuple[int, dict]:
    body = {"revision": view["revision"], "scan": 0, "lesion_id": "1", "note": "long " * 500 + str(view["revision"])}
    answer = reader.client.post(f"/api/cases/{view['id']}/note", json=body)
    return answer.status_code, answer.json()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MB of its own, where this process may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount", path="/usr/bin:/bin:/sbin")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("needs to be allowed to mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill_up(path: Path) -> None:
    with suppress(OSError), path.open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass


def test_a_disk_that_is_full_in_earnest_loses_nothing_and_work_goes_on_when_there_is_room(cases, small_disk):
    reader = Reader(cases, small_disk / "state")
    view = outlined(reader)
    fill_up(small_disk / "others")
    check_full(reader, view)
    content = (cases / "smith" / "scan.nii.gz").read_bytes()
    sent = reader.client.post("/api/uploads", files=[("files", ("scan.nii.gz", content))])
    assert sent.status_code == 507
    assert not list((small_disk / "state" / "uploads").iterdir())
    job = reader.job(f"/api/cases/{view['id']}/export", {"revision": view["revision"]})
    assert job["state"] == "failed"
    (small_disk / "others").unlink()
    again = Reader(cases, small_disk / "state")
    assert again.get(f"/api/cases/{view['id']}") == view
    view = again.post(f"/api/cases/{view['id']}/paint", stroke(view, 0.0))
    assert again.done(f"/api/cases/{view['id']}/export", {"revision": view["revision"]})


# A locked database ----------------------------------------------------------------------------------------------------


def test_a_database_that_another_program_holds_is_said_with_when_to_come_back(reader, tmp_path, monkeypatch):
    monkeypatch.setattr("lesionlocator.server.store._WAIT_S", 0.1)
    view = outlined(reader)
    path = f"/api/cases/{view['id']}"
    other = sqlite3.connect(tmp_path / "state" / Store(tmp_path / "state").path.name, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    body = stroke(view, 0.0)
    answer = reader.client.post(f"{path}/paint", json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    assert answer.json()["error"]["found"] == "the server is busy"
    # Looking goes on meanwhile.
    assert reader.get(path) == view
    other.execute("ROLLBACK")
    other.close()
    assert reader.post(f"{path}/paint", body)["revision"] == view["revision"] + 1


# Clients that leave ---------------------------------------------------------------------------------------------------


def head(method: str, path: str, **headers: str) -> bytes:
    said = {"Host": "127.0.0.1", "Authorization": f"Bearer {TOKEN}", **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", ""]
    return "\r\n".join(lines).encode()


def leave_after(server: Server, sent: bytes, heard: int = 0) -> None:
    """A client that sends this, hears so many bytes, and is gone."""
    with socket.create_connection(("127.0.0.1", server.port), 10) as line:
        line.sendall(sent)
        while heard > 0:
            heard -= len(line.recv(min(heard, 4096)))
        # Gone as after a crash: without a good bye.
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.slow
def test_clients_that_leave_in_the_middle_leave_nothing_behind_and_keep_what_they_began(cases, tmp_path):
    (tmp_path / "cases").symlink_to(cases)
    with Server(tmp_path / "cases", "--modality", "CT") as server:
        server.wait()
        caller = Caller(server)
        view = caller.case("smith")
        path = f"/cases/{view['id']}"
        # While it downloads the scan.
        leave_after(server, head("GET", f"/api{path}/scans/0/image.nii"), heard=5000)
        # While it uploads one.
        part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.nii"\r\n\r\n' + bytes(100_000)
        kind = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": "900000"}
        leave_after(server, head("POST", "/api/uploads", **kind) + part)
        # While it waits for a job that it asked for: the job is done all the same, and saved.
        job = caller.post(f"{path}/outline", outline_body(view, LEFT))
        leave_after(server, head("GET", f"/api/jobs/{job['id']}/events"), heard=20)
        until = time.monotonic() + 240
        while caller.get(path)["revision"] == view["revision"] and time.monotonic() < until:
            time.sleep(0.05)
        assert lesion(caller.get(path), 0, "1")["volume_ml"] > 2
        assert not list((tmp_path / "state" / "uploads").iterdir())
        assert caller.get("/about")["waiting_jobs"] == 0
        server.log.flush()
        assert "Traceback" not in (tmp_path / "server.log").read_text()


# Too many jobs --------------------------------------------------------------------------------------------------------


def test_sessions_that_ask_without_end_leave_places_for_those_that_ask_once():
    gate = threading.Event()
    queue = Queue(8, lambda problem: {"found": str(problem)})
    running = queue.add(Job(lambda _: gate.wait(60.0), "wait", "first"))
    while running.state is State.WAITING:
        time.sleep(0.01)
    greedy = [queue.add(Job(lambda _: None, "outline", f"greedy {number % 2}")) for number in range(4)]
    for number in range(2):
        with pytest.raises(QueueFull):
            queue.add(Job(lambda _: None, "outline", f"greedy {number}"))
    others = [queue.add(Job(lambda _: None, "outline", f"other {number}")) for number in range(4)]
    with pytest.raises(QueueFull):
        queue.add(Job(lambda _: None, "outline", "one too many"))
    others[0].cancel()
    others.append(queue.add(Job(lambda _: None, "outline", "not too many any more")))
    gate.set()
    assert all(job.wait(60.0) for job in (running, *greedy, *others))
    queue.close()

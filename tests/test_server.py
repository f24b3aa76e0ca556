"""The reading room's server: what a reader does is done, kept, undone and refused as it should be."""

from __future__ import annotations

import io
import shutil
import sqlite3
import threading
import time
import zipfile

import nibabel as nib
import numpy as np
import pytest

from files import LEFT, box_of
from lesionlocator.measure import measure_timepoint
from visits import Ball

pytest.importorskip("fastapi", reason="needs the extra `server`")

from starlette.testclient import TestClient  # noqa: E402

from lesionlocator.server.jobs import Job, Queue, QueueFull, State  # noqa: E402
from lesionlocator.server.run import open_room  # noqa: E402
from lesionlocator.server.settings import ServeSettings  # noqa: E402
from lesionlocator.server.store import Busy, Conflict, Store  # noqa: E402
from room_work import GROWN, TOKEN, Reader, lesion, outline_body, save_cases  # noqa: E402


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return save_cases(tmp_path_factory.mktemp("cases"))


@pytest.fixture
def reader(cases, tmp_path):
    return Reader(cases, tmp_path / "state")


@pytest.fixture(scope="module")
def idle(cases, tmp_path_factory):
    """A reader of a room in which nothing comes of what is asked, so that many tests can share it."""
    return Reader(cases, tmp_path_factory.mktemp("idle"))


@pytest.fixture(scope="module")
def followed_state(cases, tmp_path_factory):
    """What a room keeps in which the prompts of jones were outlined and followed."""
    state = tmp_path_factory.mktemp("followed") / "state"
    reader = Reader(cases, state)
    view = reader.case("jones")
    path = f"/api/cases/{view['id']}"
    view = reader.done(f"{path}/outline-asked", {"revision": view["revision"]})
    reader.done(f"{path}/follow", {"revision": view["revision"]})
    return state


@pytest.fixture
def followed(cases, followed_state, tmp_path):
    """A reader who goes on from there, in a room of its own."""
    return Reader(cases, shutil.copytree(followed_state, tmp_path / "state"))


def test_a_box_becomes_an_outline_that_is_measured(reader):
    view = reader.case("smith")
    view = reader.done(f"/api/cases/{view['id']}/outline", outline_body(view, LEFT))
    found = lesion(view, 0, "1")
    assert found["status"] == "outlined"
    assert found["volume_ml"] == pytest.approx(4 / 3 * np.pi * LEFT.radius**3 / 1000, rel=0.1)
    assert view["revision"] == 2
    assert view["can_undo"]


def test_the_outline_and_the_scan_are_in_their_place(reader, cases, tmp_path):
    view = reader.case("smith")
    reader.done(f"/api/cases/{view['id']}/outline", outline_body(view, LEFT))
    scan = tmp_path / "scan.nii"
    scan.write_bytes(reader.client.get(f"/api/cases/{view['id']}/scans/0/image.nii").content)
    stored, given = nib.load(scan), nib.load(cases / "smith" / "scan.nii.gz")
    np.testing.assert_allclose(stored.affine, given.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(stored.dataobj), np.asarray(given.dataobj))
    mask = tmp_path / "mask.nii"
    mask.write_bytes(reader.client.get(f"/api/cases/{view['id']}/scans/0/lesions/1/outline.nii").content)
    outline = nib.load(mask)
    voxels = np.argwhere(np.asarray(outline.dataobj))
    centre_ras = nib.affines.apply_affine(outline.affine, voxels.mean(axis=0))
    np.testing.assert_allclose(centre_ras * [-1, -1, 1], [LEFT.x, LEFT.y, LEFT.z], atol=1.0)


def test_prompts_that_came_with_the_case_are_asked(idle):
    assert [one["status"] for one in idle.case("jones")["scans"][0]["lesions"]] == ["asked", "asked"]


def test_what_was_outlined_and_followed_is_decided(followed):
    view = followed.case("jones")
    path = f"/api/cases/{view['id']}"
    assert lesion(view, 1, "7")["status"] == "outlined"
    assert lesion(view, 1, "9")["status"] == "absent"
    view = followed.post(f"{path}/decide", {"revision": view["revision"], "scan": 1, "lesion_id": "7", "say": "accept"})
    assert lesion(view, 1, "7")["decision"] == "accepted"
    view = followed.post(f"{path}/decide", {"revision": view["revision"], "scan": 1, "lesion_id": "7", "say": "reject"})
    assert lesion(view, 1, "7")["status"] == "absent"
    gone = next(link for link in view["links"] if link["lesion_id"] == "7")
    assert (gone["event"], gone["decided_by"]) == ("vanished", "reader")
    view = followed.post(f"{path}/decide", {"revision": view["revision"], "scan": 1, "lesion_id": "9", "say": "accept"})
    assert (lesion(view, 1, "9")["status"], lesion(view, 1, "9")["decision"]) == ("absent", "accepted")
    gone = next(link for link in view["links"] if link["lesion_id"] == "9")
    assert (gone["event"], gone["decided_by"]) == ("vanished", "reader")


def test_what_a_reader_moved_stays_when_lesions_are_followed_again(followed):
    view = followed.case("jones")
    path = f"/api/cases/{view['id']}"
    view = followed.done(f"{path}/outline", outline_body(view, LEFT, "9", 1))
    moved = lesion(view, 1, "9")
    assert (moved["decision"], moved["status"]) == ("moved", "outlined")
    view = followed.done(f"{path}/follow", {"revision": view["revision"]})
    assert lesion(view, 1, "9")["centre_x_mm"] == moved["centre_x_mm"]
    assert [link["decided_by"] for link in view["links"] if link["lesion_id"] == "9"] == ["reader"]


def test_a_new_lesion_and_one_that_merged_or_split_are_told_apart(reader):
    view = reader.case("jones")
    path = f"/api/cases/{view['id']}"
    view = reader.done(f"{path}/outline-asked", {"revision": view["revision"]})
    view = reader.done(f"{path}/outline", outline_body(view, GROWN, "12", 1))
    assert [(link["event"], link["lesion_id"]) for link in view["links"]] == [("new", "12")]
    body = {"revision": view["revision"], "scan": 1, "lesion_id": "12", "say": "part_of", "other_id": "7"}
    view = reader.post(f"{path}/relate", body)
    assert [(link["event"], link["lesion_id"], link["to_lesion_id"]) for link in view["links"]] == [("same", "7", "12")]
    body = {"revision": view["revision"], "scan": 1, "lesion_id": "9", "say": "merged_into", "other_id": "12"}
    view = reader.post(f"{path}/relate", body)
    assert {(link["event"], link["lesion_id"]) for link in view["links"]} == {("merged", "7"), ("merged", "9")}


def test_steps_are_undone_and_redone_and_survive_a_killed_server(reader, cases, tmp_path):
    view = reader.case("smith")
    path = f"/api/cases/{view['id']}"
    view = reader.done(f"{path}/outline", outline_body(view, LEFT))
    noted = reader.post(
        f"{path}/note", {"revision": view["revision"], "scan": 0, "lesion_id": "1", "note": "<b>hm</b>"}
    )
    undone = reader.post(f"{path}/undo", {"revision": noted["revision"]})
    assert lesion(undone, 0, "1")["note"] == ""
    again = Reader(cases, tmp_path / "state")
    found = again.get(path)
    assert found == undone
    redone = again.post(f"{path}/redo", {"revision": undone["revision"]})
    assert lesion(redone, 0, "1")["note"] == "<b>hm</b>"
    assert redone["scans"] == noted["scans"]
    what = [entry["what"] for entry in again.get(f"{path}/journal")]
    assert what == ["outlined lesion 1 in scan", "note on lesion 1", "undid: note on lesion 1", "redid"]


def test_two_windows_do_not_overwrite_each_other(reader):
    view = reader.case("smith")
    path = f"/api/cases/{view['id']}"
    first = reader.done(f"{path}/outline", outline_body(view, LEFT))
    late = reader.post(f"{path}/note", {"revision": view["revision"], "scan": 0, "lesion_id": "1", "note": "x"}, 409)
    assert late["error"]["revision"] == first["revision"]
    other = reader.job(f"{path}/outline", outline_body(view, LEFT, "2"), session="somebody_else")
    assert (other["state"], other["error"]["revision"]) == ("failed", first["revision"])
    # The same reader's next click may be on its way before the last one is answered.
    own = reader.job(f"{path}/outline", outline_body(view, LEFT, "2"))
    assert own["state"] == "done"


def test_a_prompt_on_nothing_is_refused_in_words_and_changes_nothing(idle):
    view = idle.case("smith")
    far = Ball(4000, 0, 0, 5)
    job = idle.job(f"/api/cases/{view['id']}/outline", outline_body(view, far))
    assert job["state"] == "failed"
    assert "outside the scan" in job["error"]["found"]
    assert idle.get(f"/api/cases/{view['id']}")["revision"] == view["revision"]


def test_a_finished_case_is_exported_with_its_report(followed):
    view = followed.case("jones")
    path = f"/api/cases/{view['id']}"
    answer = followed.done(f"{path}/export", {"revision": view["revision"], "to": ["nrrd"]})
    assert answer["revision"] == view["revision"]
    with zipfile.ZipFile(io.BytesIO(followed.client.get(f"{path}/result.zip").content)) as packed:
        names = packed.namelist()
    assert {"result/lesions.csv", "result/run.json", "result/t0_lesion_7.nii.gz", "report/report.html"} <= set(names)
    assert any(name.endswith(".seg.nrrd") for name in names)
    report = followed.client.get(f"{path}/report.html")
    assert "default-src 'none'" in report.headers["content-security-policy"]
    assert "RECIST" in report.text


def test_a_place_is_found_in_the_other_scan_once_they_are_brought_together(reader):
    view = reader.case("jones")
    path = f"/api/cases/{view['id']}"
    place = {"scan": 0, "to": 1, "at": [1.0, 2.0, 3.0]}
    assert reader.post(f"{path}/place", place)["at"] is None
    reader.done(f"{path}/align", {"first": 0, "last": 1})
    np.testing.assert_allclose(reader.post(f"{path}/place", place)["at"], [1.0, 2.0, 3.0], atol=1e-6)


def test_an_uploaded_scan_becomes_a_case(reader, cases):
    content = (cases / "smith" / "scan.nii.gz").read_bytes()
    answer = reader.client.post("/api/uploads", files=[("files", ("../../<script>.nii.gz", content))])
    assert answer.status_code == 200, answer.text
    view = reader.get(f"/api/cases/{answer.json()['id']}")
    assert view["scans"][0]["name"] == "script"
    assert reader.done(f"/api/cases/{view['id']}/outline", outline_body(view, LEFT))["revision"] == 2


@pytest.mark.parametrize("name", ["notes.txt", "scan.nii.gz", "series.zip"])
def test_what_is_not_a_scan_is_refused_and_leaves_nothing(reader, tmp_path, name):
    answer = reader.client.post("/api/uploads", files=[("files", (name, b"x" * 1000))])
    assert answer.status_code == 422
    assert {"found", "needed", "do"} <= set(answer.json()["error"])
    assert not list((tmp_path / "state" / "uploads").iterdir())


def test_a_zip_bomb_is_not_unpacked(reader, tmp_path):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.dcm", bytes(300_000_000))
    answer = reader.client.post("/api/uploads", files=[("files", ("a.zip", bomb.getvalue()))])
    assert answer.status_code == 422
    assert "would unpack to 300000000 bytes" in answer.json()["error"]["found"]
    assert not list((tmp_path / "state" / "uploads").iterdir())


def test_a_header_that_announces_a_huge_scan_takes_no_memory(idle, cases):
    content = bytearray((cases / "smith" / "scan.nii.gz").read_bytes())
    import gzip

    raw = bytearray(gzip.decompress(bytes(content)))
    raw[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    answer = idle.client.post("/api/uploads", files=[("files", ("huge.nii.gz", gzip.compress(bytes(raw))))])
    assert answer.status_code == 422
    assert "announces" in answer.json()["error"]["found"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer ä".encode()}, 401),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "evil.example"}, 421),
    ],
)
def test_who_may_not_ask_gets_nothing(idle, headers, status):
    answer = idle.client.post("/api/demo", headers=headers)
    assert answer.status_code == status
    assert {"found", "needed", "do"} <= set(answer.json()["error"])


def test_the_page_is_opened_with_the_token_once_and_known_by_its_cookie_then(cases, tmp_path):
    app = open_room([cases], tmp_path / "state", ServeSettings(modality="CT"), token=TOKEN)
    client = TestClient(app, base_url="http://127.0.0.1")
    assert client.get("/api/cases").status_code == 401
    opened = client.get(f"/?token={TOKEN}")
    assert "HttpOnly" in opened.headers["set-cookie"]
    assert "SameSite=Strict" in opened.headers["set-cookie"]
    assert client.get("/api/cases").status_code == 200
    assert client.get("/api/health").headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(
    "path", ["../secret.txt", "..%2f..%2fsecret.txt", "%2e%2e/%2e%2e/secret.txt", "....//secret.txt"]
)
def test_no_path_leads_out_of_the_folders(idle, path):
    for start in ("/assets/", "/api/cases/", "/"):
        answer = idle.client.get(start + path)
        assert "not yours" not in answer.text
        assert answer.status_code in {404, 405, 422}


def test_a_body_that_is_too_large_is_refused_before_it_is_read(reader):
    answer = reader.client.post("/api/demo", content=b"x" * 5_000_000)
    assert answer.status_code == 413
    answer = reader.client.post("/api/demo", content=(b"x" * 1_000_000 for _ in range(6)))
    assert answer.status_code in {202, 413}


MALFORMED = [
    ("outline", {"revision": 1, "scan": 0, "lesion_id": "1", "prompts": [{"kind": "click", "at": [1, 2]}]}),
    ("outline", {"revision": 1, "scan": 0, "lesion_id": "../1", "prompts": [{"kind": "click", "at": [1, 2, 3]}]}),
    ("outline", {"revision": 1, "scan": 99, "lesion_id": "1", "prompts": [{"kind": "click", "at": [1, 2, 3]}]}),
    ("outline", {"revision": 1, "scan": 0, "lesion_id": "1", "prompts": []}),
    (
        "outline",
        {"revision": 1, "scan": 0, "lesion_id": "1", "prompts": [{"kind": "box", "min": [0] * 3, "max": [0] * 3}]},
    ),
    ("decide", {"revision": 1, "scan": 0, "lesion_id": "nobody", "say": "accept"}),
    ("decide", {"revision": "x"}),
    ("measure", {"revision": 1, "scan": 0, "lesion_id": "1", "line": {"from": [0, 0, 0], "to": [0, 0, 0]}}),
    ("place", {"scan": 0, "to": 7, "at": [0, 0, 0]}),
    ("undo", {"revision": 1}),
    ("redo", {"revision": 1}),
    ("follow", {"revision": 0}),
]


@pytest.mark.parametrize(("route", "body"), MALFORMED, ids=[f"{n}-{route}" for n, (route, _) in enumerate(MALFORMED)])
def test_a_request_that_makes_no_sense_is_answered_in_three_parts(idle, route, body):
    view = idle.case("smith")
    answer = idle.client.post(f"/api/cases/{view['id']}/{route}", json=body)
    assert answer.status_code == 422
    assert {"found", "needed", "do"} <= set(answer.json()["error"])


def test_sessions_have_their_turn_one_after_the_other():
    order: list[str] = []
    gate = threading.Event()
    queue = Queue(20, lambda problem: {"found": str(problem)})
    first = queue.add(Job(lambda _: gate.wait(60.0), "wait", "a"))
    while first.state is State.WAITING:
        time.sleep(0.01)
    jobs = [
        queue.add(Job(lambda _, name=name: order.append(name), "outline", name[0]))
        for name in ("a1", "a2", "a3", "b1", "c1", "c2")
    ]
    gate.set()
    assert all(job.wait(60.0) for job in [first, *jobs])
    queue.close()
    assert order == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_a_full_queue_says_so_and_a_cancelled_job_makes_room():
    gate = threading.Event()
    queue = Queue(1, lambda problem: {"found": str(problem)})
    running = queue.add(Job(lambda _: gate.wait(60.0), "wait", "a"))
    while running.state is State.WAITING:
        time.sleep(0.01)
    waiting = queue.add(Job(lambda _: None, "outline", "b"))
    with pytest.raises(QueueFull):
        queue.add(Job(lambda _: None, "outline", "c"))
    waiting.cancel()
    assert waiting.state is State.CANCELLED
    last = queue.add(Job(lambda _: None, "outline", "c"))
    gate.set()
    assert last.wait(60.0)
    queue.close()


def test_a_running_job_ends_at_its_next_word_when_it_is_cancelled():
    said = threading.Event()
    queue = Queue(5, lambda problem: {"found": str(problem)})

    def work(say):
        for _ in range(1000):
            say("on")
            said.set()
            time.sleep(0.01)

    job = queue.add(Job(work, "follow", "a"))
    assert said.wait(60.0)
    job.cancel()
    assert job.wait(60.0)
    assert job.state is State.CANCELLED
    failing = queue.add(Job(lambda _: 1 / 0, "follow", "a"))
    assert failing.wait(60.0)
    assert failing.error == {"found": "division by zero"}
    queue.close()


def test_a_locked_database_is_said_and_nothing_is_half_saved(tmp_path, monkeypatch):
    monkeypatch.setattr("lesionlocator.server.store._WAIT_S", 0.1)
    store = Store(tmp_path)
    store.open("c", "title", [tmp_path / "a.nii"], "{}")
    blocking = sqlite3.connect(tmp_path / "readings.sqlite", isolation_level=None)
    blocking.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy):
        store.save("c", 1, "{}", action="x", session="s")
    blocking.execute("ROLLBACK")
    blocking.close()
    assert store.case("c").revision == 1
    assert store.save("c", 1, "{}", action="x", session="s").revision == 2
    with pytest.raises(Conflict):
        store.save("c", 1, "{}", action="x", session="s")


def test_a_disk_that_is_full_is_said_and_the_case_stays_as_it_was(reader, monkeypatch):
    from lesionlocator.server.store import Full

    view = reader.case("smith")

    def full(*_args, **_named):
        raise Full("the database cannot be written (database or disk is full)")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "save", full)
        job = reader.job(f"/api/cases/{view['id']}/outline", outline_body(view, LEFT))
    assert job["error"]["needed"] == "room on the disk"
    assert reader.get(f"/api/cases/{view['id']}")["revision"] == view["revision"]
    assert reader.done(f"/api/cases/{view['id']}/outline", outline_body(view, LEFT))["revision"] == 2


def test_the_numbers_of_the_page_are_those_of_the_command_line(reader, cases):
    from dataclasses import replace

    from lesionlocator.case import Lesion
    from lesionlocator.formats import open_timepoint
    from lesionlocator.prompt import Box
    from lesionlocator.segment import load_segmenter, segment_timepoint

    view = reader.case("smith")
    view = reader.done(f"/api/cases/{view['id']}/outline", outline_body(view, LEFT))
    bounds = box_of(LEFT)
    box = Box.from_bounds(np.array(bounds["min"], float), np.array(bounds["max"], float))
    timepoint = open_timepoint(cases / "smith" / "scan.nii.gz", "CT", lesions=(Lesion("1", (box,)),))
    row = measure_timepoint(replace(segment_timepoint(timepoint, load_segmenter())))[0]
    found = lesion(view, 0, "1")
    assert (found["volume_ml"], found["long_axis_mm"], found["mean"]) == (row.volume_ml, row.long_axis_mm, row.mean)


def test_a_scan_says_what_it_is(idle):
    view = idle.case("smith")
    answer = idle.client.get(f"/api/cases/{view['id']}/scans/0/image.nii")
    assert (answer.headers["X-Modality"], answer.headers["X-Unit"]) == ("CT", "HU")

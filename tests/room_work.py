"""The reading room's server for tests: two cases, and a page that is driven by hand."""

from __future__ import annotations

import json
from pathlib import Path

from starlette.testclient import TestClient

from files import LEFT, RIGHT, box_of, save_prompts, save_scan
from lesionlocator.server.run import open_room
from lesionlocator.server.settings import ServeSettings
from visits import Ball

TOKEN = "a-token-for-tests"
GROWN = Ball(LEFT.x, LEFT.y, LEFT.z, LEFT.radius + 2)


def save_cases(folder: Path) -> Path:
    """Two cases: one with prompts and a follow-up in which the right lesion is gone, one of a single scan."""
    for name in ("jones", "smith"):
        (folder / name).mkdir()
    save_scan(folder / "jones" / "t0.nii.gz", [LEFT, RIGHT], 1)
    save_scan(folder / "jones" / "t1.nii.gz", [GROWN], 2)
    save_prompts(
        folder / "jones" / "prompts.json", [{"id": "7", "box": box_of(LEFT)}, {"id": "9", "box": box_of(RIGHT)}]
    )
    save_scan(folder / "smith" / "scan.nii.gz", [LEFT], 3)
    (folder.parent / "secret.txt").write_text("not yours")
    return folder


class Reader:
    """A page, driven by hand."""

    def __init__(self, cases, state, **settings) -> None:
        settings = {"modality": "CT", "align": "header", **settings}
        app = open_room([cases], state, ServeSettings(**settings), token=TOKEN)
        self.client = TestClient(app, base_url="http://127.0.0.1", headers={"Authorization": f"Bearer {TOKEN}"})

    def case(self, title: str) -> dict:
        found = next(case for case in self.get("/api/cases") if case["title"] == title)
        return self.get(f"/api/cases/{found['id']}")

    def get(self, path: str):
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: dict, status: int = 200, session: str = "me"):
        answer = self.client.post(path, json=body, headers={"X-Session": session})
        assert answer.status_code == status, answer.text
        return answer.json()

    def job(self, path: str, body: dict, session: str = "me") -> dict:
        """The job when it is over, read from its events as the page reads them."""
        job = self.post(path, body, 202, session)
        with self.client.stream("GET", f"/api/jobs/{job['id']}/events") as answer:
            text = "".join(answer.iter_text())
        return json.loads(text.rpartition("event: end\ndata: ")[2].strip())

    def done(self, path: str, body: dict) -> dict:
        job = self.job(path, body)
        assert job["state"] == "done", job["error"]
        return job["answer"]


def lesion(view: dict, scan: int, lesion_id: str) -> dict:
    return next(one for one in view["scans"][scan]["lesions"] if one["lesion_id"] == lesion_id)


def outline_body(view: dict, ball: Ball, lesion_id: str = "1", scan: int = 0) -> dict:
    box = {"kind": "box", **box_of(ball)}
    return {"revision": view["revision"], "scan": scan, "lesion_id": lesion_id, "prompts": [box]}

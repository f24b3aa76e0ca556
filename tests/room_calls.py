"""A served reading room called over the network, with nothing but Python's own HTTP."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any

from page_work import TOKEN, Server


class Caller:
    """One session of a server in a process of its own."""

    def __init__(self, server: Server, session: str = "me") -> None:
        self.server, self.session = server, session

    def ask(self, method: str, path: str, body: dict | None = None) -> tuple[int, Any]:
        """Status and answer. A server that is gone is an OSError or HTTPException."""
        line = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=240)
        headers = {"Authorization": f"Bearer {TOKEN}", "X-Session": self.session, "Content-Type": "application/json"}
        try:
            line.request(method, f"/api{path}", None if body is None else json.dumps(body), headers)
            answer = line.getresponse()
            content = answer.read()
        finally:
            line.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(content) if is_json else content

    def get(self, path: str) -> Any:
        status, answer = self.ask("GET", path)
        assert status == 200, answer
        return answer

    def post(self, path: str, body: dict) -> Any:
        status, answer = self.ask("POST", path, body)
        assert status in (200, 202), answer
        return answer

    def done(self, path: str, body: dict) -> Any:
        """The answer of a job when it is over."""
        job = self.post(path, body)
        while job["state"] in ("waiting", "running"):
            time.sleep(0.01)
            job = self.get(f"/jobs/{job['id']}")
        assert job["state"] == "done", job["error"]
        return job["answer"]

    def case(self, title: str) -> dict:
        found = next(case for case in self.get("/cases") if case["title"] == title)
        return self.get(f"/cases/{found['id']}")

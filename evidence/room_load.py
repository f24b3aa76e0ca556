"""32 readers at once for three minutes against one server with one worker: memory, fairness, answers, refusals."""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from provenance import header, write

PATIENT, GREEDY, SECONDS = 28, 4, 180
GREEDY_JOBS = 12
QUEUE, MEMORY_MB = 40, 20
TOKEN, PORT_HOST = "a-token-for-the-load", "127.0.0.1"
AFFINE = np.array([[-1.5, 0, 0, 71.25], [0, -1.5, 0, 71.25], [0, 0, 2.5, -73.75], [0, 0, 0, 1]])
SHAPE = (96, 96, 60)
CONFLICT = "changed in another window"
BALL_MM, RADIUS_MM = (-30.0, 0.0, 10.0), 9.0


@dataclass
class Session:
    """A reader, what was answered to it, and how long it waited for each answer."""

    number: int
    case: str = ""
    revision: int = 0
    confirmed: int = 0
    waits_s: list = field(default_factory=list)
    refused: int = 0
    said_when: int = 0
    conflicts: int = 0
    wrong: list = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_greedy(self):
        return self.number >= PATIENT


class Server:
    def __init__(self, folder):
        with socket.socket() as free:
            free.bind((PORT_HOST, 0))
            self.port = free.getsockname()[1]
        words = ["serve", folder / "cases", "--port", self.port, "--token", TOKEN, "--state", folder / "state"]
        limits = ["--queue", QUEUE, "--memory-mb", MEMORY_MB, "--modality", "CT"]
        command = [sys.executable, "-c", "from lesionlocator.cli import main; main()", *map(str, words + limits)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection((PORT_HOST, self.port), 1):
                return
            time.sleep(0.2)
        raise SystemExit("the server did not start")

    def memory_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def ask(self, method, path, body=None, session=""):
        line = http.client.HTTPConnection(PORT_HOST, self.port, timeout=300)
        headers = {"Authorization": f"Bearer {TOKEN}", "X-Session": session, "Content-Type": "application/json"}
        line.request(method, f"/api{path}", None if body is None else json.dumps(body), headers)
        answer = line.getresponse()
        content = answer.read()
        line.close()
        if answer.headers.get_content_type() == "text/event-stream":
            return answer.status, json.loads(content.decode().rpartition("event: end\ndata: ")[2]), answer.headers
        return answer.status, json.loads(content), answer.headers


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_cases(folder / "cases")
        server = Server(folder)
        try:
            sessions, memory, lost, waiting = drive(server)
        finally:
            server.process.terminate()
            server.process.wait(30)
    write("room_load", page(sessions, memory, lost))
    problems = [problem for one in sessions for problem in one.wrong] + lost
    if problems or waiting:
        raise SystemExit(f"{len(problems)} answers lost or wrong, {waiting} jobs still waiting: {problems[:3]}")


def make_cases(folder):
    """A small abdomen of fat with one lesion for each reader."""
    x, y, z = np.einsum("ab,b...->a...", AFFINE[:3, :3], np.indices(SHAPE)) + AFFINE[:3, 3, None, None, None]
    x, y = -x, -y
    body = np.where((x / 68) ** 2 + (y / 60) ** 2 <= 1, -90.0, -1000.0)
    body[(x - BALL_MM[0]) ** 2 + (y - BALL_MM[1]) ** 2 + (z - BALL_MM[2]) ** 2 <= RADIUS_MM**2] = 60.0
    for number in range(PATIENT + GREEDY):
        case = folder / f"case_{number:02}"
        case.mkdir(parents=True)
        voxels = body + np.random.default_rng(number).normal(0, 12, SHAPE)
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), AFFINE), case / "scan.nii.gz")


def drive(server):
    """Three minutes of work; gives the sessions, memory second by second, and what was confirmed and is not there."""
    cases = server.ask("GET", "/cases")[1]
    sessions = [Session(number, case["id"]) for number, case in enumerate(cases)]
    for one in sessions:
        one.revision = server.ask("GET", f"/cases/{one.case}")[1]["revision"]
    until = time.monotonic() + SECONDS
    threads = [
        threading.Thread(target=work, args=(server, one, step, until))
        for one in sessions
        for step in range(GREEDY_JOBS if one.is_greedy else 1)
    ]
    for thread in threads:
        thread.start()
    memory = []
    while any(thread.is_alive() for thread in threads):
        memory.append((time.monotonic() - until + SECONDS, server.memory_mb()))
        time.sleep(1)
    lost = [problem for one in sessions for problem in missing(server, one)]
    return sessions, memory, lost, server.ask("GET", "/about")[1]["waiting_jobs"]


def work(server, one, step, until):
    """One thing after the other, as fast as the answers come; a greedy session does this a dozen times at once."""
    while time.monotonic() < until:
        begun = time.monotonic()
        path, body = request(one, step)
        status, answer, headers = server.ask("POST", f"/cases/{one.case}/{path}", body, f"s{one.number}")
        if status == 202:
            status, answer, headers = server.ask("GET", f"/jobs/{answer['id']}/events", None, f"s{one.number}")
            answer = answer["answer"] if answer["state"] == "done" else answer
        with one.lock:
            step += keep(one, status, answer, headers, time.monotonic() - begun)
        if status == 503:
            time.sleep(float(headers.get("Retry-After", 1)))


def keep(one, status, answer, headers, waited_s):
    """Notes what came; whether it was the case with the step made."""
    if status == 503:
        one.refused += 1
        one.said_when += "Retry-After" in headers and {"found", "needed", "do"} <= set(answer["error"])
    elif status == 200 and "revision" in answer:
        one.confirmed += 1
        # A step that is undone leads back to an earlier revision; answers of requests at once come in any order.
        one.revision = max(one.revision, answer["revision"]) if one.is_greedy else answer["revision"]
        one.waits_s.append(waited_s)
        return True
    elif is_conflict(status, answer):
        one.conflicts += 1
        one.revision = answer["error"]["revision"]
    else:
        one.wrong.append((status, answer))
    return False


def is_conflict(status, answer):
    """Whether it says that another request of this case came first: what a session is told that asks twice at once.

    It is told so at once (409), or at the end of a job that found the case changed while it outlined.
    """
    error = answer.get("error") or {}
    return status in (200, 409) and CONFLICT in error.get("found", "") and {"needed", "do"} <= set(error)


def request(one, step):
    at = {"revision": one.revision, "scan": 0, "lesion_id": "1"}
    low = [c - RADIUS_MM - 2 for c in BALL_MM]
    high = [c + RADIUS_MM + 2 for c in BALL_MM]
    click = {"kind": "click", "at": [BALL_MM[0] + 3, BALL_MM[1], BALL_MM[2]]}
    box = ("outline", {**at, "prompts": [{"kind": "box", "min": low, "max": high}]})
    if one.is_greedy:
        return box
    steps = [box, ("correct", {**at, "clicks": [click]}), ("note", {**at, "note": f"note {step}"}), ("undo", None)]
    path, body = steps[step % len(steps)]
    return path, body or {"revision": one.revision}


def missing(server, one):
    """Whether every confirmed step is in the journal, and the case stands at the last one."""
    steps = server.ask("GET", f"/cases/{one.case}/journal")[1]
    revision = server.ask("GET", f"/cases/{one.case}")[1]["revision"]
    said = [] if len(steps) == one.confirmed else [f"case {one.number}: {one.confirmed} confirmed, {len(steps)} kept"]
    return said + ([] if steps and steps[-1]["step"] == revision else [f"case {one.number}: not at its last step"])


def page(sessions, memory, lost):
    text = header("32 readers at once on one server", "python evidence/room_load.py")
    patient = [one for one in sessions if not one.is_greedy]
    greedy = [one for one in sessions if one.is_greedy]
    wrong = sum(len(one.wrong) for one in sessions)
    refused = sum(one.refused for one in sessions)
    conflicts = [sum(one.conflicts for one in some) for some in (patient, greedy)]
    text += (
        f"| Load at the end, 5 minutes | {os.getloadavg()[1]:.1f} |\n\n"
        f"One `lesionlocator serve` with its one worker, the default model, {QUEUE} places in the queue and\n"
        f"{MEMORY_MB} MB for open scans (half of them fit). {PATIENT} sessions do one thing after the other without a\n"
        f"pause: box, click that corrects, note, undo. {GREEDY} greedy ones keep asking for {GREEDY_JOBS} outlines at\n"
        f"once. Each has a case of its own, a CT of 96 x 96 x 60. {SECONDS} s, and then until all were answered.\n\n"
        "| Sessions | Answers | fewest to most of a session | Wait, median s | 95 % s | longest s | refused (503) |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    text += row(f"{PATIENT} patient", patient) + row(f"{GREEDY} greedy", greedy) + "\n"
    text += (
        f"Of {refused} refusals {sum(one.said_when for one in sessions)} said when to come back and what to do.\n"
        f"Conflicts (another request of the same session came first, so this step was not made, and it says so):\n"
        f"{conflicts[0]} of the patient sessions, {conflicts[1]} of the greedy ones, who ask {GREEDY_JOBS} times at\n"
        f"once for one case. Answers that were neither the case, nor a refusal, nor a conflict: {wrong}.\n"
        "Steps that were confirmed and are not in the\n"
        f"journal, or cases that do not stand at their last step: {len(lost)}.\n\n"
        "| Time, s | Memory of the server, MB |\n|---|---|\n"
    )
    for at in range(0, SECONDS + 1, 30):
        seconds, used = min(memory, key=lambda one: abs(one[0] - at))
        text += f"| {seconds:.0f} | {used:.0f} |\n"
    return text + f"\nHighest: {max(used for _, used in memory):.0f} MB.\n"


def row(name, sessions):
    counts = [one.confirmed for one in sessions]
    waits = sorted(wait for one in sessions for wait in one.waits_s) or [float("nan")]
    refused = sum(one.refused for one in sessions)
    return (
        f"| {name} | {sum(counts)} | {min(counts)} to {max(counts)} | {statistics.median(waits):.1f} "
        f"| {waits[int(0.95 * (len(waits) - 1))]:.1f} | {waits[-1]:.1f} | {refused} |\n"
    )


if __name__ == "__main__":
    main()

"""The HTTP door: one route for each thing that a reader can do, thin over the room."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, FastAPI, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from lesionlocator import __version__
from lesionlocator.case import Lesion
from lesionlocator.errors import Refused
from lesionlocator.formats.json_text import as_id
from lesionlocator.prompt import Line
from lesionlocator.server import bodies
from lesionlocator.server.brush import painted
from lesionlocator.server.jobs import Job, QueueFull
from lesionlocator.server.leave import ARCHIVE
from lesionlocator.server.reading import Reading
from lesionlocator.server.room import Room
from lesionlocator.server.store import Busy, Conflict, Full
from lesionlocator.server.uploads import Upload, receive_upload
from lesionlocator.server.wire import mask_bytes, scan_bytes

_PAGE = Path(__file__).parent / "page"
_REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
Session = Annotated[str, Header(alias="X-Session", max_length=64, pattern=r"^[A-Za-z0-9_-]*$")]

_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                    "required": ["files"],
                }
            }
        },
    }
}

routes = APIRouter(prefix="/api")


def explain(problem: Exception) -> dict[str, Any]:
    """An exception in a job, in the words of the page."""
    if isinstance(problem, Refused):
        return {"found": problem.found, "needed": problem.needed, "do": problem.do}
    if isinstance(problem, Conflict):
        found = f"the case was changed in another window ({problem.action})"
        return {
            "found": found,
            "needed": "the case as it is now",
            "do": "look at it again",
            "revision": problem.current,
        }
    if isinstance(problem, Full | OSError):
        return {"found": str(problem), "needed": "room on the disk", "do": "make room and try again"}
    if isinstance(problem, Busy | QueueFull):
        return {"found": "the server is busy", "needed": "a little patience", "do": "try again in some seconds"}
    if isinstance(problem, MemoryError):
        return {"found": "too little memory for this", "needed": "more free memory", "do": "close other programs"}
    return {
        "found": f"an error of the program ({type(problem).__name__}: {str(problem)[:200]})",
        "needed": "none: this is a defect",
        "do": "report it, with what you did",
    }


_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (Refused, 422),
    (Conflict, 409),
    (QueueFull, 503),
    (Busy, 503),
    (Full, 507),
    (OSError, 507),
)


def make_app(room: Room) -> FastAPI:
    """The application of a room. Wrap it in a `Guard` before it is served."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncGenerator[None]:
        yield
        room.close()

    app = FastAPI(
        title="lesionlocator",
        version=__version__,
        summary="Outline lesions in scans, follow them, check them, and take the result away.",
        description="Points are LPS millimetres. A change names the `revision` that the caller has seen and is refused "
        "with 409 when someone else was faster. What takes a while is a job with events (`/api/jobs/ID/events`). "
        "Errors have `error.found`, `error.needed` and `error.do`.",
        docs_url="/api/docs",
        openapi_url="/api/openapi.json",
        redoc_url=None,
        lifespan=life,
    )
    app.state.room = room
    for kind, status in _STATUS:
        app.add_exception_handler(kind, partial(_refused, status))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ClientDisconnect, _left)
    app.include_router(routes)
    from lesionlocator.server.remote import remote_routes

    app.include_router(remote_routes(room))
    _serve_page(app)
    return app


def _refused(status: int, _: Request, problem: Exception) -> Response:
    headers = {"Retry-After": "3"} if status == 503 else {}
    said = explain(problem)
    body = {"error": said, "detail": f"{said['found']}; {said['do']}"}
    return JSONResponse(body, status, headers)


def _invalid(_: Request, problem: Exception) -> Response:
    errors = problem.errors() if isinstance(problem, RequestValidationError) else []
    where = "; ".join(f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in errors[:5])
    error = {"found": f"a request that does not fit ({where})", "needed": "what /api/docs says", "do": "correct it"}
    return JSONResponse({"error": error, "detail": where}, 422)


def _left(_: Request, __: Exception) -> Response:
    """The answer to nobody: the client went away while it was sending."""
    return Response(status_code=499)


def _room(request: Request) -> Room:
    return request.app.state.room


# What there is --------------------------------------------------------------------------------------------------------


@routes.get("/health")
def health() -> dict[str, str]:
    """Whether the server is up; needs no token."""
    return {"status": "ok"}


@routes.get("/about")
def about(request: Request) -> dict[str, Any]:
    """Versions, the model with its licence, and how busy the server is."""
    room = _room(request)
    card = room.segmenter.card
    return {
        "version": __version__,
        "model": {"id": card.id, "title": card.title, "licence": card.licence},
        "waiting_jobs": room.queue.waiting,
        "open_scans_mb": round(room.shelf.open_bytes / 1e6),
        "upload_mb": room.settings.upload_mb,
    }


@routes.get("/cases")
def list_cases(request: Request) -> list[dict[str, Any]]:
    """The cases that can be opened."""
    return [
        {"id": case.id, "title": case.title, "scans": [path.name for path in case.scans]}
        for case in _room(request).cases()
    ]


@routes.get("/cases/{case_id}")
def open_case(request: Request, case_id: str) -> dict[str, Any]:
    """A case as it stands; opened if it never was."""
    return _room(request).open(case_id)


@routes.get("/cases/{case_id}/journal")
def read_journal(request: Request, case_id: str) -> list[dict[str, Any]]:
    """Everything that was done to a case, undone steps too."""
    room = _room(request)
    room.reading(case_id)
    return room.store.journal(case_id)


@routes.get("/cases/{case_id}/scans/{scan}/image.nii")
def read_scan(request: Request, case_id: str, scan: bodies.ScanIndex) -> Response:
    """The voxels of a scan, as NIfTI."""
    volume = _room(request).volume(case_id, scan)
    size, pieces = scan_bytes(volume)
    headers = {"Content-Length": str(size), "Cache-Control": "private, max-age=3600"}
    # What a viewer cannot tell from voxels: which windows fit, and what the numbers mean.
    headers |= {"X-Modality": volume.modality, "X-Unit": volume.unit}
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


@routes.get("/cases/{case_id}/scans/{scan}/lesions/{lesion_id}/outline.nii")
def read_outline(request: Request, case_id: str, scan: bodies.ScanIndex, lesion_id: str) -> Response:
    """The outline of a lesion, as NIfTI: its crop, in its place."""
    _, reading = _room(request).reading(case_id)
    mask = reading.lesion((scan, lesion_id)).mask
    if mask is None:
        return JSONResponse({"error": {"found": "no outline", "needed": "one", "do": "outline the lesion"}}, 404)
    return Response(mask_bytes(mask), media_type="application/octet-stream")


@routes.post("/cases/{case_id}/place")
def find_place(request: Request, case_id: str, body: bodies.PlaceBody) -> dict[str, Any]:
    """The same place in another scan; null as long as the two were not brought together."""
    return {"at": _room(request).counterpart(case_id, body.scan, body.to, body.at)}


# Steps ----------------------------------------------------------------------------------------------------------------


def _edit(
    request: Request, case_id: str, body: bodies.AtRevision, change: Callable[[Reading], Reading], *, action: str
) -> dict[str, Any]:
    session = request.headers.get("x-session", "")
    return _room(request).edit(case_id, body.revision, change, action=action, session=session)


@routes.post("/cases/{case_id}/decide")
def decide(request: Request, case_id: str, body: bodies.DecideBody, session: Session = "") -> dict[str, Any]:
    """A reader accepts a lesion, rejects it (it is gone), or removes it (it never was one)."""
    place = (body.scan, body.lesion_id)
    steps: dict[str, Callable[[Reading], Reading]] = {
        "accept": lambda reading: reading.accepted(place),
        "reject": lambda reading: reading.rejected(place),
        "remove": lambda reading: reading.removed(place),
    }
    return _edit(request, case_id, body, steps[body.say], action=f"{body.say} lesion {body.lesion_id}")


@routes.post("/cases/{case_id}/relate")
def relate(request: Request, case_id: str, body: bodies.RelateBody, session: Session = "") -> dict[str, Any]:
    """A reader says that a lesion merged into another one, or is a part of what another one was."""

    def change(reading: Reading) -> Reading:
        if body.say == "merged_into":
            return reading.merged(body.scan, body.lesion_id, body.other_id)
        return reading.split_from((body.scan, body.lesion_id), body.other_id)

    action = f"lesion {body.lesion_id} {body.say.replace('_', ' ')} {body.other_id}"
    return _edit(request, case_id, body, change, action=action)


@routes.post("/cases/{case_id}/note")
def note(request: Request, case_id: str, body: bodies.NoteBody, session: Session = "") -> dict[str, Any]:
    """A remark beside a lesion."""
    place = (body.scan, body.lesion_id)
    action = f"note on lesion {body.lesion_id}"
    return _edit(request, case_id, body, lambda reading: reading.noted(place, body.note), action=action)


@routes.post("/cases/{case_id}/measure")
def measure(request: Request, case_id: str, body: bodies.MeasureBody, session: Session = "") -> dict[str, Any]:
    """A diameter set by hand, or taken away."""
    line: Line | None = None if body.line is None else body.line.prompt()
    place = (body.scan, body.lesion_id)
    action = f"diameter of lesion {body.lesion_id}"
    return _edit(request, case_id, body, lambda reading: reading.measured(place, line), action=action)


@routes.post("/cases/{case_id}/paint")
def paint(request: Request, case_id: str, body: bodies.StrokeBody, session: Session = "") -> dict[str, Any]:
    """A stroke of the brush; one that adds may begin a new lesion."""
    place = (body.scan, as_id(body.lesion_id, "the request"))

    def change(reading: Reading) -> Reading:
        reading.refuse_unknown_scan(body.scan)
        known = reading.case.at(place)
        lesion = Lesion(body.lesion_id) if known is None and body.adds else reading.lesion(place)
        geometry = reading.case.timepoints[body.scan].geometry
        points = np.array(body.points, float)
        return reading.outlined(body.scan, painted(lesion, geometry, points, radius_mm=body.radius_mm, adds=body.adds))

    return _edit(request, case_id, body, change, action=f"painted lesion {body.lesion_id}")


@routes.post("/cases/{case_id}/undo")
def undo(request: Request, case_id: str, body: bodies.AtRevision, session: Session = "") -> dict[str, Any]:
    """One step back."""
    return _room(request).undo(case_id, body.revision, session)


@routes.post("/cases/{case_id}/redo")
def redo(request: Request, case_id: str, body: bodies.AtRevision, session: Session = "") -> dict[str, Any]:
    """One step forward again."""
    return _room(request).redo(case_id, body.revision, session)


# Jobs -----------------------------------------------------------------------------------------------------------------


@routes.post("/cases/{case_id}/outline", status_code=202)
def outline(request: Request, case_id: str, body: bodies.OutlineBody, session: Session = "") -> dict[str, Any]:
    """A job: a lesion outlined from its prompts. Its answer is the case."""
    prompts = tuple(prompt.prompt() for prompt in body.prompts)
    place = (body.scan, as_id(body.lesion_id, "the request"))
    return _room(request).outline(case_id, place, prompts, revision=body.revision, session=session).to_json()


@routes.post("/cases/{case_id}/correct", status_code=202)
def correct(request: Request, case_id: str, body: bodies.CorrectBody, session: Session = "") -> dict[str, Any]:
    """A job: the outline that a lesion has, painted or found, corrected at clicks. Its answer is the case."""
    clicks = tuple(click.prompt() for click in body.clicks)
    place = (body.scan, as_id(body.lesion_id, "the request"))
    return _room(request).correct(case_id, place, clicks, revision=body.revision, session=session).to_json()


@routes.post("/cases/{case_id}/outline-asked", status_code=202)
def outline_asked(request: Request, case_id: str, body: bodies.AtRevision, session: Session = "") -> dict[str, Any]:
    """A job: every lesion that came with prompts outlined. Its answer is the case."""
    return _room(request).outline_asked(case_id, revision=body.revision, session=session).to_json()


@routes.post("/cases/{case_id}/follow", status_code=202)
def follow(request: Request, case_id: str, body: bodies.AtRevision, session: Session = "") -> dict[str, Any]:
    """A job: all lesions followed through the later scans. Its answer is the case."""
    return _room(request).follow(case_id, revision=body.revision, session=session).to_json()


@routes.post("/cases/{case_id}/align", status_code=202)
def align(request: Request, case_id: str, body: bodies.AlignBody, session: Session = "") -> dict[str, Any]:
    """A job: two scans brought together, so that places can be found in both."""
    return _room(request).align(case_id, body.first, body.last, session=session).to_json()


@routes.post("/cases/{case_id}/export", status_code=202)
def export(request: Request, case_id: str, body: bodies.ExportBody, session: Session = "") -> dict[str, Any]:
    """A job: masks, tables, report and, where asked, standard objects. Its answer says where they are."""
    room = _room(request)
    return room.export(case_id, tuple(body.to), body.criteria, revision=body.revision, session=session).to_json()


@routes.get("/cases/{case_id}/result.zip")
def download(request: Request, case_id: str) -> Response:
    """What the last export wrote, as one archive."""
    return _exported(_room(request).result_folder(case_id) / ARCHIVE, "application/zip")


@routes.get("/cases/{case_id}/report.html")
def report(request: Request, case_id: str) -> Response:
    """The report of the last export."""
    path = _room(request).result_folder(case_id) / "report" / "report.html"
    return _exported(path, "text/html; charset=utf-8", {"Content-Security-Policy": _REPORT_POLICY})


def _exported(path: Path, kind: str, headers: dict[str, str] | None = None) -> Response:
    if not path.is_file():
        error = {"found": "nothing that was exported", "needed": "an export", "do": "export the case first"}
        return JSONResponse({"error": error}, 404)
    name = path.name if kind == "application/zip" else None
    return FileResponse(path, media_type=kind, headers=headers, filename=name)


@routes.post("/demo", status_code=202)
def make_demo(request: Request, session: Session = "") -> dict[str, Any]:
    """A job: the demo case, fetched and made. Its answer is the id of the case."""
    return _room(request).make_demo(session).to_json()


@routes.post("/uploads", openapi_extra=_UPLOAD)
async def upload(request: Request) -> dict[str, Any]:
    """A new case from uploaded scans (image files, or zip files of DICOM), oldest first by name."""
    try:
        async with request.form(max_files=200, max_fields=10) as form:
            files = [file for _, file in form.multi_items() if isinstance(file, Upload)]
            return {"id": await run_in_threadpool(receive_upload, _room(request), files)}
    except HTTPException as problem:
        raise Refused(
            found=f"a form that cannot be read ({problem.detail})", needed="files", do="try again"
        ) from problem


@routes.get("/jobs/{job_id}")
def read_job(request: Request, job_id: str) -> dict[str, Any]:
    """How far a job is."""
    return _room(request).job(job_id).to_json()


@routes.delete("/jobs/{job_id}")
def cancel_job(request: Request, job_id: str) -> dict[str, Any]:
    """A job that is not wanted any more."""
    job = _room(request).job(job_id)
    job.cancel()
    return job.to_json()


@routes.get("/jobs/{job_id}/events")
async def read_events(request: Request, job_id: str) -> StreamingResponse:
    """Lines of progress as they come, then the job itself (server-sent events `progress` and `end`)."""
    job = _room(request).job(job_id)
    return StreamingResponse(_events(job), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(job: Job) -> AsyncIterator[bytes]:
    told = 0
    quiet = 0
    while True:
        lines, over = job.lines[told:], job.is_over
        for line in lines:
            yield f"event: progress\ndata: {json.dumps(line)}\n\n".encode()
        told += len(lines)
        if over and told == len(job.lines):
            break
        quiet = 0 if lines else quiet + 1
        if quiet >= 500:
            quiet = 0
            yield b": still there\n\n"
        await asyncio.sleep(0.02)
    yield f"event: end\ndata: {json.dumps(job.to_json())}\n\n".encode()


def _serve_page(app: FastAPI) -> None:
    """The page's files, which were made when the package was built; in a checkout `make page` makes them."""

    @app.get("/", include_in_schema=False)
    def index() -> Response:
        path = _PAGE / "index.html"
        if path.is_file():
            return FileResponse(path, headers={"Cache-Control": "no-cache"})
        text = "The page has not been built: run `make page` in the checkout (it needs node and npm)."
        return Response(text, 503, media_type="text/plain")

    @app.get("/assets/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        path = _PAGE / "assets" / name
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name) or not path.is_file():
            return Response("not found", 404, media_type="text/plain")
        return FileResponse(path, headers={"Cache-Control": "public, max-age=31536000, immutable"})

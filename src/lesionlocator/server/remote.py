"""The protocol of the nnInteractive client, so that viewers which speak it can use our models by changing an address.

Written from the client (package `nninteractive-client`, Apache-2.0). Arrays come as (1, x, y, z), or in any other order
that the viewer keeps; they are taken as (d, h, w) with the spacing that it gives, and answered in the same order.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Header, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from lesionlocator import __version__
from lesionlocator.errors import Refused
from lesionlocator.geometry import Geometry
from lesionlocator.prompt import Box, Click, Prompt, Shape
from lesionlocator.segment import Prepared, Segmenter
from lesionlocator.server.arrays import pack_array, unpack_array
from lesionlocator.server.jobs import Job, QueueFull, State
from lesionlocator.server.room import Room
from lesionlocator.volume import Mask, Volume

IDLE_S = 600.0
LIVE_S = 60.0
_META, _LEASE = "X-Meta", "X-Lease-Token"
_JOB_S = 120.0


class Gone(Exception):
    """The lease is not known, or has run out."""


@dataclass(eq=False)
class Seat:
    """One viewer's session: its scan, what was pointed at, and the outline as the viewer has it."""

    token: str
    used: float
    heard: float
    prepared: Prepared | None = None
    prompts: tuple[Prompt, ...] = ()
    outline: np.ndarray | None = None
    past: list[tuple[tuple[Prompt, ...], np.ndarray]] = field(default_factory=list[Any])
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def scan(self) -> Prepared:
        if self.prepared is None:
            raise Refused(found="no image", needed="one", do="send the image first (set_image)")
        return self.prepared


class Seats:
    """The sessions of a server: so many at once, each gone when it is idle or its viewer is."""

    def __init__(self, most: int, now: Callable[[], float] = time.monotonic) -> None:
        self._most, self._now = most, now
        self._seats: dict[str, Seat] = {}
        self._lock = threading.Lock()

    def claim(self) -> Seat:
        """A new session.

        Raises:
            QueueFull: As many are taken as there are.
        """
        with self._lock:
            self._clear()
            if len(self._seats) >= self._most:
                raise QueueFull
            seat = Seat(secrets.token_urlsafe(16), self._now(), self._now())
            self._seats[seat.token] = seat
            return seat

    def seat(self, token: str | None, *, acts: bool = True) -> Seat:
        """The session of a lease. Acting keeps it from becoming idle; a heartbeat only shows that its viewer lives.

        Raises:
            Gone: It has run out.
        """
        with self._lock:
            self._clear()
            found = self._seats.get(token or "")
            if found is None:
                raise Gone
            found.heard = self._now()
            found.used = self._now() if acts else found.used
            return found

    def left_s(self, seat: Seat) -> float:
        """Seconds until the session ends as idle."""
        return max(0.0, IDLE_S - (self._now() - seat.used))

    def release(self, token: str | None) -> None:
        """Ends a session; one that has ended already is let be."""
        with self._lock:
            self._seats.pop(token or "", None)

    def _clear(self) -> None:
        now = self._now()
        for token, seat in list(self._seats.items()):
            if now - seat.used > IDLE_S or now - seat.heard > LIVE_S:
                del self._seats[token]


def remote_routes(room: Room) -> APIRouter:
    """The routes of the protocol."""
    routes = APIRouter(tags=["nnInteractive clients"])
    seats = Seats(room.settings.sessions)
    desk = _Desk(room, seats)
    add: Callable[..., Any] = routes.add_api_route
    add("/healthz", lambda: {"status": "ok"}, methods=["GET"])
    add("/capabilities", desk.capabilities, methods=["GET"])
    add("/lease_status", desk.lease_status, methods=["GET"])
    for name in ("claim", "release", "heartbeat", "reset_interactions", "undo"):
        add(f"/{name}", getattr(desk, name), methods=["POST"], response_model=None)
    for name in ("set_image", "add_scribble_interaction", "add_lasso_interaction", "add_initial_seg_interaction"):
        add(f"/{name}", getattr(desk, name), methods=["POST"], response_model=None)
    for name in ("set_target_buffer", "set_do_autozoom", "predict", "add_bbox_interaction", "add_point_interaction"):
        add(f"/{name}", getattr(desk, name), methods=["POST"], response_model=None)
    return routes


class _Desk:
    """What each route does."""

    def __init__(self, room: Room, seats: Seats) -> None:
        self._room, self._seats = room, seats

    # The session ---------------------------------------------------------------------------------------------------

    def claim(self) -> Response:
        """A lease."""
        try:
            seat = self._seats.claim()
        except QueueFull:
            return JSONResponse({"detail": "every session of this server is taken; try again later"}, 503)
        answer = {"lease_token": seat.token, "idle_timeout_seconds": IDLE_S, "liveness_timeout_seconds": LIVE_S}
        return JSONResponse(answer)

    def release(self, lease: str | None = Header(None, alias=_LEASE)) -> dict[str, str]:
        """The end of a lease."""
        self._seats.release(lease)
        return {"status": "released"}

    def heartbeat(self, lease: str | None = Header(None, alias=_LEASE)) -> Response:
        """The viewer lives."""
        return self._answered(lease, lambda seat: {"remaining_seconds": self._seats.left_s(seat)}, acts=False)

    def lease_status(self, lease: str | None = Header(None, alias=_LEASE)) -> Response:
        """How long the lease lasts."""

        def tell(seat: Seat) -> dict[str, float]:
            return {"remaining_seconds": self._seats.left_s(seat), "idle_timeout_seconds": IDLE_S}

        return self._answered(lease, tell, acts=False)

    def capabilities(self) -> dict[str, Any]:
        """What is understood: boxes, points and a first outline; scribbles and lassos are not."""
        kinds = {"points": True, "bbox": True, "scribbles": False, "lasso": False, "bbox3d": True}
        return {
            "supported_interactions": kinds,
            "channel_mapping": {"prev_seg": 0, "bbox": [1, 2], "lasso": [1, 2], "points": [3, 4], "scribbles": [5, 6]},
            "num_interaction_channels": 7,
            "supports_initial_label": True,
            "supports_zero_shot_label_refinement": False,
            "preferred_scribble_thickness": [1, 1, 1],
            "interaction_decay": 1.0,
            "inference_session_version": f"lesionlocator-{__version__}",
            "license": self._room.segmenter.card.licence,
            "supports_undo": True,
            "do_autozoom": True,
        }

    # The scan ------------------------------------------------------------------------------------------------------

    async def set_image(self, request: Request, lease: str | None = Header(None, alias=_LEASE)) -> Response:
        """A new scan; what was pointed at before is forgotten."""
        body, meta = await request.body(), _meta(request)

        def take(seat: Seat) -> dict[str, Any]:
            array = unpack_array(body, self._room.settings.upload_mb * 1_000_000)
            volume = _volume(array, meta.get("image_properties"), self._room.settings.modality)
            seat.prepared = self._room.segmenter.prepare(volume)
            seat.prompts, seat.past = (), []
            seat.outline = np.zeros(volume.array.shape, np.uint8)
            return {"original_image_shape": list(array.shape)}

        return await run_in_threadpool(self._answered, lease, take)

    async def set_target_buffer(self, request: Request, lease: str | None = Header(None, alias=_LEASE)) -> Response:
        """Where the viewer keeps the outline: it has to be as large as the scan."""
        wanted = await _json(request)

        def check(seat: Seat) -> dict[str, Any]:
            shape = tuple(seat.scan.volume.array.shape)
            if wanted.get("shape") is None or tuple(wanted["shape"]) != shape:
                raise Refused(found=f"a buffer of {wanted.get('shape')}", needed=str(shape), do="use the image's shape")
            return {"status": "ok"}

        return self._answered(lease, check)

    async def set_do_autozoom(self, request: Request, lease: str | None = Header(None, alias=_LEASE)) -> Response:
        """Accepted: our models choose their own zoom in any case."""
        await request.body()
        return self._answered(lease, lambda _: {"status": "ok"})

    # Prompts -------------------------------------------------------------------------------------------------------

    def reset_interactions(self, lease: str | None = Header(None, alias=_LEASE)) -> Response:
        """The next lesion."""

        def reset(seat: Seat) -> dict[str, str]:
            seat.prompts, seat.past = (), []
            seat.outline = np.zeros(seat.scan.volume.array.shape, np.uint8)
            return {"status": "ok"}

        return self._answered(lease, reset)

    def undo(self, lease: str | None = Header(None, alias=_LEASE)) -> Response:
        """The last prompt taken back."""

        def back(seat: Seat) -> Response:
            if not seat.past:
                return _changed(False, None, None)
            before = seat.outline
            seat.prompts, after = seat.past.pop()
            seat.outline = after
            return _difference(before, after)

        return self._answered(lease, back)

    async def predict(self, request: Request, lease: str | None = Header(None, alias=_LEASE)) -> Response:
        """The outline of all prompts so far."""
        await request.body()
        return await run_in_threadpool(self._answered, lease, self._outline)

    async def add_point_interaction(self, request: Request, lease: str | None = Header(None, alias=_LEASE)) -> Response:
        """A click, in voxels."""
        said = await _json(request)

        def make(seat: Seat) -> Prompt:
            at = _numbers(said.get("coordinates"), 3)
            return Click(seat.scan.volume.geometry.index_to_world(at[None])[0], bool(said.get("include_interaction")))

        return await run_in_threadpool(self._answered, lease, partial(self._add, make, _runs(said)))

    async def add_bbox_interaction(self, request: Request, lease: str | None = Header(None, alias=_LEASE)) -> Response:
        """A box, half-open in voxels; one voxel thick it is a box on a slice."""
        said = await _json(request)

        def make(seat: Seat) -> Prompt:
            if not said.get("include_interaction", True):
                raise Refused(found="a box to leave out", needed="a box round the lesion", do="use a negative click")
            bounds = _numbers(said.get("bbox_coords"), 6).reshape(3, 2)
            if not np.all(bounds[:, 0] < bounds[:, 1]):
                raise Refused(found="a box without extent", needed="each upper bound above its lower", do="draw it")
            return Box.from_index(bounds[:, 0], bounds[:, 1], seat.scan.volume.geometry)

        return await run_in_threadpool(self._answered, lease, partial(self._add, make, _runs(said)))

    async def add_initial_seg_interaction(
        self, request: Request, lease: str | None = Header(None, alias=_LEASE)
    ) -> Response:
        """An outline that is there already, to be corrected."""
        body, meta = await request.body(), _meta(request)

        def make(seat: Seat) -> Prompt:
            array = unpack_array(body, self._room.settings.upload_mb * 1_000_000)
            geometry = seat.scan.volume.geometry
            if array.shape != geometry.shape or not array.any():
                raise Refused(found=f"an outline of {array.shape}", needed=f"{geometry.shape}, not empty", do="draw it")
            seat.outline = (array != 0).astype(np.uint8)
            return Shape(Mask.from_array(array, geometry))

        return await run_in_threadpool(self._answered, lease, partial(self._add, make, _runs(meta, False)))

    async def add_scribble_interaction(
        self, request: Request, lease: str | None = Header(None, alias=_LEASE)
    ) -> Response:
        """Not understood."""
        return await self._not_understood(request, lease, "scribbles")

    async def add_lasso_interaction(self, request: Request, lease: str | None = Header(None, alias=_LEASE)) -> Response:
        """Not understood."""
        return await self._not_understood(request, lease, "lassos")

    async def _not_understood(self, request: Request, lease: str | None, what: str) -> Response:
        await request.body()

        def refuse(_: Seat) -> None:
            raise Refused(found=what, needed="points, a box or a first outline", do="use one of these")

        return self._answered(lease, refuse)

    def _add(self, make: Callable[[Seat], Prompt], runs: bool, seat: Seat) -> Response:
        """One more prompt, and the outline of all of them."""
        before = (seat.prompts, _outline_of(seat).copy())
        prompt = make(seat)
        kept = tuple(one for one in seat.prompts if isinstance(one, Click) or type(one) is not type(prompt))
        seat.prompts = (*kept, prompt)
        seat.past.append(before)
        if not runs:
            return _changed(False, None, None)
        try:
            return self._outline(seat)
        except BaseException:
            seat.prompts, seat.outline = seat.past.pop()
            raise

    def _outline(self, seat: Seat) -> Response:
        """One job in the server's queue, so that every viewer has its turn."""
        if not seat.prompts:
            return _changed(False, None, None)
        segmenter: Segmenter = self._room.segmenter
        job = Job(lambda _: segmenter.outline(seat.scan, [seat.prompts])[0], "outline", seat.token)
        self._room.queue.add(job)
        if not job.wait(_JOB_S) or job.state is not State.DONE:
            job.cancel()
            said = job.error or {"found": "no answer in time", "needed": "a free server", "do": "try again"}
            raise Refused(found=said["found"], needed=said["needed"], do=said["do"])
        if job.answer.mask is None:
            raise Refused(found=f"no outline: {job.answer.reason}", needed="another prompt", do="point at the lesion")
        before = _outline_of(seat)
        after = job.answer.mask.on(seat.scan.volume.geometry).astype(np.uint8)
        seat.outline = after
        return _difference(before, after)

    def _answered(self, lease: str | None, act: Callable[[Seat], Any], *, acts: bool = True) -> Response:
        try:
            seat = self._seats.seat(lease, acts=acts)
        except Gone:
            return JSONResponse({"detail": "the lease has run out; claim a new one"}, 410)
        if not acts:
            return JSONResponse(act(seat))
        with seat.lock:
            answer = act(seat)
        return answer if isinstance(answer, Response) else JSONResponse(answer)


def _outline_of(seat: Seat) -> np.ndarray:
    if seat.outline is None:
        raise Refused(found="no image", needed="one", do="send the image first (set_image)")
    return seat.outline


def _difference(before: np.ndarray | None, after: np.ndarray) -> Response:
    """The smallest box of voxels that changed, and what is in them now."""
    changed = after != 0 if before is None else after != before
    if not changed.any():
        return _changed(True, None, None)
    ranges = [np.flatnonzero(changed.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    box = [[int(found[0]), int(found[-1]) + 1] for found in ranges]
    inside = after[tuple(slice(low, high) for low, high in box)]
    return _changed(True, box, inside)


def _changed(ran: bool, box: list[list[int]] | None, inside: np.ndarray | None) -> Response:
    meta = json.dumps({"ran_prediction": ran, "bbox": box})
    body = b"" if inside is None else pack_array(inside)
    return Response(body, media_type="application/octet-stream", headers={_META: meta})


def _volume(array: np.ndarray, properties: Any, modality: Any) -> Volume:
    from lesionlocator.formats.intensities import settle_modality

    if array.ndim != 4 or array.shape[0] != 1 or min(array.shape) < 1 or array.dtype.kind not in "biuf":
        raise Refused(found=f"an image of {array.shape}, {array.dtype}", needed="(1, x, y, z) numbers", do="send one")
    spacing = properties.get("spacing") if isinstance(properties, dict) else None
    steps = np.ones(3) if spacing is None else _numbers(spacing, 3)
    if np.any(steps <= 0):
        raise Refused(found=f"a spacing of {steps.tolist()}", needed="three lengths in mm", do="send it")
    voxels = array[0].astype(np.float32) if array.dtype.name not in {"int16", "float32"} else array[0]
    if not np.isfinite(voxels).all():
        raise Refused(found="an image with values that are no numbers", needed="numbers", do="clean the image")
    d, h, w = (int(n) for n in voxels.shape)
    settled, warnings = settle_modality(voxels, modality)
    return Volume(voxels, Geometry((d, h, w), np.diag([*steps, 1.0])), settled, "remote", warnings)


def _numbers(values: Any, count: int) -> np.ndarray:
    try:
        found = np.array(values, float).reshape(-1)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if len(found) != count or not np.isfinite(found).all() or np.abs(found).max() > 1e6:
        raise Refused(found=f"{str(values)[:60]}", needed=f"{count} numbers", do="send them in the image's voxels")
    return found


def _runs(said: dict[str, Any], default: bool = True) -> bool:
    return bool(said.get("run_prediction", default))


def _meta(request: Request) -> dict[str, Any]:
    return _object(request.headers.get(_META, "{}"))


async def _json(request: Request) -> dict[str, Any]:
    return _object((await request.body()).decode("utf-8", "replace"))


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(found="a request that is no JSON object", needed="one", do="see the client's protocol")
    return found

"""Who may ask: a token, the server's own pages, and bodies of a bearable size."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "lesionlocator_token"
OPEN_PATHS = frozenset({"/api/health", "/healthz"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    # NiiVue compiles its shaders and reads images from blobs; nothing may come from anywhere else.
    b"content-security-policy": b"default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    b"connect-src 'self' blob: data:; worker-src 'self' blob:; script-src 'self' 'wasm-unsafe-eval'; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
}
_PAGE_HEADERS = {name: value for name, value in _HEADERS.items() if name != b"content-security-policy"}


class TooLarge(Exception):
    """A body that is larger than it may be."""


class Guard:
    """Stands before the application: what it does not let through, no route ever sees.

    Args:
        app: The application.
        token: What a caller has to have: as a bearer key, as the cookie of the page, or once as `?token=`.
        hosts: Names by which the server may be called; any other is somebody else's page (DNS rebinding). Loopback
            names are always among them.
        upload_bytes: Largest body of an upload.
        body_bytes: Largest body of anything else.
    """

    def __init__(
        self, app: ASGIApp, *, token: str, hosts: frozenset[str], upload_bytes: int, body_bytes: int = 4_000_000
    ) -> None:
        self._app, self._token = app, token
        self._hosts = hosts | _LOOPBACK
        self._upload_bytes, self._body_bytes = upload_bytes, body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        limit = self._upload_bytes if _is_upload(scope["path"]) else self._body_bytes
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > limit:
            await _answer(send, 413, f"a body of {length[:20]} bytes", f"at most {limit}", "send less at once")
            return
        counted = _Counted(receive, limit)
        cookie = self._cookie(scope, headers)
        try:
            await self._app(scope, counted, _with_headers(send, scope["path"], cookie))
        except TooLarge:
            await _answer(send, 413, "a body that goes on and on", f"at most {limit} bytes", "send less at once")

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str, str, str] | None:
        host = _host(headers.get("host", ""))
        if host not in self._hosts:
            return 421, "a call by another name than this server's", "its own name or address", "use the address given"
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
        if foreign and (origin != "null" or scope["method"] not in _SAFE):
            return 403, "a call from another site's page", "this server's own page", "open the page from this server"
        if headers.get("sec-fetch-site", "none") == "cross-site" and scope["method"] not in _SAFE:
            return 403, "a call from another site's page", "this server's own page", "open the page from this server"
        if scope["path"] in OPEN_PATHS or self._is_known(scope, headers):
            return None
        return 401, "no token, or a wrong one", "the token that the server printed", "open the address it printed"

    def _is_known(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = [key.strip()] if scheme.lower() == "bearer" else []
        given += [_cookie_of(headers)] + parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        return any(secrets.compare_digest(one.encode(), self._token.encode()) for one in given if one)

    def _cookie(self, scope: Scope, headers: Mapping[str, str]) -> bytes | None:
        """Set when the page is opened by the printed address, so that the token need not stay in it."""
        if scope["path"] != "/" or _cookie_of(headers) == self._token:
            return None
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        return f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict{secure}".encode()


class _Counted:
    """Receives a body and stops when it grows beyond the limit, whatever its header said."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._left = receive, limit

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise TooLarge
        return message


def _with_headers(send: Send, path: str, cookie: bytes | None) -> Send:
    # A report is a page of its own, with its styles and pictures inside; it gets its own policy from its route.
    added = _PAGE_HEADERS if path.endswith(".html") else _HEADERS

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name for name, _ in message["headers"]}
            message["headers"] = [
                *message["headers"],
                *((name, value) for name, value in added.items() if name not in present),
                *([(b"set-cookie", cookie)] if cookie else []),
            ]
        await send(message)

    return sending


def _is_upload(path: str) -> bool:
    return path in {"/api/uploads", "/set_image", "/add_scribble_interaction", "/add_lasso_interaction"} or (
        path == "/add_initial_seg_interaction"
    )


def _host(value: str) -> str:
    """The name in a Host header, without its port."""
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.rpartition(":")[0] if ":" in value else value


def _cookie_of(headers: Mapping[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


async def _answer(send: Send, status: int, found: str, needed: str, do: str) -> None:
    error: dict[str, Any] = {"error": {"found": found, "needed": needed, "do": do}, "detail": f"{found}; {do}"}
    body = json.dumps(error).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

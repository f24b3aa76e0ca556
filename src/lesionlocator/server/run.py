"""The server started: folders checked, a token made, the address said, and everything closed at the end."""

from __future__ import annotations

import hashlib
import importlib
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lesionlocator.errors import Refused
from lesionlocator.server.settings import ServeSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

Say = Callable[[str], None]
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def run_server(folder: Path | None, settings: ServeSettings, say: Say = lambda _: None) -> str:
    """Serve until interrupted; gives the address that was served.

    Raises:
        Refused: A folder, port, certificate or model that cannot be used, or an extra that is missing.
    """
    _refuse_half_secure(settings)
    uvicorn = _uvicorn()
    root = (folder or Path()).resolve()
    if not root.is_dir():
        raise Refused(found=f"no folder {root}", needed="a folder with cases", do="check the path")
    token = settings.token or secrets.token_urlsafe(24)
    listening = _listen(settings)
    port = listening.getsockname()[1]
    scheme = "https" if settings.certificate else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{scheme}://{host}:{port}/?token={token}"
    state = settings.state or default_state(root)
    app = open_room([root], state, settings, token=token)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    say(f"cases from {root}; what you do is kept in {state}")
    say(f"open {address}")
    if settings.open:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    uvicorn.Server(config).run(sockets=[listening])
    return address


def open_room(roots: Sequence[Path], state: Path, settings: ServeSettings, *, token: str) -> ASGIApp:
    """The guarded application over some folders, ready to be served by any ASGI server."""
    from lesionlocator.server.app import explain, make_app
    from lesionlocator.server.guard import Guard
    from lesionlocator.server.room import Room

    room = Room(roots, state, settings, explain)
    hosts = frozenset({settings.host, socket.gethostname()} - {"0.0.0.0", "::"})
    return Guard(make_app(room), token=token, hosts=hosts, upload_bytes=settings.upload_mb * 1_000_000)


def default_state(root: Path) -> Path:
    """Where readings of the cases in a folder are kept: in the user's data, never among the scans."""
    from platformdirs import user_data_path

    name = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    return user_data_path("lesionlocator", appauthor=False) / "readings" / f"{root.name or 'root'}-{name}"


def _refuse_half_secure(settings: ServeSettings) -> None:
    if (settings.certificate is None) != (settings.key is None):
        raise Refused(
            found="a certificate without its key, or a key without its certificate",
            needed="both for TLS, or neither",
            do="add --certificate or --key",
        )
    if settings.host not in _LOOPBACK and settings.token is None:
        raise Refused(
            found=f"an address that others can reach ({settings.host}) and no token",
            needed="a token that you chose and pass on yourself",
            do="add --token, and --certificate and --key where the network is not yours alone",
        )
    if settings.token is not None and len(settings.token) < 8:
        raise Refused(found="a token of less than 8 characters", needed="a longer one", do="choose another")


def _uvicorn():  # noqa: ANN202 - a module
    try:
        import uvicorn

        importlib.import_module("fastapi")
    except ImportError as missing:
        raise Refused(
            found=f"no {missing.name}", needed="the extra `server`", do="pip install 'lesionlocator[server]'"
        ) from missing
    return uvicorn


def _listen(settings: ServeSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as problem:
        listening.close()
        raise Refused(
            found=f"port {settings.port} on {settings.host}, which cannot be used ({problem.strerror or problem})",
            needed="a free port",
            do="add --port with another number, or 0 for any",
        ) from problem
    return listening

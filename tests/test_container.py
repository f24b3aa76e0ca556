"""The container file: what it copies is there, and its steps, done without a builder, give a page that is served."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from container_steps import Yard, copies, ignored, read_stages, words_of

REPOSITORY = Path(__file__).resolve().parents[1]
FILE, RULES = REPOSITORY / "Containerfile", REPOSITORY / ".dockerignore"
TOKEN = "a-token-for-the-container"
NO_NETWORK = (
    "NewConnectionError",
    "name resolution",
    "Network is unreachable",
    "ConnectTimeout",
    "ENOTFOUND",
    "EAI_AGAIN",
)


@pytest.fixture(scope="module")
def stages():
    return read_stages(FILE)


def test_what_is_copied_from_the_checkout_is_there_and_is_sent_to_the_builder(stages):
    wanted = [path for stage in stages for source, what, _ in copies(stage) if source is None for path in what]
    assert {"src", "viewer", "pyproject.toml", "hatch_build.py"} <= set(wanted)
    for path in wanted:
        assert (REPOSITORY / path).exists(), path
        assert not ignored(path, RULES), path
    # Neither old builds nor what is private to a checkout goes along.
    for path in (".git", "tests", "docs", "viewer/node_modules", "src/lesionlocator/server/page", ".venv"):
        assert ignored(path, RULES), path


def test_what_the_build_of_the_wheel_reads_is_copied(stages):
    wheel = next(stage for stage in stages if stage.name == "wheel")
    copied = {path for _, what, _ in copies(wheel) for path in what}
    said = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (licences,) = re.findall(r"^license-files = \[(.*)\]$", said, re.MULTILINE)
    (readme,) = re.findall(r'^readme = "(.*)"$', said, re.MULTILINE)
    assert {readme, *re.findall(r'"([^"]+)"', licences)} <= copied


def test_stages_take_from_stages_before_them_and_images_have_no_address(stages):
    known: set[str] = set()
    for stage in stages:
        assert all(source in known for source, _, _ in copies(stage) if source is not None)
        assert re.fullmatch(r"[a-z]+:[\w.-]+", stage.image)
        known.add(stage.name)


def test_it_runs_as_nobody_in_particular_and_only_with_a_token(stages, tmp_path):
    last = stages[-1]
    (user,) = last.said("USER")
    assert user != "root"
    assert f"--create-home {user}" in " ".join(last.said("RUN"))
    name, *words = words_of(last.said("ENTRYPOINT")[0])
    assert name == "lesionlocator"
    assert words[words.index("--port") + 1] == last.said("EXPOSE")[0]
    assert f":{last.said('EXPOSE')[0]}/api/health" in last.said("HEALTHCHECK")[0]
    said = serve(words, tmp_path).communicate(timeout=240)[1]
    assert "no token" in said


def serve(words: list[str], folder: Path, *more: str, package: Path | None = None) -> subprocess.Popen:
    """The entry point's words with folders of this machine in the place of the container's."""
    for name in ("cases", "state"):
        (folder / name).mkdir(exist_ok=True)
    words = [str(folder / word.lstrip("/")) if word in ("/cases", "/state") else word for word in words]
    start = "from lesionlocator.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(package or REPOSITORY / "src")}
    return subprocess.Popen(
        [sys.executable, "-c", start, *words, *more], env=environment, cwd=folder, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def installed(stages, tmp_path_factory):
    """The page built, the wheel built with it, and the wheel alone in a folder: the steps of the first two stages."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")
    yard = Yard(REPOSITORY, tmp_path_factory.mktemp("yard"))
    for stage in stages[:-1]:
        try:
            yard.run(stage)
        except subprocess.CalledProcessError as problem:
            if any(sign in problem.stderr for sign in NO_NETWORK):
                pytest.skip("needs a package index, and none can be reached")
            raise AssertionError(problem.stderr) from problem
    (wheel,) = yard.at("wheel", "/wheels").glob("lesionlocator-*.whl")
    package = yard.folder / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", package, wheel]
    subprocess.run(pip, check=True, capture_output=True)
    return package


def ask(port: int, path: str, token: str = TOKEN) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


@pytest.mark.slow
def test_its_steps_done_by_hand_give_a_page_that_is_served(stages, installed, tmp_path):
    if importlib.util.find_spec("fastapi") is None:
        pytest.skip("needs the extra `server`")
    assert (installed / "lesionlocator" / "server" / "page" / "index.html").is_file()
    words = words_of(stages[-1].said("ENTRYPOINT")[0])[1:]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words[words.index("--port") + 1] = str(port)
    server = serve(words, tmp_path, "--token", TOKEN, package=installed)
    try:
        until = time.monotonic() + 240
        while time.monotonic() < until and server.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        assert ask(port, "/api/health", "")[0] == 200
        assert ask(port, "/api/cases", "")[0] == 401
        assert ask(port, "/api/cases") == (200, b"[]")
        status, page = ask(port, "/")
        assert status == 200
        (script,) = re.findall(rb'src="(/?assets/main[^"]+)"', page)
        status, content = ask(port, f"/{script.decode().lstrip('/')}")
        assert (status, len(content) > 20_000) == (200, True)
    finally:
        server.terminate()
        server.communicate(timeout=120)


@pytest.mark.slow
def test_it_is_built_where_there_is_a_builder():
    builders = [name for name in ("podman", "docker") if shutil.which(name)]
    ready = [
        name for name in builders if not subprocess.run([name, "info"], capture_output=True, check=False).returncode
    ]
    if not ready:
        pytest.skip("needs docker or podman that can run")
    built = [ready[0], "build", "-q", "-f", FILE, "-t", "lesionlocator-test", REPOSITORY]
    done = subprocess.run(built, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stderr
    said = subprocess.run([ready[0], "run", "--rm", "lesionlocator-test"], capture_output=True, text=True, check=False)
    assert "no token" in said.stderr

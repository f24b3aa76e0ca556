"""What every test has: one thread a worker, no windows, property tests that repeat themselves, shared scans if any."""

from __future__ import annotations

import locale
import os
import shutil
from pathlib import Path

# Before numpy, SimpleITK and matplotlib are imported: two workers on two cores should not start four threads each.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"
LOCALE = locale.setlocale(locale.LC_CTYPE)

settings.register_profile(
    "house", deadline=None, derandomize=True, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
# `pytest --hypothesis-profile=explore` looks for new counterexamples.
settings.register_profile("explore", parent=settings.get_profile("house"), derandomize=False, max_examples=1000)
settings.load_profile("house")


def pytest_addoption(parser):
    parser.addoption(
        "--require-servers",
        action="store_true",
        help="fail, instead of skipping, where a server, browser or checker of Debian, or the page, is missing",
    )


@pytest.fixture(scope="session")
def debian_program(request):
    """Where a program of Debian is; the test is skipped where it is not installed, unless it has to be there."""

    def find(name: str, package: str) -> str:
        found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
        if found is None:
            reason = f"needs {name}: `apt-get install {package}`"
            (pytest.fail if request.config.getoption("--require-servers") else pytest.skip)(reason)
        return found

    return find


@pytest.fixture(scope="session")
def built_page(request):
    """The folder of the reading room's page; the test is skipped where it was not built, unless it has to be there."""
    page = REPOSITORY / "src" / "lesionlocator" / "server" / "page"
    if not (page / "index.html").is_file():
        reason = "needs the page: `make page` (node and npm)"
        (pytest.fail if request.config.getoption("--require-servers") else pytest.skip)(reason)
    return page


@pytest.fixture(scope="module")
def browser(debian_program):
    """A real Chromium, without a window."""
    drivers = pytest.importorskip("playwright.sync_api", reason="needs playwright (in the extra `test`)")
    with drivers.sync_playwright() as driver:
        program = debian_program("chromium", "chromium")
        opened = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture
def context(browser):
    """A reader's browser as it was bought: no cookies, and a dark desktop."""
    opened = browser.new_context(viewport={"width": 1400, "height": 850}, color_scheme="dark")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that these tests belong to."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans beside the repository; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip("needs the shared scans, which are not part of the repository")
    return SHARED


def pytest_collection_modifyitems(items):
    """The clean installation first: one worker sets it up while the other begins with the second half of the tests."""
    items.sort(key=lambda item: item.path.name != "test_wheel.py")


def pytest_runtest_teardown():
    """Back to the locale of the start: ITK leaves the process in that of C when a JPEG 2000 file is damaged."""
    locale.setlocale(locale.LC_CTYPE, LOCALE)

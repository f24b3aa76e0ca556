"""The package as a user gets it: built, installed alone into a clean environment, and tried there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import lesionlocator

REPOSITORY = Path(__file__).resolve().parents[1]
UNREACHABLE = ("NewConnectionError", "Temporary failure in name resolution", "Network is unreachable", "ConnectTimeout")
WITH_EXTRAS = (
    "lesionlocator.network",
    "lesionlocator.published",
    "lesionlocator.server.app",
    "lesionlocator.server.bodies",
    "lesionlocator.server.guard",
    "lesionlocator.server.remote",
    "lesionlocator.train.confidence",
    "lesionlocator.train.loop",
    "lesionlocator.train.export",
    "lesionlocator.train.loss",
    "lesionlocator.train.memory",
    "lesionlocator.train.muon",
    "lesionlocator.train.pair_store",
    "lesionlocator.train.run",
)
HEAVY = ("torch", "SimpleITK", "matplotlib", "nibabel", "pydicom", "scipy", "skimage")

pytestmark = pytest.mark.slow


def run(*command, **options):
    words = [str(part) for part in command]
    return subprocess.run(words, capture_output=True, text=True, encoding="utf-8", check=False, **options)


def pip(python, *arguments):
    done = run(python, "-m", "pip", "--disable-pip-version-check", *arguments)
    if done.returncode and any(sign in done.stderr for sign in UNREACHABLE):
        pytest.skip("needs a package index, and none can be reached")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, REPOSITORY)
    (built,) = folder.glob("lesionlocator-*.whl")
    return built


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """The folder of an environment with nothing but the wheel and what it asks for.

    Only what is imported is compiled: all of it is 120 MB of source.
    """
    folder = tmp_path_factory.mktemp("clean")
    made = run(sys.executable, "-m", "venv", "--without-pip", folder)
    assert made.returncode == 0, made.stderr
    constraints = run(sys.executable, "-m", "pip", "freeze", "--exclude-editable").stdout
    (folder / "tested.txt").write_text(constraints)
    into = ("--python", folder / "bin" / "python", "install", "--quiet", "--no-compile")
    pip(sys.executable, *into, "--constraint", folder / "tested.txt", wheel)
    return folder


def test_the_wheel_holds_the_package_and_its_licence_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    sources = {path.relative_to(REPOSITORY / "src").as_posix() for path in (REPOSITORY / "src").rglob("*.py")}
    assert sources <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names} == {
        "lesionlocator",
        f"lesionlocator-{lesionlocator.__version__}.dist-info",
    }


def test_the_base_install_stays_under_850_mb(clean):
    (packages,) = clean.glob("lib/python*/site-packages")
    size_mb = {path: path.stat().st_size / 1e6 for path in packages.rglob("*") if path.is_file()}
    size_mb = {path: size for path, size in size_mb.items() if path.suffix != ".pyc"}
    # What pip compiles is a good two fifths larger than its source.
    compiled_mb = 1.5 * sum(size for path, size in size_mb.items() if path.suffix == ".py")
    assert sum(size_mb.values()) + compiled_mb < 850


def test_the_base_install_has_no_torch_and_every_module_of_the_package_can_be_imported(clean):
    script = (
        "import importlib, importlib.util, pkgutil, lesionlocator\n"
        "assert importlib.util.find_spec('torch') is None\n"
        "for module in pkgutil.walk_packages(lesionlocator.__path__, 'lesionlocator.'):\n"
        f"    if not module.name.endswith('__main__') and not module.name.startswith({WITH_EXTRAS}):\n"
        "        importlib.import_module(module.name)\n"
        "for name in lesionlocator.__all__:\n"
        "    getattr(lesionlocator, name)\n"
    )
    # Compiled at the first time, as pip would have: what Python says of the sources of others then is not asked here.
    writing = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    run(clean / "bin" / "python", "-c", script, cwd=clean, env=writing)
    tried = run(clean / "bin" / "python", "-W", "error", "-c", script, cwd=clean)
    assert tried.returncode == 0, tried.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("segment", "--help"), ("doctor",)], ids=" ".join)
def test_the_command_answers_in_a_clean_environment(clean, arguments):
    tried = run(clean / "bin" / "lesionlocator", *arguments, cwd=clean)
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.strip()


@pytest.mark.parametrize(
    "script",
    [
        "import lesionlocator",
        "import sys; sys.argv = ['lesionlocator', '--help']\n"
        "from lesionlocator.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass",
    ],
    ids=["import lesionlocator", "lesionlocator --help"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(script):
    said = run(sys.executable, "-c", f"{script}\nimport sys\nprint('\\nloaded', *sys.modules)")
    assert said.returncode == 0, said.stderr
    loaded = said.stdout.splitlines()[-1].split()
    assert loaded[0] == "loaded"
    assert not set(HEAVY) & set(loaded)


def test_the_oldest_packages_that_are_tested_are_the_oldest_that_are_allowed():
    asked = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    lowest = dict(
        re.findall(
            r"^([\w-]+)==([\d.]+)$", (REPOSITORY / "constraints-lowest.txt").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    allowed = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,<[\d.]+)?", requirement).groups() for requirement in asked)
    assert allowed.keys() == lowest.keys()
    for name, version in allowed.items():
        assert f"{lowest[name]}.".startswith(f"{version}.")


def test_the_citation_and_the_changelog_know_the_version():
    assert f"\nversion: {lesionlocator.__version__}\n" in (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {lesionlocator.__version__}" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_public_names_are_at_most_fifteen_and_all_resolve():
    assert len(lesionlocator.__all__) <= 15
    assert set(lesionlocator.__all__) == set(lesionlocator._HOMES)
    for name in lesionlocator.__all__:
        assert getattr(lesionlocator, name).__name__ == name

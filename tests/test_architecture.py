"""What import-linter and ruff cannot say: abilities open no file, modules stay small, names are spelled out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "lesionlocator"
MODULES = sorted(PACKAGE.rglob("*.py"))
VALUES = ("errors", "geometry", "volume", "prompt", "case")
ABILITIES = ("segment", "align", "measure", "locate", "resample", "track")
OPENS = {"open", "read_text", "write_text", "read_bytes", "write_bytes", "mkdir", "unlink", "rename", "print", "input"}
BANNED = {"util", "utils", "helper", "helpers", "misc", "common", "base", "manager", "handler", "processor", "wrapper"}


def of(*names):
    parts = [[PACKAGE / f"{name}.py", *(PACKAGE / name).rglob("*.py")] for name in names]
    return named(path for group in parts for path in group if path.exists())


def named(paths):
    return [pytest.param(path, id=path.relative_to(PACKAGE).as_posix()) for path in paths]


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            yield function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def words(name):
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


@pytest.mark.parametrize("module", of(*VALUES, *ABILITIES))
def test_a_value_or_an_ability_opens_no_file_and_prints_nothing(module):
    assert not OPENS & set(calls(ast.parse(module.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("module", named(MODULES))
def test_a_module_opens_with_one_sentence(module):
    text = module.read_text(encoding="utf-8")
    if not text.strip():
        return
    said = ast.get_docstring(ast.parse(text)) or ""
    first = said.split("\n\n")[0]
    assert first.endswith(".")
    assert len(re.findall(r"[.?!](?:\s|$)", first)) == 1


@pytest.mark.parametrize("module", named(MODULES))
def test_a_module_can_be_read_in_one_sitting(module):
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("module", named(MODULES))
def test_files_and_classes_are_named_after_what_they_are(module):
    classes = [
        node.name for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))) if isinstance(node, ast.ClassDef)
    ]
    for name in [module.stem, *classes]:
        assert not BANNED & words(name)

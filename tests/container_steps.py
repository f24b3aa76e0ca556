"""The lines of a container file, and its steps done in plain folders where there is no builder."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path


@dataclass
class Stage:
    """FROM to FROM: its image, its name, and what is said in between."""

    image: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def said(self, word: str) -> list[str]:
        return [text for key, text in self.steps if key == word]


def read_stages(path: Path) -> list[Stage]:
    text = re.sub(r"^\s*#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    stages: list[Stage] = []
    for line in filter(str.strip, text.splitlines()):
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            stages.append(Stage(image, name or str(len(stages))))
        else:
            stages[-1].steps.append((word, rest.strip()))
    return stages


def copies(stage: Stage) -> Iterator[tuple[str | None, list[str], str]]:
    """Of each COPY: the stage it takes from, if not the checkout, what, and where to."""
    for text in stage.said("COPY"):
        words = shlex.split(text)
        source = next((word.removeprefix("--from=") for word in words if word.startswith("--from=")), None)
        plain = [word for word in words if not word.startswith("--")]
        yield source, plain[:-1], plain[-1]


def ignored(path: str, rules: Path) -> bool:
    """Whether a builder would not be sent this path of the checkout; of the rules that fit, the last counts."""
    found = False
    for rule in rules.read_text(encoding="utf-8").splitlines():
        if not rule or rule.startswith("#"):
            continue
        pattern = rule.removeprefix("!").replace("**/", "*")
        parts = path.split("/")
        if any(fnmatch("/".join(parts[:count]), pattern) for count in range(1, len(parts) + 1)):
            found = not rule.startswith("!")
    return found


class Yard:
    """Stages done in folders: each has a root of its own, and absolute paths of the file are taken as below it."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        self.checkout, self.folder = checkout, folder

    def root(self, name: str) -> Path:
        return self.folder / name

    def run(self, stage: Stage) -> None:
        """COPY, WORKDIR and RUN in their order; a RUN that fails raises CalledProcessError."""
        work = "/"
        for word, text in stage.steps:
            if word == "WORKDIR":
                work = text
            if word == "COPY":
                self._copy(stage, text, work)
            if word == "RUN":
                self._shell(stage, text, work)

    def at(self, name: str, path: str, work: str = "/") -> Path:
        return self.root(name) / (Path(work) / path).relative_to("/")

    def _copy(self, stage: Stage, text: str, work: str) -> None:
        ((source, what, to),) = copies(Stage("", "", [("COPY", text)]))
        target = self.at(stage.name, to, work)
        for one in what:
            found = self.checkout / one if source is None else self.at(source, one)
            if found.is_dir():
                shutil.copytree(found, target, dirs_exist_ok=True, ignore=self._left_out if source is None else None)
            else:
                place = target / found.name if to.endswith("/") else target
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, place)

    def _left_out(self, folder: str, names: list[str]) -> list[str]:
        inside = Path(folder).relative_to(self.checkout)
        return [name for name in names if ignored((inside / name).as_posix(), self.checkout / ".dockerignore")]

    def _shell(self, stage: Stage, text: str, work: str) -> None:
        root = self.root(stage.name)
        # Absolute paths of the file become paths below the root; the programs are those of this machine.
        command = re.sub(r"(?<![\w./-])/(?=[a-z])", f"{root}/", text).replace("python ", f"{sys.executable} ")
        where = self.at(stage.name, work)
        where.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": ""}
        subprocess.run(
            ["sh", "-ec", command], cwd=where, env=environment, check=True, capture_output=True, text=True, timeout=500
        )


def words_of(text: str) -> list[str]:
    """An ENTRYPOINT, CMD or HEALTHCHECK in its JSON form."""
    return json.loads(text.removeprefix("CMD "))

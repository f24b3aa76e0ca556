"""JSON as people write it, read without mercy: nothing twice, nothing that is not a number where a number belongs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from lesionlocator.errors import Refused
from lesionlocator.formats.disk import size_of, unreadable

_LIMIT = 64_000_000
_FORBIDDEN = frozenset('/\\:*?"<>|')
_LONGEST_ID = 100


def load_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. A key that comes twice, NaN and Infinity are refused."""
    if size_of(path) > _LIMIT:
        raise Refused(found=f"{path}, which is larger than 64 MB", needed="a prompt file", do="check the path")
    try:
        content = json.loads(
            path.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except _Twice as twice:
        raise Refused(
            found=f"{path}, in which the key {twice.args[0]!r} comes twice in one object",
            needed="every key once",
            do="keep the one that is meant",
        ) from None
    except OSError as problem:
        raise unreadable(path, problem) from problem
    except (ValueError, RecursionError) as problem:
        raise Refused(
            found=f"{path}, which is not valid JSON ({problem})",
            needed="a JSON file in UTF-8, without trailing commas, comments or NaN",
            do="correct it where the message says",
        ) from problem
    if not isinstance(content, dict):
        raise Refused(
            found=f"{path}, which holds a JSON {type(content).__name__}", needed="an object", do="check the path"
        )
    return cast(dict[str, Any], content)


def as_object(value: Any, where: str) -> dict[str, Any]:
    """The value as an object."""
    if not isinstance(value, dict):
        raise Refused(found=f"{where}: {_shown(value)}", needed="an object { }", do="correct the file")
    return cast(dict[str, Any], value)


def as_list(value: Any, where: str) -> list[Any]:
    """The value as a list."""
    if not isinstance(value, list):
        raise Refused(found=f"{where}: {_shown(value)}", needed="a list [ ]", do="correct the file")
    return cast(list[Any], value)


def as_numbers(value: Any, where: str, count: int = 3, strings: bool = False) -> Float[np.ndarray, " n"]:
    """So many finite numbers. True and false are none; "12" is one only where `strings` are allowed."""
    listed = as_list(value, where)
    numbers = [as_number(item, where, strings) for item in listed]
    if len(numbers) != count:
        raise Refused(
            found=f"{where}: {_shown(value)} ({len(numbers)} values)",
            needed=f"{count} numbers",
            do="correct the file",
        )
    return np.array(numbers, np.float64)


def as_number(value: Any, where: str, strings: bool = False) -> float:
    """One finite number."""
    number = float("nan")
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value) if abs(value) < 1e300 else number
    elif strings and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
    if not np.isfinite(number):
        raise Refused(
            found=f"{where}: {_shown(value)}", needed="a finite number, without quotes", do="write it as a number"
        )
    return number


def as_text(value: Any, where: str) -> str:
    """The value as a string."""
    if not isinstance(value, str):
        raise Refused(found=f"{where}: {_shown(value)}", needed="a string in quotes", do="correct the file")
    return value


def as_id(value: Any, where: str) -> str:
    """A lesion's id: a string that can be a part of a file's name on any system."""
    name = as_text(value, where)
    bad = [c for c in name if c in _FORBIDDEN or not c.isprintable()]
    if bad or not name.strip(" .") or name != name.strip() or len(name) > _LONGEST_ID:
        raise Refused(
            found=f"{where}: the lesion id {_shown(name)}",
            needed=f'1 to {_LONGEST_ID} printable characters, none of / \\ : * ? " < > |, no spaces around them, '
            "and more than dots",
            do="give the lesion another id",
        )
    return name


def only_keys(value: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuses a key that is not known, since what it means to say would be lost."""
    unknown = [key for key in value if key not in known]
    if unknown:
        raise Refused(
            found=f"{where}: the key {_shown(unknown[0])}", needed=f"only {', '.join(known)}", do="correct or remove it"
        )


class _Twice(Exception):
    """A key that comes twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _Twice(key)
        found[key] = value
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."

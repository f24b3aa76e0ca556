"""The table of everything that can happen between two visits, and how what was drawn is written down and read again."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, cast

from lesionlocator.errors import Refused
from lesionlocator.synth.appearance import BiasField, ContrastPhase, MetalStreak, Protocol, UptakeScale
from lesionlocator.synth.lesion import (
    Appear,
    Graft,
    Grow,
    Merge,
    Necrosis,
    RimChange,
    Shrink,
    Split,
    UptakeChange,
    Vanish,
)
from lesionlocator.synth.patient import Breathing, FieldOfView, TableShift, WeightChange
from lesionlocator.synth.scanner import CountNoise, Dose, Kernel, MrNoise, Reslice, Resolution
from lesionlocator.synth.visit import Change

CHANGES: dict[str, type[Change]] = {
    change.name: change
    for change in (
        Grow,
        Shrink,
        Vanish,
        Appear,
        Graft,
        Split,
        Merge,
        Necrosis,
        RimChange,
        UptakeChange,
        WeightChange,
        Breathing,
        TableShift,
        FieldOfView,
        ContrastPhase,
        Protocol,
        UptakeScale,
        MetalStreak,
        Reslice,
        Resolution,
        Kernel,
        BiasField,
        Dose,
        MrNoise,
        CountNoise,
    )
}
"""Name -> change. A new one is a frozen dataclass and a line here.

Those of patient and scanner happen in this order.
"""


def to_json(change: Change) -> dict[str, Any]:
    """What was drawn, with the change's name: enough to apply it again. Empty text is left out."""
    return {"change": change.name, **{name: value for name, value in asdict(cast(Any, change)).items() if value != ""}}


def from_json(drawn: dict[str, Any]) -> Change:
    """The change that was written down."""
    name = drawn.get("change")
    if name not in CHANGES:
        raise Refused(found=f"the change {name!r}", needed=f"one of {', '.join(CHANGES)}", do="correct the recipe")
    kind = cast(Any, CHANGES[str(name)])
    known = {field.name for field in fields(kind)}
    given = {key: _frozen(value) for key, value in drawn.items() if key != "change"}
    given = {**{field.name: "" for field in fields(kind) if field.default == ""}, **given}
    if set(given) != known:
        wrong = ", ".join(sorted(set(given) ^ known))
        raise Refused(
            found=f"a change {name!r} in which {wrong} is missing or unknown",
            needed=f"exactly {', '.join(sorted(known))}",
            do="use the recipe with the version of the program that wrote it",
        )
    return cast(Change, kind(**given))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value

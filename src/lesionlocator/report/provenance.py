"""What made a result: versions, model, inputs with their checksums, prompts and settings, as `run.json` has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lesionlocator.errors import Refused
from lesionlocator.weights import find_model


def provenance(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values, in the order in which one asks for them."""
    yield "Command", f"lesionlocator {run.get('command', '')}"
    yield "Finished", str(run.get("finished", "not said"))
    model = run.get("model", {})
    yield "Model", ", ".join(f"{name} {value}" for name, value in model.items() if value) or "not said"
    yield from _card(str(model.get("id", "")))
    for entry in run.get("inputs", []):
        yield f"Scan {entry.get('scan', '')}", _input(entry)
    arguments = run.get("arguments", {})
    yield "Prompts", str(arguments.get("prompts", "not said"))
    shown = {name: value for name, value in arguments.items() if name not in ("prompts", "scan", "scans") and value}
    yield "Settings", ", ".join(f"{name} {value}" for name, value in shown.items()) or "defaults"
    yield "Versions", ", ".join(f"{name} {value}" for name, value in run.get("versions", {}).items())
    yield "Seconds", ", ".join(f"{name} {value}" for name, value in run.get("timings_s", {}).items())


def _card(model_id: str) -> Iterator[tuple[str, str]]:
    """What the model's card says it is for, if the model is known here."""
    try:
        card, _ = find_model(model_id)
    except (Refused, OSError):
        return
    yield "Model card", f"{card.title}. For: {card.intended_use} Limits: {card.limits}"


def _input(entry: Mapping[str, Any]) -> str:
    parts = (entry.get("path"), entry.get("modality"), f"SHA-256 {entry.get('sha256', 'not known')}")
    return ", ".join(str(part) for part in parts if part)

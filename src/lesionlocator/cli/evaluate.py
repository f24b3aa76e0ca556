"""`lesionlocator evaluate`: how good it is, and whether it became better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App

from lesionlocator.cli.answer import DONE, PARTLY, Answer, Flat, say
from lesionlocator.evaluate.settings import EvaluateSettings

if TYPE_CHECKING:
    from lesionlocator.evaluate.comparison import Compared

app = App(name="evaluate", help="How good it is: every claim comes out of this command.")


@app.default
def evaluate(protocol: str, /, *, settings: Annotated[EvaluateSettings, Flat]) -> Answer:
    """Measure methods by a protocol: tables, curves and the worst cases on one page, beside JSON and CSV.

    `lesionlocator evaluate compare A.json B.json` compares two results.

    Parameters
    ----------
    protocol
        prompts, robustness, interactive, tracking or zero-shot, or the path of a protocol file (TOML).
    """
    from lesionlocator.evaluate.run import run_evaluation

    done = run_evaluation(protocol, settings, say)
    means = [entry for entry in done.results["summary"] if entry["by"] == "all" and entry["score"] == "dice"]
    value = {"report": str(done.page), "dice": means, "problems": done.problems, "skipped": done.results["skipped"]}
    return Answer(value, _dice_text(means, done.page), PARTLY if done.problems else DONE)


@app.command
def compare(first: Path, second: Path, /) -> Answer:
    """Compare two results of one protocol; exit code 3 when a score fell by more than its interval.

    Parameters
    ----------
    first
        The `results.json` of the older evaluation.
    second
        That of the newer one.
    """
    from lesionlocator.evaluate.comparison import compare_results

    found = compare_results(first, second)
    fell = any(entry.difference.is_fall for entry in found)
    return Answer([entry.to_json() for entry in found], _compared_text(found), PARTLY if fell else DONE)


def _dice_text(means: Sequence[Mapping[str, Any]], page: Path) -> str:
    lines = [f"{'prompt':28} {'method':20} {'lesions':>7} {'Dice':>7}   95 % interval"]
    for entry in means:
        low, high = entry["interval"] or (None, None)
        spread = "" if low is None else f"{low:.3f} to {high:.3f}"
        lines.append(
            f"{entry['prompt']:28} {entry['method']:20} {entry['lesions']:7} {entry['over_lesions']:7.3f}   {spread}"
        )
    return "\n".join([*(line.rstrip() for line in lines), "", f"open {page}"])


def _compared_text(found: Sequence[Compared]) -> str:
    lines = [f"{'method':30} {'prompt':24} {'score':6} {'lesions':>7} {'change':>8}   95 % interval"]
    for entry in found:
        mean = entry.difference.mean
        spread = f"{mean.interval[0]:+.4f} to {mean.interval[1]:+.4f}" if mean.interval else "one patient: no interval"
        verdict = "  fell" * entry.difference.is_fall + "  rose" * entry.difference.is_rise
        lines.append(
            f"{entry.method:30} {entry.prompt:24} {entry.score:6} {mean.lesions:7} {mean.over_lesions or 0.0:+8.4f}   "
            f"{spread}{verdict}"
        )
    return "\n".join(lines)

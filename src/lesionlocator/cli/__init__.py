"""The command line: a file for each command, thin over the functions that do the work."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from lesionlocator import __version__
from lesionlocator.cli import evaluate, models, prompts
from lesionlocator.cli.answer import DONE, INTERRUPTED, NOTHING, Answer, say
from lesionlocator.cli.batch import batch
from lesionlocator.cli.demo import demo
from lesionlocator.cli.doctor import doctor
from lesionlocator.cli.export import export
from lesionlocator.cli.measure import measure
from lesionlocator.cli.report import report
from lesionlocator.cli.score import score
from lesionlocator.cli.segment import segment
from lesionlocator.cli.series import series
from lesionlocator.cli.serve import serve
from lesionlocator.cli.synthesize import synthesize
from lesionlocator.cli.track import track
from lesionlocator.cli.train import train
from lesionlocator.errors import Refused

app = App(
    name="lesionlocator",
    version=__version__,
    help="Outline any tumour in a 3D scan from one click or box, and follow it through every later scan.\n\n"
    "With --json anywhere, standard output is one JSON value and nothing else. Exit codes: 0 done, 2 nothing could be "
    "done, 3 some lesions or cases failed, 130 interrupted. Research software, not a medical device.",
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)

_COMMANDS = (
    segment,
    track,
    measure,
    score,
    evaluate.app,
    prompts.app,
    models.app,
    batch,
    report,
    series,
    export,
    synthesize,
    train,
    serve,
    doctor,
    demo,
)
for _command in _COMMANDS:
    app.command(_command)


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


def _refusal(error: Refused | CycloptsError) -> Answer:
    if isinstance(error, Refused):
        parts = {"found": error.found, "needed": error.needed, "do": error.do}
    else:
        parts = {"found": str(error), "needed": "a command line as `--help` shows", "do": "add --help to the command"}
    say(f"found:  {parts['found']}\nneeded: {parts['needed']}\ndo:     {parts['do']}")
    return Answer({"error": parts}, "", NOTHING)

"""What the command lines of studies have in common."""

import argparse
import signal
from collections.abc import Callable
from pathlib import Path

from .records import copy_records
from .run import Outcome


def add_run(commands: argparse._SubParsersAction) -> None:
    """The command `run`."""
    run = commands.add_parser("run")
    run.add_argument("study", type=Path, help="its YAML file")
    run.add_argument("--processes", type=_from_one, help="as many as cores, if not given")
    run.add_argument("--minutes", type=float, help="stop after so many")


def run_command(output: Path, reports: Path, run: Callable[[Path], Outcome]) -> int:
    """Run a study until it is done or stopped; 0 if no cell failed.

    Args:
        output: folder of the study.
        reports: where its records are kept in the repository; a fresh clone goes on after them.
        run: given the folder.
    """
    if not output.exists():
        copy_records(reports, output)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcome = run(output)
    except KeyboardInterrupt:
        print("Stopped; the same command goes on with the cells that are not done.")
        return 130
    print(f"{outcome.done} of {outcome.cells} cells done, {len(outcome.failed)} failed")
    return 1 if outcome.failed else 0


def _from_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1 process")
    return number

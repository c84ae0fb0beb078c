"""What the command lines of studies have in common."""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from nsync.errors import InputError

from .records import copy_records
from .run import Outcome


class Named(Protocol):
    """A study, as far as its command line knows it."""

    @property
    def name(self) -> str:
        """That of its folder."""
        ...


S = TypeVar("S", bound=Named)
Run = Callable[[S, Path, int | None, float | None], Outcome]
"""Runs a study in its folder: by how many processes, for how many minutes."""


def add_run(commands: argparse._SubParsersAction) -> None:
    """The command `run`."""
    run = commands.add_parser("run")
    run.add_argument("studies", type=Path, nargs="+", metavar="study", help="its YAML file")
    run.add_argument("--processes", type=_from_one, help="as many as cores, if not given")
    run.add_argument("--minutes", type=float, help="stop after so many")


def run_command(
    args: argparse.Namespace,
    read: Callable[[Path], S],
    run: Run[S],
    output: Path,
    reports: Path,
) -> int:
    """Run studies one after the other until all are done or stopped; 0 if nothing failed.

    Args:
        args: those of `add_run`.
        read: a study from its file; all are read before the first is run.
        output: has a folder for each study.
        reports: where their records are kept in the repository; a fresh clone goes on after them.

    Raises:
        InputError: a file is no study. A study that cannot be run is told, and the next one runs.
    """
    studies = [read(file) for file in args.studies]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun, failed = time.monotonic(), 0
    for study in studies:
        left = None if args.minutes is None else args.minutes - (time.monotonic() - begun) / 60
        if left is not None and left <= 0:
            print(f"{study.name}: no time is left for it")
            continue
        folder = output / study.name
        if not folder.exists():
            copy_records(reports / study.name, folder)
        try:
            outcome = run(study, folder, args.processes, left)
        except InputError as error:
            print(f"{study.name}: {error}", file=sys.stderr)
            failed += 1
            continue
        except KeyboardInterrupt:
            print("Stopped; the same command goes on with the cells that are not done.")
            return 130
        failed += len(outcome.failed)
        done = f"{outcome.done} of {outcome.cells} cells done"
        print(f"{study.name}: {done}, {len(outcome.failed)} failed")
    return 1 if failed else 0


def _from_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1 process")
    return number

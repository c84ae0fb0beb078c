"""usage: python -m benchmarks.supcon run STUDY.yaml [...] [--processes N] [--minutes M]
       python -m benchmarks.supcon report STUDY

`run` runs what has not been run of one study or several, one after the other, and can be stopped
and called again at any time; in a fresh clone it goes on after the records in docs/supcon/STUDY, if
there are any. `report` writes the tables, a sheet of pictures for each family and the records
themselves there.
"""

import argparse
import sys
from pathlib import Path

from nsync.errors import InputError

from ..studies.commands import add_run, run_command
from ..studies.records import copy_records
from .report import report
from .run import run_study
from .study_file import read_study

ROOT = Path(__file__).parents[2]
OUTPUT, REPORTS = ROOT / "output" / "supcon", ROOT / "docs" / "supcon"


def main() -> int:
    """Run the command; 0 if all went well, even if not all is done."""
    args = _arguments()
    try:
        if args.command == "report":
            return _report(args.study)
        return run_command(args, read_study, run_study, OUTPUT, REPORTS)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


def _report(name: str) -> int:
    print(report(OUTPUT / name, REPORTS / name))
    copy_records(OUTPUT / name, REPORTS / name)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.supcon")
    commands = parser.add_subparsers(dest="command", required=True)
    add_run(commands)
    report = commands.add_parser("report")
    report.add_argument("study", help="its name")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

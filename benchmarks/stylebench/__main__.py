"""usage: python -m benchmarks.stylebench run STUDY.yaml [...] [--processes N] [--minutes M]
       python -m benchmarks.stylebench report STUDY
       python -m benchmarks.stylebench stop STUDY --drift BOUND [BOUND ...]

`run` runs what has not been run of one study or several, one after the other, and can be stopped
and called again at any time; in a fresh clone it goes on after the records in
docs/stylebench/STUDY, if there are any. `report` writes tables, figures, the page and the records
themselves there. `stop` prints what an early stop at a bound of the drift would have kept, and what
each arm comes to without.
"""

import argparse
import math
import sys
from pathlib import Path

from nsync.errors import InputError

from ..studies.commands import add_run, run_command
from ..studies.records import copy_records
from .reading import read_records
from .run import run_study
from .stopping import as_markdown, stopped
from .study_file import read_study

ROOT = Path(__file__).parents[2]
OUTPUT, REPORTS = ROOT / "output" / "stylebench", ROOT / "docs" / "stylebench"


def main() -> int:
    """Run the command; 0 if all went well, even if not all is done."""
    args = _arguments()
    try:
        if args.command == "report":
            return _report(args.study)
        if args.command == "stop":
            return _stop(args.study, args.drift)
        return run_command(args, read_study, run_study, OUTPUT, REPORTS)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


def _report(name: str) -> int:
    from .page import report  # the plots' library is not needed to run

    print(report(OUTPUT / name, REPORTS / name))
    copy_records(OUTPUT / name, REPORTS / name)
    return 0


def _stop(name: str, bounds: list[float]) -> int:
    records = read_records(OUTPUT / name / "records.jsonl")
    print(as_markdown(stopped(records, [*bounds, math.inf])), end="")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.stylebench")
    commands = parser.add_subparsers(dest="command", required=True)
    add_run(commands)
    report = commands.add_parser("report")
    report.add_argument("study", help="its name")
    stop = commands.add_parser("stop")
    stop.add_argument("study", help="its name")
    stop.add_argument("--drift", type=float, nargs="+", required=True, help="bounds of it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

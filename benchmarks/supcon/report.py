"""The report of a study: tables for people and programs, and a sheet of pictures per family.

table.md       the answer by family, and all arms
table.csv      a row per family and arm
result.json    everything that was computed
sheet_<family>.png: a row per arm, of the first world and seed
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from nsync.errors import InputError
from nsync.evaluation.result import Interval
from nsync.evaluation.verdict import probability
from nsync.files import write_atomic
from nsync.pictures.images import png

from ..studies.pictures import sheet
from ..studies.records import RECORDS, Record, read
from .analysis import CLAIMED, METHOD, METRICS, PRIMARY, Analysis, Difference, analyse
from .arms import BASELINE
from .store import cell_of, strip_file
from .study import REAL, Cell

_SHOWN = ("frechet", "inception", "precision", "style", "shape", "colour", "place", "all")
_COMPARED = ("frechet", "inception", "precision", "all")
_MARKS = {"better": " **better**", "worse": " **worse**"}
_SCALE = 2  # of pictures of 32 px


def report(folder: Path, target: Path) -> Path:
    """Analyse a study and write its report; the table's path.

    Raises:
        InputError: no or damaged records; `target` cannot be written.
    """
    records = read(folder / RECORDS)
    if not records:
        raise InputError("records", f"records in {folder}", "none", "Run the study.")
    found = analyse(records)
    for family in found.families:
        if shown := _sheet(found, family, records, folder):
            write_atomic(target / f"sheet_{family}.png", png(shown))
    write_atomic(target / "table.csv", as_csv(found))
    told = json.dumps(found.as_dict(), indent=1, allow_nan=False)
    write_atomic(target / "result.json", told + "\n")
    write_atomic(target / "table.md", as_markdown(found))
    return target / "table.md"


def as_csv(found: Analysis) -> str:
    """A row per family and arm: means with intervals, then differences to none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    judged = [name for name, metric in METRICS.items() if metric.better]
    ends = [f"{name}{end}" for name in METRICS for end in ("", " low", " high")]
    more = ("", " low", " high", " p", " p_holm", " detectable", " shown")
    writer.writerow(
        ["family", "arm", "units", *ends, *(f"{n} - none{m}" for n in judged for m in more)]
    )
    for family, arm in _rows(found):
        means = [found.mean(family, arm, name) for name in METRICS]
        row = [family, arm, max(mean.units for mean in means if mean)]
        for mean in means:
            row += [mean.value.value, mean.value.low, mean.value.high] if mean else [""] * 3
        for name in judged:
            row += _cells(found.difference(family, arm, name))
        writer.writerow(row)
    return text.getvalue()


def as_markdown(found: Analysis) -> str:
    """The answer by family, and a table of all arms."""
    lines = [f"# {found.study}", "", *_answers(found), ""]
    if found.fell_apart:
        counts = "; ".join(f"{name}: {n}" for name, n in sorted(found.fell_apart.items()))
        lines += [f"Cells that fell apart and are judged by their last pictures: {counts}.", ""]
    lines += ["## Means", "", *_table(["family", "arm", *(METRICS[n].label for n in _SHOWN)])]
    for family, arm in _rows(found):
        means = [(name, found.mean(family, arm, name)) for name in _SHOWN]
        cells = [_number(m.value, METRICS[n].digits) if m else "" for n, m in means]
        lines.append(f"| {family} | {arm} | {' | '.join(cells)} |")
    lines += ["", "## Arm less none", ""]
    lines += _table(["family", "arm", *(METRICS[name].label for name in _COMPARED)])
    for family, arm in _rows(found):
        rows = [found.difference(family, arm, name) for name in _COMPARED]
        if any(rows):
            lines.append(f"| {family} | {arm} | {' | '.join(map(_compared, rows))} |")
    lines.append("")
    lines.append(
        "95 % intervals over worlds and seeds; p of the method as it is, of the other "
        "arms of a family after Holm."
    )
    return "\n".join(lines) + "\n"


def _answers(found: Analysis) -> list[str]:
    lines = []
    for family in found.families:
        one = found.difference(family, METHOD, PRIMARY)
        if one:
            lines.append(
                f"- **{family}**, {METHOD}: Frechet distance {_compared(one)} against none "
                f"({one.units} pairs); the paper, on COCO: {CLAIMED[family]:+.0f} %."
            )
    hours = found.seconds / 3600
    return [*lines, "", f"{found.cells} trainings, {hours:.1f} hours of one core for the GANs."]


def _rows(found: Analysis) -> list[tuple[str, str]]:
    arms = [BASELINE.name, *(arm for arm in found.arms if arm != BASELINE.name)]
    rows = [(REAL, REAL), *((family, arm) for family in found.families for arm in arms)]
    return [row for row in rows if found.mean(*row, PRIMARY)]


def _table(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]


def _number(value: Interval, digits: int) -> str:
    text = f"{value.value:.{digits}f}"
    if value.low is None:
        return text
    return f"{text} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def _compared(one: Difference | None) -> str:
    if one is None:
        return ""
    relative = METRICS[one.metric].relative
    digits, sign = (0, " %") if relative else (METRICS[one.metric].digits, "")
    text = f"{one.value.value:+.{digits}f}{sign}"
    if one.value.low is not None:
        text += f" [{one.value.low:+.{digits}f}, {one.value.high:+.{digits}f}]"
    return f"{text}, {probability(one.p_holm)}{_MARKS.get(one.shown, '')}"


def _cells(one: Difference | None) -> list[object]:
    if one is None:
        return [""] * 7
    ends = one.value
    return [ends.value, ends.low, ends.high, one.p, one.p_holm, one.detectable, one.shown]


def _sheet(
    found: Analysis, family: str, records: Sequence[Record], folder: Path
) -> Image.Image | None:
    """Rows of pictures with the names of their arms, real ones first; None where one is missing."""
    world = next(cell_of(r) for r in records if r["family"] == family)
    names = [(REAL, REAL), *(row for row in _rows(found) if row[0] == family)]
    files = {n: strip_file(folder, Cell(f, n, *world[2:])) for f, n in names}
    # A clone has the records of earlier cells, not their pictures: no sheet of some arms replaces a
    # whole one.
    if not all(file.exists() for file in files.values()):
        return None
    return sheet([(name, Image.open(file)) for name, file in files.items()], _SCALE)

"""The report of an evaluation: a folder that is read without this program and without a network.

report.html       everything on one page, pictures inside it
chart.png         the chart and the table
sheet.png         references and candidates, best first
pictures.csv      a row per picture
evaluation.json   all numbers, settings, hashes and versions
"""

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from PIL import Image
from torch import Tensor

from ..files import write_atomic
from ..pictures.images import png
from .chart import chart, sheet
from .result import Evaluation
from .table import table
from .verdict import ceiling_words, probability, signed

_TEMPLATE = Path(__file__).with_name("report.html")
_SIDE = 192  # pixels of a picture on the page
_PAIRS = 6  # of each arm's candidates nearest to a reference


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        folder: where it is.
        chart, sheet: the two pictures.
    """

    folder: Path
    chart: Image.Image
    sheet: Image.Image


def write_report(
    folder: Path,
    evaluation: Evaluation,
    references: Sequence[Tensor],
    arms: Mapping[str, Sequence[Tensor]],
) -> Report:
    """Write the report of an evaluation.

    Args:
        references: uint8 `[3, h, w]`, of any sizes.
        arms: such pictures by arm.

    Raises:
        InputError: the folder cannot be written.
    """
    report = Report(folder, chart(evaluation), sheet(evaluation, references, arms))
    write_atomic(folder / "chart.png", png(report.chart))
    write_atomic(folder / "sheet.png", png(report.sheet))
    write_atomic(folder / "pictures.csv", _csv(evaluation))
    told = json.dumps(evaluation.as_dict(), indent=2, allow_nan=False)
    write_atomic(folder / "evaluation.json", told + "\n")
    write_atomic(folder / "report.html", _page(evaluation, report, references, arms))
    return report


def _csv(evaluation: Evaluation) -> str:
    text = io.StringIO()
    names = ("index", "prompt", "style", "adherence", "content", "nearest", "similarity")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("arm", *names))
    for arm in evaluation.arms:
        for picture in arm.pictures:
            writer.writerow((arm.name, *(getattr(picture, name) for name in names)))
    return text.getvalue()


def _page(
    evaluation: Evaluation,
    report: Report,
    references: Sequence[Tensor],
    arms: Mapping[str, Sequence[Tensor]],
) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    captions, rows = table(evaluation)
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        found=evaluation,
        chart=_inline(report.chart),
        sheet=_inline(report.sheet),
        captions=captions,
        rows=rows,
        comparisons=[
            (c, signed(c.difference), probability(c.p), probability(c.p_holm))
            for c in evaluation.comparisons
        ],
        gaps=[(validity, signed(validity.gap)) for validity in evaluation.validity],
        ends=ceiling_words(evaluation),
        pairs=_pairs(evaluation, references, arms),
    )


def _pairs(
    evaluation: Evaluation, references: Sequence[Tensor], arms: Mapping[str, Sequence[Tensor]]
) -> list[dict[str, object]]:
    """The candidates nearest to a reference, beside it, where copies were looked for."""
    found = []
    for arm in evaluation.arms:
        if arm.copies is None:
            continue
        nearest = sorted(arm.pictures, key=lambda picture: -picture.similarity)[:_PAIRS]
        pairs = [
            {
                "index": one.index,
                "similarity": f"{one.similarity:.3f}",
                "is_copy": one.index in arm.copies,
                "candidate": _inline(_small(arms[arm.name][one.index])),
                "reference": _inline(_small(references[one.nearest])),
            }
            for one in nearest
        ]
        found.append({"arm": arm.name, "pairs": pairs})
    return found


def _small(picture: Tensor) -> Image.Image:
    image = Image.fromarray(picture.permute(1, 2, 0).numpy())
    scale = _SIDE / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def _inline(picture: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()

"""The page of a study: a folder that is read without this program and without a network.

A study's pictures are strips of some pictures side by side: `pictures/<style>/<seed>/reference.png`
and, beside it, `<adapter>/<arm>.png`. Those that are missing are left out. The page's folder:

index.html     the answer, the numbers, plots and pictures, all inside it
table.csv      a row per adapter and arm
result.json    everything that was computed
forest.png, curves.png, exchange.png
sheet.jpg      style by style: true renders, plain training, the leading arm
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from PIL import Image

from nsync.errors import InputError
from nsync.files import write_atomic
from nsync.pictures.images import png

from ..studies.pictures import sheet
from . import figures, table
from .analysis import analyse
from .notes import counted
from .reading import read_records
from .result import BASE, METRICS, Analysis

_TEMPLATE = Path(__file__).with_name("page.html")
_SCORES = (
    "style_hit", "content", "balanced", "drift", "plain_content", "frechet", "similarity",
    "diversity", "copies", "cos_negative", "removed",
)  # fmt: skip
TRUE = "true renders"
_QUALITY = 92  # of pictures: JPEG, a third of their size as PNG


@dataclass(frozen=True)
class Strip:
    """A row of pictures side by side.

    Attributes:
        name: whose they are.
        source: a data URI.
    """

    name: str
    source: str


def report(study_folder: Path, target: Path, baselines: Sequence[str] | None = None) -> Path:
    """Analyse a study and write its page.

    Args:
        study_folder: with `records.jsonl`, and `pictures/` as far as there are any.
        target: the folder to write into; it is made where it is missing.
        baselines: see `analysis.analyse`.

    Returns:
        The page, `target / "index.html"`.

    Raises:
        InputError: no or damaged records; an unknown baseline; a damaged picture; `target` cannot
            be written.
    """
    found = analyse(read_records(study_folder / "records.jsonl"), baselines)
    plots = {
        "forest": png(figures.forest(found)),
        "curves": png(figures.curves(found)),
        "exchange": png(figures.exchange(found)),
    }
    page = _page(found, plots, study_folder / "pictures")
    for name, data in plots.items():
        write_atomic(target / f"{name}.png", data)
    if rows := _lead(found, study_folder / "pictures"):
        write_atomic(target / "sheet.jpg", _jpeg(sheet(rows)))
    write_atomic(target / "table.csv", table.as_csv(found))
    write_atomic(target / "result.json", table.as_json(found))
    write_atomic(target / "index.html", page)
    return target / "index.html"


def _page(found: Analysis, plots: dict[str, bytes], pictures: Path) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    shown = [name for name in _SCORES if any(mean.metric == name for mean in found.means)]
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        found=found,
        budget=_budget(found),
        differences={name: table.differences(found, name) for name in found.adapters},
        captions=[METRICS[name].label for name in shown],
        scores={name: table.scores(found, name, shown) for name in found.adapters},
        plots={name: _inline(data, "png") for name, data in plots.items()},
        strips={style: _strips(found, style, pictures) for style in found.styles},
    )


def _budget(found: Analysis) -> str:
    budget = found.budget
    cores = f" on {budget.cores} core{'s' * (budget.cores > 1)} each" if budget.cores else ""
    spent = (
        f"{budget.seconds / 3600:.1f} hours"
        if budget.seconds >= 3600
        else (f"{budget.seconds / 60:.1f} minutes")
    )
    counts = {
        "style": len(found.styles),
        "seed": len(found.seeds),
        "arm": len(found.arms),
        "adapter": len(found.adapters),
    }
    made_of = ", ".join(counted(number, word) for word, number in counts.items())
    return (
        f"{counted(budget.cells, 'training')} ({made_of}) of {found.step} steps: "
        f"{spent} of training in all{cores}, {budget.passes:,} passes of a picture."
    )


def _strips(found: Analysis, style: str, folder: Path) -> dict[str, list[Strip]]:
    """By adapter: true renders, the base, every arm; all of one seed."""
    groups = {}
    for adapter in found.adapters:
        place = _place(found, style, adapter, folder)
        if place is None:
            continue
        rows = [(TRUE, place / "reference.png")]
        rows += [(arm, place / adapter / f"{arm}.png") for arm in (BASE, *found.arms)]
        groups[adapter] = [Strip(name, _strip(path)) for name, path in rows if path.exists()]
    return groups


def _place(found: Analysis, style: str, adapter: str, folder: Path) -> Path | None:
    """The pictures of a style, of the seed of which the most arms were drawn; the first of these.

    A clone that went on after records has only pictures of its own cells.
    """
    places = [folder / style / str(seed) for seed in found.seeds]
    counts = [len(list((place / adapter).glob("*.png"))) for place in places]
    return places[counts.index(max(counts))] if any(counts) else None


def _lead(found: Analysis, folder: Path) -> list[tuple[str, Image.Image]]:
    """Of the arm that leads, plain training that saw as many pictures, and true renders: the
    styles of which there are all three, by the first adapter."""
    adapter = found.adapters[0]
    arm = next((one for one in found.arms if one not in found.baselines), None)
    ruling = next((r for r in found.rulings if (r.adapter, r.arm) == (adapter, arm)), None)
    if ruling is None:
        return []
    rows = []
    for style in found.styles:
        place = _place(found, style, adapter, folder)
        if place is None:
            continue
        arms = {name: place / adapter / f"{name}.png" for name in (ruling.equal_pictures, arm)}
        files = {TRUE: place / "reference.png", **arms}
        if all(file.exists() for file in files.values()):
            rows += [(f"{style}: {name}", _opened(file)) for name, file in files.items()]
    return rows


def _strip(path: Path) -> str:
    return _inline(_jpeg(_opened(path)), "jpeg")


def _jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=_QUALITY, subsampling=0)
    return data.getvalue()


def _opened(path: Path) -> Image.Image:
    """Raises an `InputError` for a file that is no picture."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except OSError as error:
        remedy = "Remove it, or measure its cell again."
        raise InputError(
            "pictures", f"a picture in {path}", type(error).__name__, remedy
        ) from error


def _inline(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

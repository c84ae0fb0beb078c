"""The style watched while it is trained: scores along the steps, and which checkpoint is the best.

The loss says little of style. Every so many steps the held-out prompts are drawn, with the style
token and without, and three numbers are taken: how near the pictures are to the references, how far
the pictures without the token have moved from the base's, and how many are near copies.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ..denoiser import Denoiser
from ..errors import InputError
from ..files import write_atomic
from ..learner import Learned
from ..pictures.images import png
from .arms import Arm
from .chart import curve
from .drawing import Comparison, arm_of
from .encoders import Encoder
from .measure import Measure
from .pictures import as_picture, as_pil
from .roles import Roles, Vectors
from .similarity import style_similarity

STYLE, ERROR, DRIFT, COPIES = "style", "style_error", "drift", "copies"


@dataclass(frozen=True)
class Point:
    """The scores after some steps.

    Attributes:
        style: mean similarity to the references.
        error: its standard error over the pictures.
        drift: mean distance of the pictures without the token from the base's; NaN if unknown.
        copies: pictures nearer to a reference than any two references are to each other; None
            where nothing looks for copies.
    """

    step: int
    style: float
    error: float
    drift: float
    copies: int | None


def best_point(points: Sequence[Point]) -> Point | None:
    """The least drift among those whose style is within a standard error of the highest.

    The one-standard-error rule (Breiman et al. 1984, section 3.4.3): of models that cannot be told
    apart by their score, the simplest. Among equal drifts the earliest. Step 0 is the base itself.
    """
    trained = [point for point in points if point.step]
    if not trained:
        return None
    top = max(trained, key=lambda point: point.style)
    near = [point for point in trained if point.style >= top.style - top.error]
    return min(near, key=lambda p: (math.inf if math.isnan(p.drift) else p.drift, p.step))


def is_over(points: Sequence[Point], patience: int) -> bool:
    """Whether the last `patience` points brought no higher style; 0 never stops."""
    styles = [point.style for point in points if point.step]
    if not patience or len(styles) <= patience:
        return False
    return max(styles[-patience:]) <= max(styles[:-patience])


class StyleWatch:
    """What a training asks of `nsync.runs.session.Watch`.

    Args:
        comparison: the prompts, seeds and sampler; with drift.
        references: uint8 `[3, h, w]`.
        folder: of the run's scores: the pictures, and the checkpoints that may be the best.
        store: of the vectors.
        write: writes weights of so many steps into a folder.
        show: called with the curve after every score.
        on_item: may raise to stop the drawing.
        patience: scores without a higher style after which training ends; 0 never.

    Raises:
        InputError: the run's earlier scores were taken by other encoders, prompts or seeds. On one
            curve they would name the wrong checkpoint, and drift has only its own base's pictures.
    """

    def __init__(
        self,
        comparison: Comparison,
        denoiser: Denoiser,
        references: Sequence[Tensor],
        encoders: Sequence[Encoder],
        folder: Path,
        store: Path,
        write: Callable[[Path, Learned, int], Mapping[str, Path]],
        show: Callable[[Image.Image], None],
        on_item: Callable[[int, int], None],
        patience: int = 0,
    ) -> None:
        self._comparison, self._denoiser = comparison, denoiser
        self._references, self._roles = references, Roles.of(encoders)
        self._store = store
        self._folder, self._write, self._show = folder, write, show
        self._on_item, self._patience = on_item, patience
        self._facts = _facts(comparison, self._roles)
        self._check_scale()
        self.points: list[Point] = []

    @property
    def best(self) -> Point | None:
        """The checkpoint to take, so far."""
        return best_point(self.points)

    @property
    def is_over(self) -> bool:
        """Whether training on is of no use any more."""
        return is_over(self.points, self._patience)

    @property
    def curve(self) -> Path | None:
        """The picture of the scores so far."""
        path = self._folder / "curve.png"
        return path if path.exists() else None

    def begin(self, records: Sequence[Mapping[str, float]]) -> None:
        """Take up the scores of an earlier part of the run, from its log."""
        write_atomic(self._scale, json.dumps(self._facts, indent=1) + "\n")
        self.points = [
            Point(r["step"], r[STYLE], r[ERROR], _number(r.get(DRIFT)), r.get(COPIES))
            for r in records
            if STYLE in r
        ]

    def look(self, done: int) -> dict[str, float]:
        """Draw and score the model as it is now; the numbers for the log."""
        comparison = self._comparison
        arm = arm_of(comparison, self._denoiser, str(done), comparison.token, self._on_item)
        self._keep_pictures(arm, done)
        point = self._point(arm, done)
        self.points.append(point)
        best = self.best
        named = {STYLE: [], DRIFT: []}
        for one in self.points:
            named[STYLE].append((one.step, one.style))
            named[DRIFT].append((one.step, one.drift))
        drawn = curve(named, best.step if best else None)
        write_atomic(self._folder / "curve.png", png(drawn))
        self._show(drawn)
        told = {STYLE: point.style, ERROR: point.error, DRIFT: point.drift}
        return told if point.copies is None else {**told, COPIES: point.copies}

    def keep(self, done: int, learned: Learned) -> None:
        """Keep weights that may become the best; throw away those that cannot any more."""
        place = self._folder / f"step_{done:06}"
        self._write(place, learned, done)
        top = max(self.points, key=lambda point: point.style)
        for point in self.points:
            if point.style < top.style - top.error and point is not top:
                _remove(self._folder / f"step_{point.step:06}")

    def files(self) -> dict[str, Path]:
        """The best checkpoint's files by kind, as far as they are there."""
        if self.best is None:
            return {}
        place = self._folder / f"step_{self.best.step:06}"
        return {path.stem: path for path in sorted(place.glob("*.safetensors"))}

    @property
    def _scale(self) -> Path:
        return self._folder / "scale.json"

    def _check_scale(self) -> None:
        before = json.loads(self._scale.read_text("utf-8")) if self._scale.exists() else self._facts
        if changed := [name for name, fact in self._facts.items() if fact != before.get(name)]:
            raise InputError(
                "watch",
                "what the earlier scores of this run were taken by",
                f"other {', '.join(changed)}",
                "Set the Style Watch and the previews back, or train by another name.",
            )

    def _point(self, arm: Arm, done: int) -> Point:
        base = self._base(arm, done)
        vectors = Vectors(self._store)  # of this score alone, or all pictures would stay in memory
        measure = Measure(self._references, base, self._roles, vectors, paper=False, seed=0)
        style = style_similarity(measure.references, measure.style(arm), "pairwise")
        error = float(style.std(ddof=1) / np.sqrt(len(style))) if len(style) > 1 else 0.0
        drift = 0.0 if done == 0 else measure.drift(arm)
        copies = measure.copies(arm)
        near = None if copies is None else len(copies)
        return Point(done, float(style.mean()), error, _number(drift), near)

    def _base(self, arm: Arm, done: int) -> Arm | None:
        """The base's pictures: those of step 0, from the disk."""
        if done == 0:
            return arm
        files = sorted((self._folder / f"step_{0:06}").glob("plain_*.png"))
        if len(files) != len(arm.plain):
            return None
        return Arm("base", (), plain=tuple(map(as_picture, files)))

    def _keep_pictures(self, arm: Arm, done: int) -> None:
        for kind, pictures in (("drawn", arm.pictures), ("plain", arm.plain)):
            for place, picture in enumerate(pictures):
                name = f"{kind}_{place:03}.png"
                write_atomic(self._folder / f"step_{done:06}" / name, png(as_pil(picture)))


def _facts(comparison: Comparison, roles: Roles) -> dict[str, object]:
    """All that changes a score, as JSON has it; not the precision, which the card decides."""
    told = {part: {**facts, "precision": ""} for part, facts in roles.told().items()}
    return json.loads(json.dumps({**asdict(comparison), "encoders": told}))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _remove(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink(missing_ok=True)

"""One cell: trained once by the library's own loop, looked at along the way."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch

from nsync.denoiser import Denoiser
from nsync.learner import Learned
from nsync.runs.folder import RunFolder
from nsync.runs.log import RunStoppedError
from nsync.runs.parts import StepReport
from nsync.settings import TrainSettings
from nsync.style_set import StyleSet
from nsync.training import train

from .study import Cell, Study

logger = logging.getLogger(__name__)

Record = dict[str, object]
Look = Callable[[int, float], None]
"""Called with the steps done and the seconds of training so far."""

Loop = Callable[..., object]
"""`nsync.training.train`, or what takes the same arguments as far as a cell gives them."""


@dataclass(frozen=True)
class Looked:
    """What was seen after some steps: seconds of training so far, and the measures."""

    seconds: float
    metrics: Mapping[str, float]


class _Clock:
    """Seconds since `start`, without those that were spent in looking."""

    def __init__(self) -> None:
        self._begun = self._away = 0.0

    @contextmanager
    def started(self) -> Iterator[None]:
        """The context in which a model is made ready to be trained: training begins here."""
        self._begun = time.perf_counter()
        yield

    @contextmanager
    def stopped(self) -> Iterator[float]:
        """Time that does not count; yields the seconds before it."""
        now = time.perf_counter()
        try:
            yield now - self._begun - self._away
        finally:
            self._away += time.perf_counter() - now


class _Watcher:
    """Looks at the model at the right steps, and stops the run when a look failed.

    The trainer gives its previews the model as it would be saved, but takes a failure for a thing
    that must not cost a user the run. Here a run without its measures is worth nothing.
    """

    def __init__(self, measure_at: Sequence[int], look: Look) -> None:
        self._measure_at, self._look, self.clock = measure_at, look, _Clock()
        self._failed: Exception | None = None

    def preview(self, done: int) -> None:
        """Look, if it is time to."""
        if done in self._measure_at:
            self._now(done)

    def export(self, _: Learned, done: int) -> dict[str, Path]:
        """The weights are not kept; of a run that fell apart they are looked at before they go."""
        if done not in self._measure_at:
            self._now(done)
        return {}

    def check(self, _: StepReport | None = None) -> None:
        """Raise what a look raised."""
        if self._failed:
            raise self._failed

    def _now(self, done: int) -> None:
        with self.clock.stopped() as seconds:
            try:
                self._look(done, seconds)
            except Exception as error:
                self._failed = error
                raise


def train_cell(
    settings: TrainSettings,
    denoiser: Denoiser,
    style_set: StyleSet,
    measure_at: Sequence[int],
    look: Look,
    loop: Loop = train,
) -> list[dict[str, object]]:
    """Train, and call `look` after each of these steps while the model holds what was learned.

    A run whose loss explodes ends early, after a last look at what it had come to.

    Returns:
        The log of the run, a record per step.
    """
    watcher = _Watcher(measure_at, look)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            loop(
                settings, denoiser, style_set, folder, watcher.export,
                on_step=watcher.check, preview=watcher.preview, ready=watcher.clock.started,
            )  # fmt: skip
        except RunStoppedError as error:
            logger.warning("Fell apart: %s", error)
        watcher.check()
        return RunFolder(folder).records()


def records(
    study: Study, cell: Cell, found: Mapping[int, Looked], log: Sequence[Mapping[str, object]]
) -> list[Record]:
    """A record for each step of `measure_at`.

    After the step in which a run fell apart its last look stands for what would have come; such a
    record has the step under `fell_apart`.
    """
    last, made, since = max(found), [], 0
    for step, look in zip(study.measure_at, study.looks(study.arm(cell.arm)), strict=True):
        done = min(look, last)
        steps = [entry for entry in log if since < entry["step"] <= done]
        means = {name: _mean(steps, name) for name in ("cos_negative", "removed")}
        if done < look and made:  # no step of its own: the means are those of the record before
            means = means if steps else {name: made[-1]["metrics"][name] for name in means}
        record = _record(study, cell, step, done, found[done], means)
        made.append(record if done == look else {**record, "fell_apart": last})
        since = done
    return made


def base_record(study: Study, cell: Cell, metrics: Mapping[str, float]) -> Record:
    """The record of the untrained base."""
    means = {"cos_negative": None, "removed": None}
    return _record(study, cell, 0, 0, Looked(0.0, metrics), means)


def _record(
    study: Study,
    cell: Cell,
    step: int,
    done: int,
    looked: Looked,
    means: Mapping[str, float | None],
) -> Record:
    arm = study.arm(cell.arm) if done else None
    pictures = done * arm.pictures_per_step if arm else 0
    return {
        "study": study.name,
        "style": cell.style,
        "adapter": cell.adapter,
        "arm": cell.arm,
        "seed": cell.seed,
        "step": step,
        "positives_seen": done * arm.positives_per_step if arm else 0,
        "pictures_seen": pictures,
        "passes": pictures,
        "seconds": round(looked.seconds, 2),
        "cores": torch.get_num_threads(),
        "metrics": {**looked.metrics, **means},
    }


def _mean(entries: Sequence[Mapping[str, object]], name: str) -> float | None:
    values = [entry[name] for entry in entries if name in entry]
    return fmean(values) if values else None

"""What happens between the steps of a run: numbers are read, somebody is told, states are saved."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import torch

from .folder import RunFolder, State
from .log import DivergedError, RunLog, RunStoppedError
from .parts import Export, L, Learns, Pace, StepReport, TrainResult, Watch
from .readings import Readings
from .signals import held_back

logger = logging.getLogger(__name__)


@dataclass
class Session(Generic[L]):
    """One call of a trainer: the steps of a run from `begun` on.

    Args:
        pace: how often what is done; the settings.
        form: how the passes are made now; a run that is resumed is given it back.
        validation: measures on what is never trained on; its numbers go into the log, `VALIDATION`
            among them.

    Attributes:
        done: updates made in all.
        readings: takes the numbers of every step.
    """

    pace: Pace
    run: RunFolder
    log: RunLog
    learner: Learns[L]
    export: Export[L]
    begun: int
    form: Callable[[], dict[str, object]] = dict
    validation: Callable[[], Mapping[str, float]] | None = None
    on_step: Callable[[StepReport], None] | None = None
    preview: Callable[[int], None] | None = None
    watch: Watch[L] | None = None

    def __post_init__(self) -> None:
        self.done = self._saved = self._logged = self.begun
        self.readings = Readings()
        self._clock = _Clock()
        self._values: dict[str, float] = {}
        self._on_cpu = self.learner.on_cpu

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to train: all steps made, or no style to be gained."""
        watched = self.watch is not None and self.watch.is_over
        return watched or self.done == self.pace.steps

    @contextmanager
    def kept_if_stopped(self) -> Iterator[None]:
        """Save what was learned when the block ends early, whatever ended it, and say so."""
        try:
            yield
        except BaseException as error:
            told = f"Stopped after {self.done} steps"
            with held_back():
                saved = self._rescued(error)
            logger.warning("%s (%s); what was learned: %s", told, type(error).__name__, saved)
            if isinstance(error, RunStoppedError):
                weights = "weights" if isinstance(error, DivergedError) else "last good weights"
                text = f"{error} {told}; the {weights}: {saved}."
                raise type(error)(text) from error
            raise

    def look_at_the_start(self) -> None:
        """Draw and score at the start of a new run; validate where an old one was stopped before
        it did."""
        if self.pace.preview_every and not self.begun:
            self._harmless("preview", self.preview)
        if self.watch and not self.begun:
            self._harmless("score", self._score)
        if self.begun and self._is_validated(self.begun) and self.log.validated < self.begun:
            self._harmless("validation", self._validate)

    def after_step(self, done: int) -> bool:
        """Tell, look and save after a step, as far as it is time for it; whether to pause now.

        Raises:
            RunStoppedError: the numbers went bad.
            BaseException: what `on_step` raises, to stop the run.
        """
        self.done, last = done, done == self.pace.steps
        self._clock.lap()
        pause = _is_due(self.pace.pause_every, done) and not last
        saves = pause or last or _is_due(self.pace.save_every, done)
        validates = self._is_validated(done)
        warning = ""
        # Whoever saves or validates waits for the device anyway.
        if self._on_cpu or saves or validates or _is_due(self.pace.log_every, done):
            warning = self._read()
        if self.on_step:
            left = (self.pace.steps - done) * self._clock.pace
            seen = (self._values, self._logged)
            self.on_step(StepReport(done, self.pace.steps, *seen, warning, left))
        if validates:
            self._harmless("validation", self._validate)
        if self.pace.preview_every and (last or _is_due(self.pace.preview_every, done)):
            self._harmless("preview", self.preview)
        if self.watch and (last or _is_due(self.pace.score_every, done)):
            self._watch(self.watch)
        pause = pause or (self.is_over and not last)
        if saves or pause:
            self._save()
        return pause

    def exported(self) -> dict[str, Path]:
        """The files of what was learned, written; to be called while it is kept if that fails."""
        return dict(self.export(self.learner.learned(), self.done))

    def finish(self, files: Mapping[str, Path]) -> TrainResult:
        """Remember what came of these steps."""
        self.run.finish(self.done, files, self.pace.steps if self.is_over else 0)
        saved = ", ".join(map(str, files.values()))
        logger.info("Trained %d steps; saved %s", self.done, saved)
        return TrainResult(dict(files), self.log.losses, self.done, self.is_over)

    def _is_validated(self, done: int) -> bool:
        due = done == self.pace.steps or _is_due(self.pace.validate_every, done)
        return self.validation is not None and due

    def _read(self) -> str:
        """Log the numbers since the last reading; the latest warning."""
        warning, stop = "", None
        readings = self.readings.read()
        seconds = self._clock.pace
        for reading in readings:
            values = {**reading.values, "seconds": seconds}
            try:
                warning = self.log.add(reading.step, values, reading.fault) or warning
            except RunStoppedError as error:
                stop = stop or error  # later steps of the block were made as well, and are logged
            self._logged, self._values = reading.step, values
        if stop:
            raise stop
        return warning

    def _validate(self, done: int) -> None:
        self.log.note(done, self.validation())

    def _score(self, done: int) -> None:
        self.log.note(done, self.watch.look(done))

    def _watch(self, watch: Watch[L]) -> None:
        if self._harmless("score", self._score):
            # Not inside: what is kept is taken from the weights as they are trained.
            try:
                watch.keep(self.done, self.learner.learned())
            except Exception:
                logger.warning("The checkpoint could not be kept", exc_info=True)

    def _save(self) -> None:
        self._read()
        if self._logged < self.done:  # writing it failed; gone on with, the log would have a gap
            raise RuntimeError(f"Step {self.done} has no record in the log")
        self.log.flush()
        tensors, scalars = self.learner.state()
        state = State(self.done, tensors, scalars, self.form())
        self.run.save(state, self.pace.keep_last)
        self._saved = self.done

    def _rescued(self, error: BaseException) -> str:
        """Where what was learned is now, in words; whatever fails here is told, not raised."""
        if not self.done:
            return "nothing learned yet"
        try:
            # Half a step is no state of this run, and weights that have exploded are no use.
            whole = self.readings.latest <= self.done
            fit = whole and not isinstance(error, DivergedError)
            if fit and self.done > self._saved:
                self._save()
        except Exception:
            logger.warning("The state could not be saved", exc_info=True)
        try:
            files = self.export(self.learner.learned(), self.done)
            names = ", ".join(map(str, files.values()))
            return f"saved as {names}" if files else "left to process 0"
        except Exception as failure:
            return f"it could not be saved: {failure}"

    def _harmless(self, what: str, look: Callable[[int], None] | None) -> bool:
        """Look at the weights as they would be saved, and whether that went well; a failure never
        ends a run."""
        if look is None:
            return False
        try:
            with torch.no_grad(), self.learner.as_saved():
                look(self.done)
        except Exception:  # whatever a sampler or a full disk may raise: training goes on
            logger.warning("The %s after %d steps failed", what, self.done, exc_info=True)
            return False
        return True


def _is_due(every: int, done: int) -> bool:
    return every > 0 and done % every == 0


class _Clock:
    """Seconds per step, in the mean of the last ones."""

    def __init__(self) -> None:
        self._laps: deque[float] = deque([time.perf_counter()], maxlen=21)

    def lap(self) -> None:
        self._laps.append(time.perf_counter())

    @property
    def pace(self) -> float:
        return (self._laps[-1] - self._laps[0]) / max(1, len(self._laps) - 1)

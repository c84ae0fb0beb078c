"""What happens between the steps of a run: numbers are read, somebody is told, states are saved."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from .branches import BranchPasses
from .learner import Learned, Learner
from .readings import Readings
from .run_folder import RunFolder, State
from .run_log import VALIDATION, DivergedError, RunLog, RunStoppedError
from .settings import TrainSettings
from .validation import Validation

logger = logging.getLogger(__name__)

Export = Callable[[Learned, int], Mapping[str, Path]]
"""Writes what was learned in so many steps to files; their paths by kind."""


class Watch(Protocol):
    """Scores the style while it is trained; see `nsync.evaluation.watch`."""

    @property
    def is_over(self) -> bool:
        """Whether training on is of no use any more."""
        ...

    def begin(self, records: Sequence[Mapping[str, float]]) -> None:
        """Take up the scores of an earlier part of the run."""
        ...

    def look(self, done: int) -> Mapping[str, float]:
        """The scores of the model as it is after so many steps."""
        ...

    def keep(self, done: int, learned: Learned) -> None:
        """Keep the weights that were looked at last, if they may be the best."""
        ...


@dataclass(frozen=True)
class StepReport:
    """What is known after a step.

    Attributes:
        step: steps done, 1 after the first.
        steps: steps asked for.
        values: the numbers of the log by name (`loss_positive`, `cos_negative`, `removed`, ...), of
            the latest step that was read; empty before the first reading.
        warning: a sentence for the user, or "".
        remaining: seconds that the rest will take at the pace of the last steps.
    """

    step: int
    steps: int
    values: dict[str, float]
    warning: str
    remaining: float


@dataclass
class Session:
    """One call of the trainer: the steps of a run from `begun` on.

    Attributes:
        done: updates made in all.
        readings: takes the numbers of every step.
    """

    settings: TrainSettings
    run: RunFolder
    log: RunLog
    learner: Learner
    passes: BranchPasses
    validation: Validation
    export: Export
    begun: int
    on_step: Callable[[StepReport], None] | None
    preview: Callable[[int], None] | None
    watch: Watch | None

    def __post_init__(self) -> None:
        self.done = self._saved = self._logged = self.begun
        self.readings = Readings()
        self._clock = _Clock()
        self._values: dict[str, float] = {}
        self._on_cpu = all(v.device.type == "cpu" for v in self.learner.vectors)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to train: all steps made, or no style to be gained."""
        watched = self.watch is not None and self.watch.is_over
        return watched or self.done == self.settings.steps

    @contextmanager
    def kept_if_stopped(self) -> Iterator[None]:
        """Save what was learned when the block ends early, whatever ended it, and say so."""
        try:
            yield
        except BaseException as error:
            told = f"Stopped after {self.done} steps"
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
        if self.settings.preview_every and not self.begun:
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
        self.done, last = done, done == self.settings.steps
        self._clock.lap()
        pause = _is_due(self.settings.pause_every, done) and not last
        saves = pause or last or _is_due(self.settings.save_every, done)
        validates = self._is_validated(done)
        warning = ""
        # Whoever saves or validates waits for the device anyway.
        if self._on_cpu or saves or validates or _is_due(self.settings.log_every, done):
            warning = self._read()
        if self.on_step:
            left = (self.settings.steps - done) * self._clock.pace
            report = StepReport(done, self.settings.steps, self._values, warning, left)
            self.on_step(report)
        if validates:
            self._harmless("validation", self._validate)
        if self.settings.preview_every and (last or _is_due(self.settings.preview_every, done)):
            self._harmless("preview", self.preview)
        if self.watch and (last or _is_due(self.settings.score_every, done)):
            self._watch(self.watch)
        pause = pause or (self.is_over and not last)
        if saves or pause:
            self._save()
        return pause

    def _is_validated(self, done: int) -> bool:
        due = done == self.settings.steps or _is_due(self.settings.validate_every, done)
        return bool(self.validation) and due

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
        self.log.note(done, {VALIDATION: self.validation()})

    def _score(self, done: int) -> None:
        self.log.note(done, self.watch.look(done))

    def _watch(self, watch: Watch) -> None:
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
        state = State(self.done, tensors, scalars, self.passes.form)
        self.run.save(state, self.settings.keep_last)
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
            return f"saved as {', '.join(map(str, files.values()))}"
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

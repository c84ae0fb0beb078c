"""What a run tells while it goes: a record per step, and a word when something is wrong."""

import json
import logging
import math
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import TextIO

from ..errors import InputError

logger = logging.getLogger(__name__)

NEAR, FAR = 0.60, 0.01
PATIENCE = 50
EXPLODED = 5.0
POSITIVE, VALIDATION = "loss_positive", "loss_validation"
STRIKES = 3

_SKIPPED = "The step was skipped."


class RunStoppedError(RuntimeError):
    """The run cannot go on; the text says why, and where what was learned is."""


class NonFiniteError(RunStoppedError):
    """Losses or gradients were NaN or infinite in several steps running."""


class DivergedError(RunStoppedError):
    """The loss has risen far above where it was."""


class RunLog:
    """`log.jsonl`, one JSON object per step, and the watch over what it says.

    Args:
        path: the file; it is appended to. None where another process of the run does it.
        records: what it holds already.
        headline: the name of the loss that stands for a step; every step's record has it.
        watched: whether a headline loss that explodes ends the run. That of a GAN tells how two
            networks stand to each other, and may rise for good reason.

    Attributes:
        losses: the headline loss of every step that was not skipped.
        validated: the latest step whose validation loss was noted.
    """

    def __init__(
        self,
        path: Path | None,
        records: Sequence[Mapping[str, float]] = (),
        *,
        headline: str = POSITIVE,
        watched: bool = True,
    ) -> None:
        self._path, self._headline, self.losses = path, headline, []
        self._shares, self._strikes = ShareWatch(), 0
        self._watch = LossWatch() if watched else None
        self.validated = 0
        for record in records:
            self._see_again(record)

    def add(self, step: int, values: Mapping[str, float], fault: str = "") -> str:
        """Append a step's record; a sentence for the user where there is something to say.

        Args:
            fault: what was not finite in this step, in words; such a step was skipped.

        Raises:
            NonFiniteError: this was the third such step running.
            DivergedError: the loss has exploded.
            InputError: the disk is full.
        """
        skipped = f"{fault} {_SKIPPED}" if fault else ""
        warning = skipped or self._shares.see(values.get("removed"))
        self._write({"step": step, **values, **({"warning": warning} if warning else {})})
        if warning:
            logger.warning("Step %d: %s", step, warning)
        self._strikes = self._strikes + 1 if fault else 0
        if self._strikes == STRIKES:
            raise NonFiniteError(f"{fault} It is the {STRIKES}rd such step running.")
        if not fault and (exploded := self._see(values[self._headline])):
            raise DivergedError(exploded)
        return warning

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Append a record of what was measured after a step: a validation loss, a style score."""
        self._write({"step": step, **values})
        if VALIDATION in values:
            self.validated = step

    def flush(self) -> None:
        """Return when all records are on the disk.

        Raises:
            InputError: the disk is full.
        """
        if self._path is None:
            return
        with self._opened() as file:
            os.fsync(file.fileno())

    def _see_again(self, record: Mapping[str, float]) -> None:
        """Take a record of an earlier part of the run as it was taken when it was written."""
        if VALIDATION in record:
            self.validated = record["step"]
        elif self._headline not in record:
            return
        elif str(record.get("warning", "")).endswith(_SKIPPED):
            self._strikes = (self._strikes + 1) % STRIKES
        else:
            self._strikes = 0
            self._shares.see(record.get("removed"))
            self._see(record[self._headline])

    def _see(self, loss: float) -> str:
        self.losses.append(loss)
        return self._watch.see(loss) if self._watch else ""

    def _write(self, record: Mapping[str, object]) -> None:
        if self._path is None:
            return
        bad = {k for k, v in record.items() if isinstance(v, float) and not math.isfinite(v)}
        record = {name: None if name in bad else value for name, value in record.items()}
        with self._opened() as file:
            file.write(json.dumps(record) + "\n")

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                yield file
        except OSError as error:
            got = f"{type(error).__name__}: {error.strerror or error}"
            raise InputError("output", f"room to write {self._path}", got) from error


class LossWatch:
    """Tells when the loss has exploded: it wastes the night, and the weights.

    A single loss says little: with noise prediction it spans a factor of some hundred from full
    noise to none. Over a span like that the mean logarithm of the steps varies least by chance, far
    less than their median, and a single outlier does not move it.
    """

    FIRST, WINDOW = 25, 100

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=self.WINDOW)
        self._least = math.inf

    def see(self, loss: float) -> str:
        """A sentence when the geometric mean of the last `WINDOW` losses has risen above `EXPLODED`
        times its least so far, else "".

        It is looked at from `FIRST` losses on, when a warm-up usually ends.
        """
        self._recent.append(math.log(max(loss, sys.float_info.min)))
        if len(self._recent) < self.FIRST:
            return ""
        now = fmean(self._recent)
        self._least = min(self._least, now)
        if now - self._least <= math.log(EXPLODED):
            return ""
        return (
            f"The loss has exploded: {math.exp(now):.3g} in the geometric mean of the last "
            f"{len(self._recent)} steps, after {math.exp(self._least):.3g}. Lower the learning "
            "rate, or lengthen the warm-up."
        )


class ShareWatch:
    """Tells when the negatives remove next to nothing, or next to everything, for long."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=PATIENCE)

    def see(self, removed: float | None) -> str:
        """A sentence when the last `PATIENCE` shares all lie under 1 % or over 60 %, else "".

        After a sentence it waits for as many new steps before the next.
        """
        if removed is None:
            return ""
        self._recent.append(removed)
        if len(self._recent) < PATIENCE:
            return ""
        if max(self._recent) < FAR:
            return self._tell("under 1 %", "too far from the positives: they change nothing")
        if min(self._recent) > NEAR:
            return self._tell("over 60 %", "too near to the positives: they take the style away")
        return ""

    def _tell(self, share: str, meaning: str) -> str:
        self._recent.clear()
        return (
            f"The share of the positive gradient removed stayed {share} for {PATIENCE} steps: "
            f"the negatives are {meaning}."
        )

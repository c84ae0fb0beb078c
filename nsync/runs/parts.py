"""What a session of a run is made of, and what it tells, whatever is trained."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from torch import Tensor

from ..optimizers import Scalars

L = TypeVar("L")
"""What is learned, in the form in which it is exported."""

Export = Callable[[L, int], Mapping[str, Path]]
"""Writes what was learned in so many steps to files; their paths by kind."""


class Pace(Protocol):
    """How often what is done in a run; settings have these fields, see `TrainSettings`."""

    @property
    def steps(self) -> int:
        """Updates in all."""
        ...

    @property
    def log_every(self) -> int:
        """Steps between two readings of the numbers on the device."""
        ...

    @property
    def preview_every(self) -> int:
        """Steps between two previews; 0 draws none."""
        ...

    @property
    def validate_every(self) -> int:
        """Steps between two validations."""
        ...

    @property
    def save_every(self) -> int:
        """Steps between two states; 0 saves one only when the run stops."""
        ...

    @property
    def keep_last(self) -> int:
        """How many states are kept."""
        ...

    @property
    def pause_every(self) -> int:
        """Stop after every so many steps, to be run again; 0 never pauses."""
        ...

    @property
    def score_every(self) -> int:
        """Steps between two scores of a watch."""
        ...


class Learns(Protocol[L]):
    """Who holds what is trained, and all that the next step depends on."""

    @property
    def on_cpu(self) -> bool:
        """Whether there is no device to wait for."""
        ...

    def state(self) -> tuple[dict[str, Tensor], Scalars]:
        """All that the next step depends on: copies of tensors in main memory, and numbers."""
        ...

    def load(self, tensors: Mapping[str, Tensor], scalars: Scalars) -> None:
        """Go on, to the bit, from where `state` was taken."""
        ...

    def learned(self) -> L:
        """Copies of what would be saved now."""
        ...

    def as_saved(self) -> AbstractContextManager[None]:
        """For the block, the weights hold what would be saved; afterwards the very same bits."""
        ...


class Watch(Protocol[L]):
    """Scores the model while it is trained; see `nsync.evaluation.watch`."""

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

    def keep(self, done: int, learned: L) -> None:
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
        read: that step; before the first reading the one that this call began from. Off the CPU
            several steps are read at once, and until the next reading the values stay.
        warning: a sentence for the user, or "".
        remaining: seconds that the rest will take at the pace of the last steps.
    """

    step: int
    steps: int
    values: dict[str, float]
    read: int
    warning: str
    remaining: float


@dataclass(frozen=True)
class TrainResult:
    """What came of a run, or of its part up to a pause.

    Attributes:
        files: the exported files by kind, such as "lora" and "embedding".
        losses: the headline loss of every step, skipped ones left out; a LoRA's is the positive.
        step: updates made in all.
        over: nothing is left to train; else it was a pause.
    """

    files: dict[str, Path]
    losses: list[float]
    step: int
    over: bool

"""A step of a run as the library's own loop makes it, in parts that a trial can change."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from nsync.batches import EncodedSet, draw_batches
from nsync.branches import Batch, BranchResult
from nsync.denoiser import Denoiser
from nsync.learner import Learner
from nsync.passes import BranchPasses
from nsync.prompts import Prompts
from nsync.rules import refine_and_read
from nsync.settings import TrainSettings
from nsync.trained import Trained

from .choice import Trial

Batches = Mapping[str, Batch]
Branches = Mapping[str, BranchResult]


@dataclass(frozen=True)
class Running:
    """What a step is made with.

    Attributes:
        prior: the base's own pictures as negatives, with captions without the style token; None
            without prior preservation.
    """

    trial: Trial
    settings: TrainSettings
    denoiser: Denoiser
    encoded: EncodedSet
    prior: EncodedSet | None
    prompts: Prompts
    made: Trained
    learner: Learner
    passes: BranchPasses


@dataclass(frozen=True)
class Made:
    """A step's batches, losses and gradients by branch, its update, and numbers for the log."""

    batches: Batches
    branches: Branches
    update: list[Tensor]
    seen: dict[str, Tensor]


class Step:
    """A step as the library's own loop makes it: draw, pass, refine."""

    def __init__(self, running: Running) -> None:
        self.running, self.settings, self.trial = running, running.settings, running.trial
        self.passes = running.passes

    def __call__(self, step: int) -> Made:
        """Step `step` (0-based), but for clipping and the optimizer."""
        batches = self.draw(step)
        branches = self.passes(batches)
        return Made(batches, branches, *self.refined(branches))

    def draw(self, step: int) -> dict[str, Batch]:
        """The batches of the step."""
        return draw_batches(self.running.encoded, self.settings, step)

    def gradients(self, branches: Branches) -> dict[str, list[Tensor]]:
        """By branch, cut as the rule's scope wants them."""
        parts, scope = self.running.made.parts, self.settings.scope
        return {name: parts(branch.gradients, scope) for name, branch in branches.items()}

    def refined(self, branches: Branches) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The update, and what is to be logged of it."""
        return self.rule(self.gradients(branches))

    def rule(
        self, gradients: Mapping[str, Sequence[Tensor]]
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """What the arm's rule makes of gradients by branch."""
        options = {"scope": self.settings.scope, "weight": self.settings.weight}
        return refine_and_read(self.settings.rule, **gradients, **options)


def some_of(batch: Batch, rows: Sequence[int]) -> Batch:
    """Some items of a batch."""
    return Batch(
        names=tuple(batch.names[row] for row in rows),
        latents=tuple(batch.latents[row] for row in rows),
        prompts=tuple(batch.prompts[row] for row in rows),
        noise=tuple(batch.noise[row] for row in rows),
        times=batch.times[list(rows)],
    )


def summed(results: Sequence[BranchResult], weights: Sequence[float]) -> BranchResult:
    """All losses, and the weighted sum of the gradients."""
    kinds = zip(*(one.gradients for one in results), strict=True)
    sums = [
        sum(weight * one.double() for weight, one in zip(weights, of_kind, strict=True)).float()
        for of_kind in kinds
    ]
    return BranchResult(torch.cat([one.losses for one in results]), sums)


def copies(vectors: Sequence[Tensor]) -> list[Tensor]:
    """Their values as they are now."""
    return [vector.detach().clone() for vector in vectors]


@contextmanager
def weights_of(learner: Learner, values: Sequence[Tensor]) -> Iterator[None]:
    """For the block, the trained weights have these values; afterwards they have the old bits."""
    now = copies(learner.vectors)
    _write(learner, values)
    try:
        yield
    finally:
        _write(learner, now)


@torch.no_grad()
def _write(learner: Learner, values: Sequence[Tensor]) -> None:
    for vector, value in zip(learner.vectors, values, strict=True):
        vector.copy_(value)

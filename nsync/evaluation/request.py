"""What an evaluation is asked."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .arms import Arm, check_arms, check_paired
from .result import PAPER, STANDARD


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be judged.

    Attributes:
        references: pictures of the style, uint8 `[3, h, w]`, of any sizes; 5 or more for intervals.
        arms: what was drawn, in the order in which it is told.
        candidate: the arm that the verdict is about.
        baseline: the arm of the untuned model, or "".
        distractors: pictures of other styles; the baseline's where there are none.
        parity: one of `PARITIES` in `nsync.evaluation.result`.
        seed: of all resamples.
    """

    references: tuple[Tensor, ...]
    arms: tuple[Arm, ...]
    candidate: str
    baseline: str = ""
    distractors: tuple[Tensor, ...] = ()
    parity: str = STANDARD
    seed: int = 0

    @property
    def paper(self) -> bool:
        """Whether scores are to be those of the paper's tables."""
        return self.parity == PAPER

    @property
    def base(self) -> Arm | None:
        """The arm of the untuned model."""
        return next((arm for arm in self.arms if arm.name == self.baseline), None)

    def ordered(self) -> list[Arm]:
        """The arms, the candidate first."""
        return sorted(self.arms, key=lambda arm: arm.name != self.candidate)


def check(request: Request) -> None:
    """Refuse what cannot be judged.

    Raises:
        InputError: fewer than 2 references, references that are all the same, arms that do not
            answer to each other, a candidate or baseline that is none of them.
    """
    check_references(request.references)
    check_arms(request.arms)
    names = [arm.name for arm in request.arms]
    for what in ("candidate", "baseline"):
        name = getattr(request, what)
        if name not in names and (name or what == "candidate"):
            raise InputError(what, f"one of the arms, {', '.join(names)}", repr(name))
    candidate = request.ordered()[0]
    for arm in request.arms:
        check_paired(arm, candidate)


def check_references(references: Sequence[Tensor]) -> None:
    """Raise `InputError` for fewer than 2 references, or references that are all the same."""
    if len(references) < 2:
        remedy = "Five or more are needed for intervals and p-values."
        got = str(len(references))
        raise InputError("references", "at least two pictures of the style", got, remedy)
    if all_equal(references):
        got = f"{len(references)} times the same picture"
        raise InputError("references", "different pictures of the style", got)


def all_equal(pictures: Sequence[Tensor]) -> bool:
    """Whether all are one picture."""
    first = pictures[0]
    return all(one.shape == first.shape and torch.equal(one, first) for one in pictures[1:])

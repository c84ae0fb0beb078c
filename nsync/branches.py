"""Branches of a step: each learns from a batch of its own and leaves a gradient of its own."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import InputError
from .processes import Processes


@contextmanager
def branch(weights: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """A branch of a training loop of your own: what the block's backward leaves in `.grad` is the
    branch's gradient, and is taken out again, so that no branch leaks into another.

    Args:
        weights: what is trained, in the order of `nsync.rules.refine`'s lists.

    Yields:
        A list, filled when the block ends: a gradient per weight in its shape, dtype and device;
        zeros where none arrived.

    Raises:
        InputError: a weight has a gradient already when the block begins.
    """
    weights = list(weights)
    if any(weight.grad is not None for weight in weights):
        got = "some that have one"
        remedy = "Call optimizer.zero_grad(set_to_none=True) before the first branch."
        raise InputError("weights", "trained weights without a gradient", got, remedy)
    gradients: list[Tensor] = []
    try:
        yield gradients
        for weight in weights:
            gradients.append(torch.zeros_like(weight) if weight.grad is None else weight.grad)
    finally:
        for weight in weights:
            weight.grad = None


@dataclass(frozen=True)
class Batch:
    """What one branch learns from in one step: this process's share of it, all of it if alone.

    Attributes:
        names: of all its items, those of other processes too; the same item may come twice.
        latents: of the share, `n` tensors `[c, h, w]`; their sizes may differ (buckets).
        prompts: `n` texts.
        noise: `n` tensors shaped like the latents.
        times: float32 `[n]`, 0..1.
    """

    names: tuple[str, ...]
    latents: tuple[Tensor, ...]
    prompts: tuple[str, ...]
    noise: tuple[Tensor, ...]
    times: Tensor


@dataclass(frozen=True)
class BranchResult:
    """Losses `[n]` of a branch's items, and the gradient of their mean, one vector per kind of
    weights (see `Trained.stores`).

    Of a share of the items the gradients are its part in that of all: the shares add up to it.
    """

    losses: Tensor
    gradients: list[Tensor]


def over_all(
    processes: Processes, batches: Mapping[str, Batch], branches: Mapping[str, BranchResult]
) -> dict[str, BranchResult]:
    """The branches over the items of all processes, from their shares, in one exchange.

    A rule is not linear, so it wants the gradients of the whole batch.

    Raises:
        ProcessLostError: another process has stopped.
    """
    parts: list[Tensor] = []
    for name, found in branches.items():
        losses = found.losses.new_zeros(len(batches[name].names))
        losses[processes.share] = found.losses
        parts += [losses, *found.gradients]
    whole = iter(processes.summed(parts))
    return {
        name: BranchResult(next(whole), [next(whole) for _ in found.gradients])
        for name, found in branches.items()
    }

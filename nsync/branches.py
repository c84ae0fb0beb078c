"""One gradient per branch: of the mean denoising loss on positives, on negatives, on anchors."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .denoiser import Denoiser, take

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """What one branch learns from in one step.

    Attributes:
        names: of the items, `n` of them; the same item may come twice.
        latents: `n` tensors `[c, h, w]`; their sizes may differ (buckets).
        conditioning: `n` rows.
        noise: `n` tensors shaped like the latents.
        times: float32 `[n]`, 0..1.
    """

    names: tuple[str, ...]
    latents: tuple[Tensor, ...]
    conditioning: Mapping[str, Tensor]
    noise: tuple[Tensor, ...]
    times: Tensor


@dataclass(frozen=True)
class BranchResult:
    """Losses `[n]` of a branch's items, and the gradient of their mean, one tensor a parameter."""

    losses: Tensor
    gradients: list[Tensor]


class BranchPasses:
    """The gradient of each branch by itself, one pass after the other: the reference form.

    Nothing is left in `.grad`, so no branch can leak into another. Pictures of different sizes in
    a batch are passed in groups of one size, with the same mean.

    Args:
        parameters: what the gradients are of.
        precision: "fp32", or "bf16" for the network's arithmetic under autocast.
    """

    def __init__(
        self, denoiser: Denoiser, parameters: Sequence[nn.Parameter], precision: str = "fp32"
    ) -> None:
        self._denoiser, self._parameters, self._precision = denoiser, parameters, precision
        self._overwrites = False

    def __call__(self, batches: Mapping[str, Batch]) -> dict[str, BranchResult]:
        """Losses and gradients of the branches, by name."""
        return {name: self._branch(batch) for name, batch in batches.items()}

    def _branch(self, batch: Batch) -> BranchResult:
        device, count = self._denoiser.device, len(batch.names)
        losses = torch.zeros(count, device=device)
        total: list[Tensor] = []
        for rows in _same_size(batch):
            inputs = (
                torch.stack([batch.latents[row] for row in rows]).to(device),
                {k: v.to(device) for k, v in take(batch.conditioning, rows).items()},
                torch.stack([batch.noise[row] for row in rows]).to(device),
                batch.times[rows].to(device),
            )
            losses[rows], found = self._pass(inputs, count)
            total = [a + b for a, b in zip(total, found, strict=True)] if total else list(found)
        return BranchResult(losses, total)

    def _pass(self, inputs: tuple, count: int) -> tuple[Tensor, Sequence[Tensor]]:
        try:
            with _saving_overwritten() if self._overwrites else nullcontext():
                with _arithmetic(self._precision, self._denoiser.device):
                    losses = self._denoiser.loss(*inputs).float()
                mean = losses.sum() / count
                found = torch.autograd.grad(mean, self._parameters, materialize_grads=True)
            return losses.detach(), found
        except RuntimeError as error:
            if self._overwrites or "modified by an inplace operation" not in str(error):
                raise
        # Written for drawing alone, the network (Flux is one) overwrites what a backward pass
        # needs. From now on that is copied first; other networks are spared the cost.
        logger.info("The network overwrites its activations: they are copied from now on")
        self._overwrites = True
        return self._pass(inputs, count)


_saving_overwritten = torch.autograd.graph.allow_mutation_on_saved_tensors


def _same_size(batch: Batch) -> list[list[int]]:
    groups: dict[torch.Size, list[int]] = {}
    for row, latents in enumerate(batch.latents):
        groups.setdefault(latents.shape, []).append(row)
    return list(groups.values())


def _arithmetic(precision: str, device: torch.device) -> AbstractContextManager:
    if precision == "bf16":
        return torch.amp.autocast(device.type, torch.bfloat16)
    return nullcontext()

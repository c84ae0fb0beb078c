"""One gradient per branch: of the mean denoising loss on positives, on negatives, on anchors."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .denoiser import Denoiser, take


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


def branch_gradients(
    denoiser: Denoiser,
    parameters: Sequence[nn.Parameter],
    batches: Mapping[str, Batch],
    precision: str = "fp32",
) -> dict[str, BranchResult]:
    """The gradient of each branch by itself, one pass after the other: the reference form.

    Nothing is left in `.grad`, so no branch can leak into another. Pictures of different sizes in
    a batch are passed in groups of one size, with the same mean.

    Args:
        precision: "fp32", or "bf16" for the network's arithmetic under autocast.
    """
    return {
        name: _one_branch(denoiser, parameters, batch, precision) for name, batch in batches.items()
    }


def _one_branch(
    denoiser: Denoiser, parameters: Sequence[nn.Parameter], batch: Batch, precision: str
) -> BranchResult:
    count = len(batch.names)
    losses = torch.zeros(count, device=denoiser.device)
    total: list[Tensor] = []
    for rows in _same_size(batch):
        with _arithmetic(precision, denoiser.device):
            part = denoiser.loss(
                torch.stack([batch.latents[row] for row in rows]).to(denoiser.device),
                {k: v.to(denoiser.device) for k, v in take(batch.conditioning, rows).items()},
                torch.stack([batch.noise[row] for row in rows]).to(denoiser.device),
                batch.times[rows].to(denoiser.device),
            )
        found = torch.autograd.grad(part.float().sum() / count, parameters, materialize_grads=True)
        total = [a + b for a, b in zip(total, found, strict=True)] if total else list(found)
        losses[rows] = part.detach().float()
    return BranchResult(losses, total)


def _same_size(batch: Batch) -> list[list[int]]:
    groups: dict[torch.Size, list[int]] = {}
    for row, latents in enumerate(batch.latents):
        groups.setdefault(latents.shape, []).append(row)
    return list(groups.values())


def _arithmetic(precision: str, device: torch.device) -> AbstractContextManager:
    if precision == "bf16":
        return torch.amp.autocast(device.type, torch.bfloat16)
    return nullcontext()

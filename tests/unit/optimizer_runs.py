"""Small runs of every optimizer: two groups of weights, a noisy quadratic, a falling rate."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from nsync.optimizers import OPTIMIZERS, make_optimizer, schedule_factor, set_rates

Array = NDArray[np.float64]
EVERY = ("adamw", "adamw-8bit", "prodigy", "schedule-free adamw", "lion")
EXACT = tuple(name for name in EVERY if name != "adamw-8bit")
SIZES = {"lora": 5000, "embedding": 300}
"""Above and below the 4096 elements from which on 8 bits are used, and no multiple of a block."""
RATES = {"lora": 1e-2, "embedding": 3e-3}
DECAYS = {"lora": 0.5, "embedding": 0.1}
STEPS, WARMUP = 20, 3


def starts() -> dict[str, Array]:
    source = np.random.default_rng(0)
    return {name: source.standard_normal(size) for name, size in SIZES.items()}


def gradient(point: Array, step: int) -> Array:
    """Of a quadratic around 0.7, with noise of its own per step."""
    return point - 0.7 + 0.5 * np.random.default_rng(step + 1).standard_normal(len(point))


def parameters(values: dict[str, Array]) -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.tensor(x, dtype=torch.float32)) for name, x in values.items()}


def made(name: str, groups: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    rates = dict.fromkeys(groups, 1.0) if name == "prodigy" else RATES
    return make_optimizer(name, groups, rates, DECAYS)


def factor(step: int, steps: int = STEPS) -> float:
    return schedule_factor("cosine", step, steps, WARMUP)


def go(
    optimizer: torch.optim.Optimizer,
    groups: dict[str, nn.Parameter],
    first: int,
    end: int,
    steps: int = STEPS,
) -> None:
    for step in range(first, end):
        for parameter in groups.values():
            point = parameter.detach().double().numpy()
            parameter.grad = torch.from_numpy(gradient(point, step)).float()
        set_rates(optimizer, factor(step, steps))
        optimizer.step()


def need(name: str) -> None:
    """Skip where bitsandbytes is not there, or not able to make a step on the CPU."""
    if name != "adamw-8bit":
        return
    if name not in OPTIMIZERS:
        pytest.skip("bitsandbytes is not installed; it is optional")
    groups = parameters(starts())
    try:
        go(made(name, groups), groups, 0, 1)
    except Exception as error:
        pytest.skip(f"bitsandbytes cannot make a step on this CPU: {error!r}")

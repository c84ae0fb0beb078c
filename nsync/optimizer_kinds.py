"""The optimizers one by one: how each is built, and what it remembers from step to step."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer


@dataclass(frozen=True)
class Kind:
    """How an optimizer is built, from which module, and what it remembers.

    Attributes:
        states: names, apart by blanks, that the state of a parameter consists of once a step was
            made; one line of them or the other.
        estimates: names of the numbers in a parameter group that steps change.
    """

    build: Callable[[list[dict]], Optimizer]
    module: str
    states: tuple[str, ...]
    estimates: str = ""


def _adamw(groups: list[dict]) -> Optimizer:
    # One pass over the memory instead of ten. On the CPU that takes a third of the time, and the
    # bits depend neither on the number of threads nor on an element's place.
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, fused=fused)


def _adamw_8bit(groups: list[dict]) -> Optimizer:
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(groups)


def _prodigy(groups: list[dict]) -> Optimizer:
    from prodigyopt import Prodigy

    return Prodigy(groups, use_bias_correction=True, safeguard_warmup=True)


def _schedule_free(groups: list[dict]) -> Optimizer:
    from schedulefree import AdamWScheduleFree

    optimizer = AdamWScheduleFree(groups)
    optimizer.train()
    return optimizer


def _lion(groups: list[dict]) -> Optimizer:
    from lion_pytorch import Lion

    return Lion(groups)


KINDS = {
    "adamw": Kind(_adamw, "torch", ("step exp_avg exp_avg_sq",)),
    "adamw-8bit": Kind(
        _adamw_8bit,
        "bitsandbytes",
        ("step state1 state2 qmap1 qmap2 absmax1 absmax2", "step state1 state2"),
    ),
    "prodigy": Kind(
        _prodigy, "prodigyopt", ("step s p0 exp_avg exp_avg_sq",), "d d_max d_numerator k"
    ),
    "schedule-free adamw": Kind(
        _schedule_free, "schedulefree", ("z exp_avg_sq",), "k weight_sum lr_max"
    ),
    "lion": Kind(_lion, "lion_pytorch", ("exp_avg",)),
}


def shapes(part: str, parameter: Tensor) -> tuple[tuple[int, ...], ...]:
    """The shapes that a tensor in the state of a parameter may have."""
    blocks = (math.ceil(parameter.numel() / 256),)
    special = {
        "step": ((),),
        "p0": ((), parameter.shape),  # a single 0 stands for a parameter that began as zeros
        "qmap1": ((256,),),  # the numbers that 8 bits stand for
        "qmap2": ((256,),),
        "absmax1": (blocks,),
        "absmax2": (blocks,),
    }
    return special.get(part, (parameter.shape,))

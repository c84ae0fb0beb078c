"""CUDA's rules of autocast on a CPU, where no GPU is at hand to apply them.

Under autocast, CUDA normalises in float32 (group_norm and layer_norm are on its list of float32
operations), a CPU does not. Of all that differs between the two lists, only these occur in the
networks measured here. What they return is kept for backward: it counts.
"""

import torch
from torch import Tensor, library
from torch._C import DispatchKey, DispatchKeySet, _ExcludeDispatchKeyGuard

_overrides = library.Library("aten", "IMPL")


def follow_cuda() -> None:
    """From now on, in this process, autocast on the CPU normalises in float32."""
    for name in ("group_norm", "layer_norm"):
        _overrides.impl(name, _in_float32(name), "AutocastCPU")


def _in_float32(name: str) -> object:
    operation = getattr(torch.ops.aten, name).default

    def run(*args: object) -> Tensor:
        with _ExcludeDispatchKeyGuard(DispatchKeySet(DispatchKey.AutocastCPU)):
            return operation(*(a.float() if isinstance(a, Tensor) else a for a in args))

    return run

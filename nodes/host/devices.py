"""Networks of our own where the host computes: lent, and given back."""

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management as management
import torch
from torch import nn

EVERYTHING = 1 << 60
"""Bytes that no device has: the host puts all of its models aside."""


@contextmanager
def at_work(room: int, *modules: nn.Module) -> Iterator[torch.device]:
    """For the block, modules are on the host's device and its inference mode is off.

    Afterwards they are in main memory again, whatever happened.

    Args:
        room: bytes that the host makes free for it on a GPU.
    """
    device = management.get_torch_device()
    on_cpu = device.type == "cpu"
    # Inside the mode, weights that are moved would become tensors that nothing can train.
    with torch.inference_mode(False):
        if not on_cpu:
            management.free_memory(room, device)
        try:
            for module in modules:
                module.to(device)
            yield device
        finally:
            for module in modules:
                module.to("cpu")
            if not on_cpu:
                management.soft_empty_cache()


def weight_of(*modules: nn.Module) -> int:
    """Bytes that the modules' tensors take."""
    tensors = (tensor for module in modules for tensor in module.state_dict().values())
    return sum(tensor.nbytes for tensor in tensors)

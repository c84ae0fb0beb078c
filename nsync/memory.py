"""The device's memory: how much is free, what running out of it looks like."""

import torch

# Of main memory; of a driver, past torch's own allocator, and of MPS; of cuBLAS and cuDNN.
_SIGNS = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")


class OutOfMemoryError(RuntimeError):
    """Not even the smallest pass fits into the device's memory; the text says what to change."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or in main memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
    )


def free_memory(device: torch.device) -> int:
    """Bytes that new tensors can take on a CUDA device, torch's own unused reserve included."""
    free, _ = torch.cuda.mem_get_info(device)
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + reserve


def release_memory(device: torch.device) -> None:
    """Give torch's unused reserve back, so that it can be cut anew."""
    if device.type == "cuda":
        torch.cuda.empty_cache()

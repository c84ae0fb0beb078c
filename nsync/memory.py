"""The device's memory: how much is free, what running out of it looks like, how to go on then."""

from collections.abc import Callable

import torch
from torch import Tensor

# Of main memory; of a driver, past torch's own allocator, and of MPS; of cuBLAS and cuDNN.
_SIGNS = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")

BATCH_PIXELS = 1024 * 1024
"""Pictures are drawn together up to this many pixels."""


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


class Parts:
    """A batch that goes through a network without gradient, in parts that fit into memory.

    Args:
        most: rows of a part, until memory runs out: then half as many, from then on.
    """

    def __init__(self, most: int) -> None:
        self._most = most

    def __call__(
        self, count: int, run: Callable[[slice], Tensor], device: torch.device, too_large: str
    ) -> Tensor:
        """What `run` makes of all rows, given a part of them at a time.

        Args:
            too_large: what to say if a single row does not fit.

        Raises:
            OutOfMemoryError: it does not.
        """
        found, start = [], 0
        while start < count:
            part = slice(start, min(start + self._most, count))
            try:
                found.append(run(part))
                start = part.stop
                continue
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if part.stop - start == 1:
                    raise OutOfMemoryError(too_large) from error
            # Only here, with the exception gone, are the failed pass's activations free.
            self._most = (part.stop - start) // 2
            release_memory(device)
        return torch.cat(found)


def pictures_at_once(size: tuple[int, int]) -> int:
    """How many pictures of (width, height) are drawn together if memory suffices."""
    return max(1, BATCH_PIXELS // (size[0] * size[1]))


def too_large(size: tuple[int, int]) -> str:
    """What to say of a picture of (width, height) that cannot be drawn."""
    return (
        f"One picture of {size[0]} x {size[1]} px does not fit into memory. Choose a smaller size, "
        "or close what else uses the device."
    )

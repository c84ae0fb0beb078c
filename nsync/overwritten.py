"""Networks that overwrite what backward needs: written for drawing alone, some do.

Autograd finds that out as well, but then keeps the failed pass's graph for good: a tensor that is
overwritten after it was saved holds, by its new history, the very node that saved it.
"""

from contextlib import AbstractContextManager

from torch import Tensor
from torch.autograd.graph import allow_mutation_on_saved_tensors, saved_tensors_hooks


class OverwrittenError(RuntimeError):
    """Backward needs a tensor whose values are no longer those that were saved."""


def watched() -> AbstractContextManager:
    """For one forward and its backward: raise OverwrittenError where values were overwritten.

    It costs some microseconds for each tensor that is saved.
    """
    return saved_tensors_hooks(_save, _give)


def copied() -> AbstractContextManager:
    """For one forward and its backward: what is about to be overwritten is copied first."""
    return allow_mutation_on_saved_tensors()


def _save(value: Tensor) -> tuple[Tensor, int]:
    value = value.detach()  # the same values and version, without the history
    return value, value._version


def _give(saved: tuple[Tensor, int]) -> Tensor:
    value, version = saved
    if value._version != version:
        raise OverwrittenError(f"a tensor {list(value.shape)} that backward needs was overwritten")
    return value

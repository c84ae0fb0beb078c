"""The bytes of all tensors alive, real or fake, followed operation by operation."""

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA_BLOCK = 512
"""CUDA's allocator rounds every tensor up to multiples of so many bytes."""


class LiveMemory(TorchDispatchMode):
    """While it is entered, counts every storage that an operation makes until it is freed.

    It sees what autograd keeps for backward and what an operation returns, and not what a kernel
    takes for itself while it runs.

    Args:
        block: every storage counts as a multiple of so many bytes.

    Attributes:
        now: bytes alive.
        peak: the most that `now` has been since the last `restart`.
    """

    def __init__(self, block: int) -> None:
        super().__init__()
        self._block, self._alive = block, {}
        self.now = self.peak = 0

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were there before."""
        for tensor in tensors:
            self._add(tensor.untyped_storage())

    def restart(self) -> None:
        """Forget the peak."""
        self.peak = self.now

    def __torch_dispatch__(
        self, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = function(*args, **(kwargs or {}))
        self.hold(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._alive:
            return
        size = -(-storage.nbytes() // self._block) * self._block

        def freed(_: object) -> None:
            del self._alive[key]
            self.now -= size

        # A storage keeps its Python object as long as it lives, and the object its id.
        self._alive[key] = weakref.ref(storage, freed)
        self.now += size
        self.peak = max(self.peak, self.now)

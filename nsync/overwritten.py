"""Networks that overwrite what backward needs: written for drawing alone, some do.

Autograd finds that out as well, but then keeps the failed pass's graph for good: a tensor that is
overwritten after it was saved holds, by its new history, the very node that saved it.

torch's own answer, `allow_mutation_on_saved_tensors`, tells tensors apart by their addresses. The
one that it has copied is free to go, another may then come to lie where that one lay, and backward
is given the copy of the first for the second: wrong gradients, in some runs, without a word.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from weakref import WeakSet

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode


class OverwrittenError(RuntimeError):
    """Backward needs a tensor whose values are no longer those that were saved."""


@contextmanager
def watched() -> Iterator[None]:
    """For a forward pass: OverwrittenError at its end where values were overwritten.

    Before any backward pass, which would leave some of its work behind in autograd's queue. It
    costs some microseconds for each tensor that is saved.
    """
    seen: WeakSet[_Saved] = WeakSet()

    def save(value: Tensor) -> _Saved:
        saved = _Saved(value)
        seen.add(saved)
        return saved

    with saved_tensors_hooks(save, _Saved.give):
        yield
    for saved in seen:
        saved.give()


@contextmanager
def copied() -> Iterator[None]:
    """For a forward pass: what is about to be overwritten is copied first.

    It costs some microseconds for each operator, and what is copied takes its room twice.
    """
    copies = _CopiesBeforeWrites()
    with saved_tensors_hooks(copies.save, _Saved.give), copies:
        yield


class _Saved:
    """A tensor that backward needs."""

    def __init__(self, value: Tensor) -> None:
        self.hold(value.detach())  # the same values and version, without the history

    def hold(self, value: Tensor) -> None:
        """Keep this one from now on."""
        self.value, self._version = value, value._version

    def give(self) -> Tensor:
        """The values that were saved; OverwrittenError if they are lost."""
        if self.value._version != self._version:
            shape = list(self.value.shape)
            raise OverwrittenError(f"a tensor {shape} that backward needs was overwritten")
        return self.value


class _CopiesBeforeWrites(TorchDispatchMode):
    """Before an operator writes into memory, what is saved of that memory is copied."""

    def __init__(self) -> None:
        super().__init__()
        # By the memory they lie in. As long as one of them is there the memory is not free, and
        # the number is no other's; once they are copied they are struck off.
        self._saved: dict[int, WeakSet[_Saved]] = {}

    def save(self, value: Tensor) -> _Saved:
        saved = _Saved(value)
        self._saved.setdefault(_memory(value), WeakSet()).add(saved)
        return saved

    def __torch_dispatch__(
        self,
        func: Callable,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            for value in _written(func, args, kwargs):
                self._copy(value)
        return func(*args, **kwargs)

    def _copy(self, written: Tensor) -> None:
        copies: dict[tuple, Tensor] = {}  # one for a tensor that several operators have saved
        for saved in self._saved.pop(_memory(written), ()):
            value = saved.value
            view = value.dtype, value.storage_offset(), value.shape, value.stride()
            if view not in copies:
                copies[view] = value.clone()
            saved.hold(copies[view])


def _memory(value: Tensor) -> int:
    return value.untyped_storage()._cdata


def _written(
    func: Callable, args: Sequence[object], kwargs: Mapping[str, object]
) -> Iterator[Tensor]:
    """The tensors that a call of an operator writes into."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            members = value if isinstance(value, list | tuple) else [value]
            yield from (member for member in members if isinstance(member, torch.Tensor))

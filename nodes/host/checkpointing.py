"""Gradient checkpointing of the host's networks, from outside: they have none of their own.

torch's own `checkpoint` does not do: written for drawing, some blocks (Flux's) overwrite what they
have just computed, and where that happens in a block's second run it gives wrong gradients without
a word.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


@contextmanager
def checkpointing(network: nn.Module) -> Iterator[None]:
    """For the block, every block of the network keeps its inputs only (arXiv 1604.06174)."""
    chosen = list(blocks(network))
    before = [block.__dict__.get("forward") for block in chosen]
    try:
        for block in chosen:
            block.forward = _Recomputed(block.forward)
        yield
    finally:
        for block, own in zip(chosen, before, strict=True):
            block.__dict__.pop("forward", None)
            if own is not None:  # put there by somebody else
                block.forward = own


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of the network's lists of layers that have layers themselves."""
    for child in module.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from blocks(child)
        elif isinstance(module, nn.ModuleList | nn.Sequential) and any(child.children()):
            yield child


class _Recomputed:
    """A block's forward, of which autograd keeps the inputs instead of all that lies between.

    Attributes:
        overwritten: which of the tensors that backward needs the block has overwritten so far, by
            the order in which autograd saves them.
    """

    def __init__(self, forward: Callable) -> None:
        self.forward = forward
        self.overwritten: set[int] = set()

    def __call__(self, *args: object, **kwargs: object) -> object:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        call = _Call(self, args, kwargs)
        with saved_tensors_hooks(call.pack, call.unpack):
            return self.forward(*map(_copy, args), **{k: _copy(v) for k, v in kwargs.items()})


class _Call:
    """One call of a block: what autograd would have saved of it, made again when it is needed."""

    def __init__(
        self, block: _Recomputed, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> None:
        # The network changes its options from block to block.
        values = [dict(v) if isinstance(v, dict) else v for v in (*args, *kwargs.values())]
        self._block, self._names = block, list(kwargs)
        self._others = [None if isinstance(value, Tensor) else value for value in values]
        tensors = [value for value in values if isinstance(value, Tensor)]
        self._inputs = _Inputs.apply(torch.empty(0, requires_grad=True), *tensors)
        self._places = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
        self._arithmetic = _arithmetic(tensors)
        self._saved = 0
        self._values: list[Tensor] | None = None

    def pack(self, _: Tensor) -> int:
        """Autograd saves a tensor: it gets its number."""
        self._saved += 1
        return self._saved - 1

    def unpack(self, number: int) -> Tensor:
        """Autograd wants the tensor back."""
        if self._values is None:
            self._values = self._run_again()
        return self._values[number]

    def _run_again(self) -> list[Tensor]:
        """The tensors as they were when autograd saved them, in order."""
        while True:
            values, versions = [], []

            def keep(value: Tensor, values: list = values, versions: list = versions) -> None:
                copied = len(values) in self._block.overwritten
                values.append(value.detach().clone() if copied else value.detach())
                versions.append(values[-1]._version)

            with torch.enable_grad(), self._arithmetic(), saved_tensors_hooks(keep, _never):
                args, kwargs = self._given()
                self._block.forward(*args, **kwargs)
            found = {i for i, v in enumerate(values) if v._version != versions[i]}
            if not found:
                return values
            self._block.overwritten |= found

    def _given(self) -> tuple[list[object], dict[str, object]]:
        """The inputs once more, copied, since the block may overwrite them."""
        values = list(self._others)
        for place, tensor in zip(self._places, self._inputs.grad_fn.saved_tensors, strict=True):
            values[place] = tensor
        values = list(map(_copy, values))
        count = len(values) - len(self._names)
        return values[:count], dict(zip(self._names, values[count:], strict=True))


class _Inputs(torch.autograd.Function):
    """Saves tensors as any operation does: whoever overwrites them meanwhile is found out."""

    @staticmethod
    def forward(ctx: object, _: Tensor, *tensors: Tensor) -> Tensor:
        """Its result is of no use but for what it remembers."""
        ctx.save_for_backward(*tensors)
        return torch.empty(0)


def _copy(value: object) -> object:
    if isinstance(value, Tensor):
        return value.clone()
    return dict(value) if isinstance(value, dict) else value


def _arithmetic(tensors: Sequence[Tensor]) -> Callable[[], AbstractContextManager]:
    """Autocast as it is now; backward may run in a thread that knows nothing of it."""
    kind = tensors[0].device.type if tensors else "cpu"
    dtype, enabled = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
    return lambda: torch.autocast(kind, dtype, enabled)


def _never(_: object) -> Tensor:
    raise AssertionError("no gradient is taken through a block's second run")

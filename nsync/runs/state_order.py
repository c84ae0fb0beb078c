"""The order of trained weights in a state, told by names that every door to a model has.

Trained weights lie one after the other in one vector, and so do an optimizer's moments of them.
Their order is that of the layers in the network, and a ComfyUI UNet has its layers in another order
than a diffusers UNet, under other names. What both know is how a LoRA file calls each layer: a
state that tells its weights by these names can be gone on with from either.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import InputError

Order = Sequence[tuple[str, int]]
"""(name, length) of each weight, in the order in which they lie in the vector."""

_ORDER = "order."


def order_of(sizes: Mapping[str, int], names: Mapping[str, str]) -> Order:
    """The order of a vector.

    Args:
        sizes: length of each weight by `<layer>.<part>`, in order; or by a text encoder's name.
        names: what a LoRA file calls the layers; those without keep their own names.
    """
    order = []
    for key, size in sizes.items():
        layer, dot, part = key.rpartition(".")
        order.append((f"{names.get(layer, layer)}{dot}{part}", size))
    return order


def with_order(scalars: Mapping[str, object], orders: Mapping[str, Order]) -> dict[str, object]:
    """The state's scalars with the order of each kind of weights."""
    told = {kind: " ".join(f"{name}={size}" for name, size in order) for kind, order in
            orders.items()}  # fmt: skip
    return {**scalars, **{_ORDER + kind: text for kind, text in told.items()}}


def in_order(
    tensors: Mapping[str, Tensor], scalars: Mapping[str, object], orders: Mapping[str, Order]
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """A state's tensors in these orders, and its scalars without any.

    A state that tells no order was written before there were several.

    Raises:
        InputError: it is of other weights, or of an optimizer that does not keep its numbers weight
            by weight.
    """
    tensors, scalars = dict(tensors), dict(scalars)
    for kind, order in orders.items():
        text = scalars.pop(_ORDER + kind, None)
        before = None if text is None else [_pair(one) for one in text.split(" ")]
        if before is None or before == list(order):
            continue
        places = _places(before, order)
        for name, value in tensors.items():
            if kind in name.split(".") and value.numel() > 1:
                tensors[name] = _moved(name, value, places)
    return tensors, scalars


def _pair(text: str) -> tuple[str, int]:
    name, _, size = text.rpartition("=")
    return name, int(size)


def _places(before: Order, now: Order) -> Tensor:
    """Where each number of the vector as it is to be lies in the vector as it was."""
    if sorted(before) != sorted(now):
        lost = sorted(set(before) ^ set(now))[0][0]
        raise InputError(
            "state",
            "the weights that this run trains",
            f"other ones, such as {lost}",
            "Go on with the run where it was begun.",
        )
    starts, start = {}, 0
    for name, size in before:
        starts[name] = start
        start += size
    return torch.cat([torch.arange(starts[name], starts[name] + size) for name, size in now])


def _moved(name: str, value: Tensor, places: Tensor) -> Tensor:
    if value.shape != places.shape:
        raise InputError(
            "state",
            "an optimizer that keeps its numbers weight by weight, to go on elsewhere",
            f"{name} of shape {list(value.shape)}",
            "Go on with the run where it was begun, or choose adamw.",
        )
    return value[places]

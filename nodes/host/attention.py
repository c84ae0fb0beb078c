"""Attention that backward can go through."""

from collections.abc import Callable

from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor

# By name, for the host has xformers' only where it is installed. SageAttention and the like have no
# backward: they hand out tensors without a history, and training would learn less without a word.
_WITH_GRADIENT = {
    "attention_basic", "attention_sub_quad", "attention_split", "attention_xformers",
}  # fmt: skip


def attention_with_gradient(chosen: Callable, *args: object, **options: object) -> Tensor:
    """What the host has chosen if that has a gradient, torch's own attention otherwise.

    For the host's `optimized_attention_override`, in the place of one that is there: nodes that
    make drawing faster put theirs in it.
    """
    has_one = getattr(chosen, "__name__", "") in _WITH_GRADIENT
    return (chosen if has_one else attention_pytorch)(*args, **options)

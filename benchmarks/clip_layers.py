"""The host's CLIP layers without their additions in place, which no backward pass bears.

Imported inside the host's process only.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from comfy.clip_model import CLIPLayer
from torch import Tensor


@contextmanager
def without_overwriting() -> Iterator[None]:
    """For the block, every CLIP layer adds into new tensors, as transformers' layers do."""
    before = CLIPLayer.forward
    CLIPLayer.forward = _forward
    try:
        yield
    finally:
        CLIPLayer.forward = before


def _forward(
    layer: CLIPLayer, x: Tensor, mask: Tensor | None = None, optimized_attention: object = None
) -> Tensor:
    x = x + layer.self_attn(layer.layer_norm1(x), mask, optimized_attention)
    return x + layer.mlp(layer.layer_norm2(x))

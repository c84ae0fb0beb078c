"""What tells one base model from another: a hash of a sample of its weights."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

_RUNS, _LENGTH = 16, 64  # runs of neighbours: a weight file on disk is read in pages


def feed_tensor(digest: "hashlib._Hash", value: Tensor) -> None:
    """Add a tensor's shape and up to 1,024 of its values, in 16 runs evenly spread, in float32.

    A merge or a fine-tune moves all values of a layer, and a model of ten billion weights takes a
    second or two.
    """
    sample = value.detach().reshape(-1)
    if sample.numel() > _RUNS * _LENGTH:
        step = sample.numel() // _RUNS
        sample = sample[: _RUNS * step].view(_RUNS, step)[:, :_LENGTH]
    digest.update(repr(tuple(value.shape)).encode())
    digest.update(sample.to("cpu", torch.float32).numpy().tobytes())


def feed_tensors(digest: "hashlib._Hash", tensors: Mapping[str, Tensor]) -> None:
    """Add tensors in the order of their names: each name, and what `feed_tensor` adds."""
    for name, value in sorted(tensors.items(), key=lambda pair: pair[0]):
        digest.update(name.encode())
        feed_tensor(digest, value)

"""What tells one base model from another: a hash of a sample of its weights."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

COMPANIONS = {
    "text_encoders": "the text encoders, CLIP skip or a LoRA on them",
    "vae": "the VAE",
    "noise_levels": "the model's noise levels",
}
"""What stands beside a base and tells runs apart, in words; see `Denoiser.companions`."""

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


def other_companions(
    before: Mapping[str, object], now: Mapping[str, object]
) -> dict[str, tuple[str, str]]:
    """What of a base's companions is known to be another: (hash before, hash now) by name.

    Neither older runs nor those of diffusers' door know them; what is not known does not differ.
    """
    pairs = {part: (str(before.get(part, "")), str(now.get(part, ""))) for part in COMPANIONS}
    return {part: pair for part, pair in pairs.items() if all(pair) and pair[0] != pair[1]}

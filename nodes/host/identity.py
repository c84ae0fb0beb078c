"""The identity of a base: what a negative set and a LoRA are bound to."""

import hashlib
import weakref
from collections.abc import Callable

import torch
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QuantizedTensor
from comfy.sd import CLIP, VAE
from torch import Tensor, nn

from ...nsync.identity import feed_tensor
from .noise_levels import noise_levels, prediction

_PREFIX = "diffusion_model."

_known: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


def identity_of(patcher: ModelPatcher) -> str:
    """SHA-256 (hex) of the diffusion model's weights and of the LoRAs patched onto them.

    Of each tensor the name, and what `nsync.identity.feed_tensor` samples of it.
    The same file gives the same identity in every session; a LoRA on the socket changes it.
    """
    return _digest(patcher, lambda key: key.startswith(_PREFIX))


def companions_of(patcher: ModelPatcher, clip: CLIP, vae: VAE) -> dict[str, str]:
    """The same of the text encoders (with CLIP skip) and of the VAE; and of the noise levels, which
    nodes such as ModelSamplingFlux change."""
    sampling = patcher.get_model_object("model_sampling")
    levels = hashlib.sha256(prediction(sampling).encode())
    feed_tensor(levels, noise_levels(sampling, torch.linspace(0, 1, 64)))
    words = hashlib.sha256(f"{_digest(clip.patcher, _is_loaded)} {clip.layer_idx}".encode())
    found = {"text_encoders": words.hexdigest(), "noise_levels": levels.hexdigest()}
    # Other packs put objects of their own on a VAE's socket; of those nothing is told.
    patcher = getattr(vae, "patcher", None)
    return found | ({"vae": _digest(patcher, _is_loaded)} if patcher is not None else {})


def _is_loaded(key: str) -> bool:
    """Whether every file has the weight: those of stacked layers. What a file lacks, mostly CLIP's
    projection and a language model's eyes, the host leaves as the memory happened to be."""
    parts = key.split(".")
    return any(map(str.isdigit, parts)) and not any("vis" in part for part in parts)


def _digest(patcher: ModelPatcher, wanted: Callable[[str], bool]) -> str:
    if patcher.model not in _known:
        _known[patcher.model] = _weights_digest(patcher, wanted)
    digest = hashlib.sha256(_known[patcher.model].encode())
    for key in sorted(filter(wanted, patcher.patches)):
        digest.update(key.encode())
        _feed(digest, patcher.patches[key])
    return digest.hexdigest()


def _weights_digest(patcher: ModelPatcher, wanted: Callable[[str], bool]) -> str:
    digest = hashlib.sha256()
    for key, value in sorted(patcher.model.named_parameters(), key=lambda pair: pair[0]):
        if wanted(key):
            # A loaded model holds the patched weights; the host keeps the original ones apart.
            original = patcher.backup[key].weight if key in patcher.backup else value
            digest.update(key.encode())
            _feed(digest, original)
    return digest.hexdigest()


def _feed(digest: "hashlib._Hash", value: object) -> None:
    if isinstance(value, QuantizedTensor):
        value = value.dequantize()  # its shape and its numbers say nothing without their scale
    if isinstance(value, Tensor):
        feed_tensor(digest, value)
    elif isinstance(value, list | tuple):
        for part in value:
            _feed(digest, part)
    elif hasattr(value, "weights"):  # the host's LoRA, LoHa, LoKr, ...
        digest.update(type(value).__name__.encode())
        _feed(digest, value.weights)
    else:
        told = getattr(value, "__qualname__", None) or repr(value)
        digest.update(told.encode())

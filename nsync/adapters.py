"""What is trained: low-rank adapters (LoRA, arXiv 2106.09685) put into a network for a while.

PEFT builds the layers; this module chooses where they go, draws their start from a seed of their
own and takes them out again, so that the network is afterwards the very same object tree.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor, nn

from .draws import generator
from .errors import InputError

ATTENTION = "attention"
ATTENTION_AND_FEED_FORWARD = "attention and feed-forward"
EVERYTHING = "all linear and convolution"
LAYER_CHOICES = (ATTENTION, ATTENTION_AND_FEED_FORWARD, EVERYTHING)

_NAME = "nsync"  # the adapter's name inside PEFT's layers

# A path component that names attention (attn1, img_attn, self_attn, attention; not diffusers'
# "attentions", which are whole blocks), and the fused attention layers of Flux and its relatives.
_ATTENTION = re.compile(r"(^|\.)(\w+_)?(attn|attention)\d*\.|single_blocks\.\d+\.linear[12]$")
_FEED_FORWARD = re.compile(r"(^|\.)(\w+_)?(ff|ffn|mlp|feed_?forward)(_context|[XC\d])?\.")
# Layers that read or write the latent itself: as narrow as its channels, no place for a style.
_ENDS = re.compile(
    r"(input_blocks\.0\.0|out\.2|conv_in|conv_out|(x_embedder|pos_embed|patch_embed\w*)(\.proj)?"
    r"|img_in|x_in|proj_out|final_layer\.\w+)"
)


@dataclass(frozen=True)
class Adapters:
    """The adapters in a network.

    Attributes:
        layers: PEFT's layers by the path of the layer that they wrap, in the network's order.
        parameters: the trained weights by `<path>.lora_A` and `<path>.lora_B`, float32.
    """

    layers: dict[str, LoraLayer]
    parameters: dict[str, nn.Parameter]

    def state(self) -> dict[str, Tensor]:
        """A copy of the weights in main memory, float32, by the names of `parameters`."""
        return {
            name: value.detach().to("cpu", copy=True) for name, value in self.parameters.items()
        }


def layer_size(layer: nn.Module) -> int:
    """The largest useful rank: the lesser side of the layer's weight seen as a matrix."""
    if isinstance(layer, nn.Conv2d):
        inputs = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        return min(inputs, layer.out_channels)
    return min(layer.in_features, layer.out_features)


def select_layers(network: nn.Module, choice: str) -> dict[str, nn.Module]:
    """The layers of `network` that `choice` (one of `LAYER_CHOICES`) names, by path.

    Raises:
        InputError: the choice is unknown, or the network has no such layer.
    """
    if choice not in LAYER_CHOICES:
        raise InputError("layers", f"one of {', '.join(LAYER_CHOICES)}", repr(choice))
    chosen = {
        path: layer
        for path, layer in network.named_modules()
        if _is_trainable(layer) and _is_chosen(path, choice)
    }
    if not chosen:
        raise InputError(
            "layers",
            f"a choice that names layers of {type(network).__name__}",
            repr(choice),
            f"Choose '{EVERYTHING}'.",
        )
    return chosen


def check_rank(layers: dict[str, nn.Module], rank: int) -> None:
    """Raise `InputError` if `rank` is above the size of one of the layers."""
    path, size = min(
        ((path, layer_size(layer)) for path, layer in layers.items()), key=lambda pair: pair[1]
    )
    if rank > size:
        raise InputError(
            "rank",
            f"at most {size}, the size of the layer {path}",
            str(rank),
            "Lower the rank or choose fewer kinds of layers.",
        )


@contextmanager
def adapters(
    network: nn.Module, choice: str, rank: int, alpha: float, seed: int, device: torch.device
) -> Iterator[Adapters]:
    """Put fresh adapters into `network` for the block, then take every trace of them out again.

    The base keeps its dtype, the adapters are float32 on `device`: `lora_A` uniform in
    +-1/sqrt(inputs) (PEFT's own start) from a generator per layer, `lora_B` zero, so that the
    network's output is unchanged at first. Each adds `alpha / rank * B(A(x))`.

    Raises:
        InputError: no such layer, or the rank is above a layer's size.
    """
    originals = select_layers(network, choice)
    check_rank(originals, rank)
    flags = [(value, value.requires_grad) for value in network.parameters()]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules="|".join(re.escape(path) for path in originals),
    )
    _serve_other_linears(config, originals)
    try:
        # On the meta device: PEFT then draws nothing from the process's own generator.
        inject_adapter_in_model(config, network, _NAME, low_cpu_mem_usage=True)
        layers = {path: network.get_submodule(path) for path in originals}
        for path, layer in layers.items():
            _start(layer, generator(seed, "adapter", path), device)
        yield Adapters(layers, _parameters(layers))
    finally:
        _remove(network, originals)
        for value, flag in flags:
            value.requires_grad_(flag)


def _is_trainable(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1
    # A host's quantised layer may be linear without being torch's own class.
    return isinstance(layer, nn.Linear) or (
        isinstance(getattr(layer, "in_features", None), int)
        and isinstance(getattr(layer, "out_features", None), int)
        and isinstance(getattr(layer, "weight", None), Tensor)
    )


def _is_chosen(path: str, choice: str) -> bool:
    if choice == EVERYTHING:
        return not _ENDS.fullmatch(path)
    attention = bool(_ATTENTION.search(path))
    if choice == ATTENTION:
        return attention
    return attention or bool(_FEED_FORWARD.search(path))


def _serve_other_linears(config: LoraConfig, layers: dict[str, nn.Module]) -> None:
    known = (nn.Linear, nn.Conv2d)
    others = {type(layer) for layer in layers.values() if not isinstance(layer, known)}
    if others:
        config._register_custom_module(dict.fromkeys(others, Linear))


def _start(layer: LoraLayer, source: torch.Generator, device: torch.device) -> None:
    for store, fill in ((layer.lora_A, _uniform), (layer.lora_B, _zeros)):
        part = store[_NAME]
        part.weight = nn.Parameter(fill(part.weight.shape, source).to(device))


def _uniform(shape: torch.Size, source: torch.Generator) -> Tensor:
    bound = shape[1:].numel() ** -0.5  # kaiming_uniform_ with a = sqrt(5)
    return (torch.rand(shape, generator=source) * 2 - 1) * bound


def _zeros(shape: torch.Size, source: torch.Generator) -> Tensor:
    return torch.zeros(shape)


def _parameters(layers: dict[str, LoraLayer]) -> dict[str, nn.Parameter]:
    return {
        f"{path}.{part}": getattr(layer, part)[_NAME].weight
        for path, layer in layers.items()
        for part in ("lora_A", "lora_B")
    }


def _remove(network: nn.Module, originals: dict[str, nn.Module]) -> None:
    for path, layer in originals.items():
        parent, _, child = path.rpartition(".")
        setattr(network.get_submodule(parent), child, layer)
    if hasattr(network, "peft_config"):
        del network.peft_config

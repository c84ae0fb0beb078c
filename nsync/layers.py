"""Which layers of a network adapters can go into, and how large they may be."""

import re

from torch import Tensor, nn

from .errors import InputError

ATTENTION = "attention"
ATTENTION_AND_FEED_FORWARD = "attention and feed-forward"
EVERYTHING = "all linear and convolution"
LAYER_CHOICES = (ATTENTION, ATTENTION_AND_FEED_FORWARD, EVERYTHING)
LAYERS_RULE = f"one of {', '.join(LAYER_CHOICES)}, or a regular expression of whole layer names"

# A path component that names attention (attn1, img_attn, self_attn, attention, T5's SelfAttention;
# not diffusers' "attentions", which are whole blocks), and the fused attention layers of Flux and
# its relatives (diffusers has the one behind attention alone fused).
_ATTENTION = re.compile(
    r"(^|\.)((\w+_)?(attn|attention)\d*|SelfAttention)\.|single_blocks\.\d+\.linear[12]$"
    r"|single_transformer_blocks\.\d+\.proj_out$"
)
_FEED_FORWARD = re.compile(
    r"(^|\.)((\w+_)?(ff|ffn|mlp|feed_?forward)(_context|[XC\d])?|DenseReluDense)\."
    r"|single_transformer_blocks\.\d+\.proj_mlp$"
)
# Layers that read or write the latent itself: as narrow as its channels, no place for a style.
_ENDS = re.compile(
    r"(input_blocks\.0\.0|out\.2|conv_in|conv_out|(x_embedder|pos_embed|patch_embed\w*)(\.proj)?"
    r"|img_in|x_in|proj_out|final_layer\.\w+)"
)


def layer_size(layer: nn.Module) -> int:
    """The largest useful rank: the lesser side of the layer's weight seen as a matrix."""
    if isinstance(layer, nn.Conv2d):
        inputs = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        return min(inputs, layer.out_channels)
    return min(layer.in_features, layer.out_features)


def trainable_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Every layer of `network` that an adapter can go into, by path."""
    return {path: layer for path, layer in network.named_modules() if _is_trainable(layer)}


def names_layers(choice: str) -> bool:
    """Whether it is one of `LAYER_CHOICES`, or a regular expression."""
    try:
        re.compile(choice)
    except re.error:
        return False
    return bool(choice)


def select_layers(network: nn.Module, choice: str) -> dict[str, nn.Module]:
    """The layers of `network` that a choice names, by path.

    Args:
        choice: one of `LAYER_CHOICES`; or a regular expression that the whole path of a layer
            matches, as in PEFT, whose `target_modules` is one (`peft/tuners/tuners_utils.py`,
            `check_target_module_exists`).

    Raises:
        InputError: the choice is neither, or the network has no such layer.
    """
    if not names_layers(choice):
        raise InputError("layers", LAYERS_RULE, repr(choice))
    layers = trainable_layers(network)
    chosen = {path: layer for path, layer in layers.items() if _is_chosen(path, choice)}
    if not chosen:
        some = ", ".join(list(layers)[:: len(layers) // 3 or 1][:3])
        raise InputError(
            "layers",
            f"a choice that names layers of {type(network).__name__}",
            repr(choice),
            f"There are {', '.join(map(repr, LAYER_CHOICES))}; its own names are such as {some}.",
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
    if choice not in LAYER_CHOICES:
        return bool(re.fullmatch(choice, path))
    attention = bool(_ATTENTION.search(path))
    if choice == ATTENTION:
        return attention
    return attention or bool(_FEED_FORWARD.search(path))

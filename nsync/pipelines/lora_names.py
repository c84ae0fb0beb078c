"""What LoRA files call the layers of a pipeline, in names that diffusers and ComfyUI both read.

    UNets          kohya's: lora_unet_down_blocks_0_..., lora_te_..., lora_te1_... and lora_te2_...
    transformers   diffusers' own: transformer.transformer_blocks.0..., text_encoder.text_model...

Of Flux kohya's names are those of the original's fused layers, which a diffusers pipeline does not
have; its own names ComfyUI lays upon their part of a fused layer.
"""

from collections.abc import Mapping

from torch import nn

from ..adapters import layer_key
from ..layers import trainable_layers

# diffusers reads these by the original's names alone.
_ADDED = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
_INNER = "text_model."  # transformers 5 has none in a CLIPTextModel, and files have it


def unet_names(unet: nn.Module, encoders: Mapping[str, nn.Module]) -> dict[str, str]:
    """Kohya's names by key."""
    names = {path: f"lora_unet_{_flat(_ADDED.get(path, path))}" for path in trainable_layers(unet)}
    for number, (name, encoder) in enumerate(encoders.items(), 1):
        prefix = f"lora_te{number if len(encoders) > 1 else ''}"
        for path in trainable_layers(encoder):
            names[layer_key(name, path)] = f"{prefix}_{_flat(_inner(path))}"
    return names


def transformer_names(transformer: nn.Module, encoders: Mapping[str, nn.Module]) -> dict[str, str]:
    """diffusers' names by key."""
    names = {path: f"transformer.{path}" for path in trainable_layers(transformer)}
    for number, (name, encoder) in enumerate(encoders.items(), 1):
        prefix = "text_encoder" if number == 1 else f"text_encoder_{number}"
        for path in trainable_layers(encoder):
            names[layer_key(name, path)] = f"{prefix}.{_inner(path)}"
    return names


def spellings(names: Mapping[str, str]) -> dict[str, str]:
    """The layer's key by every name that a file may have for it: ours, and those that diffusers
    and PEFT write."""
    found = {called: key for key, called in names.items()}
    found |= {f"unet.{key}": key for key in names if ":" not in key}
    flat = {called.replace(f".{_INNER}", ".", 1): key for called, key in found.items()}
    return flat | found


def _inner(path: str) -> str:
    return path if path.startswith((_INNER, "text_projection")) else f"{_INNER}{path}"


def _flat(path: str) -> str:
    return path.replace(".", "_")

"""A LoRA as the host names, lists and applies it."""

from collections.abc import Mapping
from pathlib import Path

import comfy.lora
import comfy.sd
import comfy.utils
import folder_paths
from comfy.model_patcher import ModelPatcher
from torch import Tensor

_WEIGHT = ".weight"


def lora_names(model: ModelPatcher) -> dict[str, str]:
    """The LoRA file's name of every layer of the diffusion model, by the layer's path.

    For a UNet the name is that of diffusers (`lora_unet_down_blocks_0_...`), which diffusers reads
    too; elsewhere it is the layer's own path. Each is checked against the host's own map, so that
    Load LoRA finds the very layer.
    """
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    diffusers = _diffusers_names(model)
    names = {}
    for path in _layer_paths(model):
        wanted = f"diffusion_model.{path}{_WEIGHT}"
        candidates = [f"lora_unet_{name.replace('.', '_')}" for name in diffusers.get(path, [])]
        candidates += [f"lora_unet_{path.replace('.', '_')}", f"diffusion_model.{path}"]
        found = [name for name in candidates if known.get(name) == wanted]
        if found:
            names[path] = found[0]
    return names


def apply_lora(model: ModelPatcher, tensors: Mapping[str, Tensor]) -> ModelPatcher:
    """The model with the LoRA, by the host's own loader; the model given stays as it is."""
    patched, _ = comfy.sd.load_lora_for_models(model, None, dict(tensors), 1.0, 0.0)
    return patched


def lora_folder() -> Path:
    """Where trained LoRAs go: a folder that Load LoRA lists by itself."""
    return Path(folder_paths.get_output_directory()) / "loras"


def _layer_paths(model: ModelPatcher) -> list[str]:
    prefix = "diffusion_model."
    keys = [key for key in model.model.state_dict() if key.endswith(_WEIGHT)]
    return [k[len(prefix) : -len(_WEIGHT)] for k in keys if k.startswith(prefix)]


def _diffusers_names(model: ModelPatcher) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for theirs, ours in comfy.utils.unet_to_diffusers(model.model.model_config.unet_config).items():
        # diffusers reads SDXL's added embedding by the original's name alone (label_emb).
        if theirs.endswith(_WEIGHT) and not theirs.startswith(("add_embedding", "class_embedding")):
            names.setdefault(ours[: -len(_WEIGHT)], []).append(theirs[: -len(_WEIGHT)])
    return names

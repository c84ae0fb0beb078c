"""A LoRA as the host names, lists and applies it."""

from collections.abc import Mapping
from pathlib import Path

import comfy.lora
import comfy.sd
import comfy.utils
import folder_paths
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from torch import Tensor

_MODEL = "diffusion_model."
_TRANSFORMER = ".transformer."
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
        wanted = f"{_MODEL}{path}{_WEIGHT}"
        candidates = [f"lora_unet_{name.replace('.', '_')}" for name in diffusers.get(path, [])]
        candidates += [f"lora_unet_{path.replace('.', '_')}", f"{_MODEL}{path}"]
        found = [name for name in candidates if known.get(name) == wanted]
        if found:
            names[path] = found[0]
    return names


def text_lora_names(clip: CLIP) -> dict[str, str]:
    """The LoRA file's name of the text encoders' layers, by `<encoder>:<path>`.

    These are kohya's: `lora_te_...`, or `lora_te1_...`, `lora_te2_...` where there are several
    encoders; diffusers reads them too. A layer that the host's own map has under no such name is
    left out, and so is the first encoder's `text_projection`, which diffusers does not have.
    """
    known = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    alone = len({weight.partition(".")[0] for weight in known.values()}) == 1
    names: dict[str, str] = {}
    for prefix in ("lora_te_", "lora_te1_") if alone else ("lora_te1_", "lora_te2_", "lora_te3_"):
        for name, weight in known.items():
            if name.startswith(prefix) and name != "lora_te1_text_projection":
                names.setdefault(_layer(weight), name)
    return names


def lora_spellings(model: ModelPatcher, clip: CLIP | None = None) -> dict[str, str]:
    """The layer that each name in a LoRA file stands for: the host's own names and diffusers'.

    A layer of the diffusion model is its path in it; one of a text encoder `<encoder>:<path>`, the
    path in `clip.cond_stage_model.<encoder>.transformer`.
    """
    known = {name: weight for name, weight in _known(model, clip).items() if _is_weight(weight)}
    return {name: _layer(weight) for name, weight in known.items()}


def fused_spellings(model: ModelPatcher, clip: CLIP | None = None) -> frozenset[str]:
    """The names in a LoRA file that stand for a part of a layer, or for a reordered one."""
    return frozenset(n for n, target in _known(model, clip).items() if isinstance(target, tuple))


def apply_lora(
    model: ModelPatcher, clip: CLIP, tensors: Mapping[str, Tensor]
) -> tuple[ModelPatcher, CLIP]:
    """Model and text encoders with the LoRA, by the host's own loader; those given stay as is."""
    return comfy.sd.load_lora_for_models(model, clip, dict(tensors), 1.0, 1.0)


def lora_folder() -> Path:
    """Where trained LoRAs go: a folder that Load LoRA lists by itself."""
    return Path(folder_paths.get_output_directory()) / "loras"


def _known(model: ModelPatcher, clip: CLIP | None) -> dict[str, str | tuple]:
    known = comfy.lora.model_lora_keys_unet(model.model, {})
    if clip is not None:
        comfy.lora.model_lora_keys_clip(clip.cond_stage_model, known)
    # The host has diffusers' attention layers by the names of before PEFT alone (`processor`).
    for path, names in _diffusers_names(model).items():
        for name in names:
            known.setdefault(name, f"{_MODEL}{path}{_WEIGHT}")
            known.setdefault(f"unet.{name}", f"{_MODEL}{path}{_WEIGHT}")
    # transformers 5 has no `text_model` in a CLIPTextModel, so diffusers no longer writes it.
    old = "text_encoder.text_model."
    flat = {n.replace(old, "text_encoder."): t for n, t in known.items() if n.startswith(old)}
    return {**known, **flat}


def _is_weight(target: str | tuple) -> bool:
    if isinstance(target, tuple) or not target.endswith(_WEIGHT):
        return False
    return target.startswith(_MODEL) or _TRANSFORMER in target


def _layer(weight: str) -> str:
    path = weight.removesuffix(_WEIGHT)
    if path.startswith(_MODEL):
        return path.removeprefix(_MODEL)
    return path.replace(_TRANSFORMER, ":", 1)


def _layer_paths(model: ModelPatcher) -> list[str]:
    keys = [key for key in model.model.state_dict() if key.endswith(_WEIGHT)]
    return [k[len(_MODEL) : -len(_WEIGHT)] for k in keys if k.startswith(_MODEL)]


def _diffusers_names(model: ModelPatcher) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for theirs, ours in comfy.utils.unet_to_diffusers(model.model.model_config.unet_config).items():
        # diffusers reads SDXL's added embedding by the original's name alone (label_emb).
        if theirs.endswith(_WEIGHT) and not theirs.startswith(("add_embedding", "class_embedding")):
            names.setdefault(ours[: -len(_WEIGHT)], []).append(theirs[: -len(_WEIGHT)])
    return names

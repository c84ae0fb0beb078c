"""The models that are measured: the tiny base, and SD1.5 and SDXL of the host's own classes.

The latter have the shapes of the real checkpoints and random weights, since speed and memory do not
ask what a weight says; `small` ones have the same blocks, only narrower. Imported inside the host's
process only.
"""

import comfy.model_management as management
import comfy.sd
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy.supported_models
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy.supported_models_base import ClipTarget
from nsync_style.nodes.tiny.model import load_tiny_base
from nsync_style.nsync.tiny import BASE_FOLDER
from torch import nn

Sockets = tuple[ModelPatcher, CLIP, VAE]

TINY, SD15, SDXL = "tiny", "sd15", "sdxl"
SIDES = {TINY: 64, SD15: 512, SDXL: 1024}
"""Pixels of the pictures' side."""
SMALL_SIDE = 128

_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "use_temporal_attention": False,
    "legacy": False,
}
UNETS = {
    SD15: _UNET
    | {
        "num_res_blocks": [2] * 4,
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1] * 9 + [0] * 3,
        "transformer_depth_middle": 1,
        "context_dim": 768,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
    },
    SDXL: _UNET
    | {
        "num_res_blocks": [2] * 3,
        "channel_mult": [1, 2, 4],
        "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "transformer_depth_middle": 10,
        "context_dim": 2048,
        "use_linear_in_transformer": True,
        "adm_in_channels": 2816,
        "num_classes": "sequential",
    },
}
_SMALL_TEXT = 64
_SMALL = {
    SD15: {"model_channels": 64, "context_dim": _SMALL_TEXT},
    SDXL: {
        "model_channels": 64,
        "context_dim": _SMALL_TEXT,
        "adm_in_channels": _SMALL_TEXT + 6 * 256,  # pooled text, and six sizes in 256 numbers each
        "transformer_depth": [0, 0, 1, 1, 2, 2],
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
        "transformer_depth_middle": 2,
    },
}
_FAMILIES = {SD15: comfy.supported_models.SD15, SDXL: comfy.supported_models.SDXL}
_VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def sockets(base: str, small: bool, dtype: torch.dtype) -> Sockets:
    """MODEL, CLIP and VAE; the text encoder in float32, as the authors' loop trains it."""
    if base == TINY:
        return load_tiny_base(BASE_FOLDER)
    return model(base, small, dtype), _clip(base, small), _vae(small)


def model(base: str, small: bool, dtype: torch.dtype) -> ModelPatcher:
    """The MODEL alone."""
    if base == TINY:
        return load_tiny_base(BASE_FOLDER)[0]
    device = management.get_torch_device()
    made = network_config(base, dtype, small).get_model({}, "", device=device).eval()
    _fill(made.diffusion_model)
    return ModelPatcher(made, load_device=device, offload_device=management.unet_offload_device())


def side(base: str, small: bool) -> int:
    """Pixels of the pictures' side."""
    return SMALL_SIDE if small and base != TINY else SIDES[base]


def network_config(base: str, dtype: torch.dtype, small: bool = False) -> object:
    """The host's configuration of a base's network."""
    config = _FAMILIES[base](UNETS[base] | (_SMALL[base] if small else {}))
    config.set_inference_dtype(dtype, None)
    return config


def _clip(base: str, small: bool) -> CLIP:
    if small:
        # Of one small text encoder only, whatever the family.
        target = ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
        target.params = {
            "clip_model": comfy.sd1_clip.SDClipModel,
            "textmodel_json_config": _small_text(),
            "return_projected_pooled": False,
        }
    elif base == SDXL:
        target = ClipTarget(comfy.sdxl_clip.SDXLTokenizer, comfy.sdxl_clip.SDXLClipModel)
    else:
        target = ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel)
    clip = CLIP(target, model_options={"dtype": torch.float32}, disable_dynamic=True)
    _fill(clip.cond_stage_model)
    return clip


def _small_text() -> dict[str, object]:
    return {
        "num_hidden_layers": 2,
        "hidden_size": _SMALL_TEXT,
        "num_attention_heads": 4,
        "intermediate_size": 2 * _SMALL_TEXT,
        "hidden_act": "quick_gelu",
        "max_position_embeddings": 77,
        "eos_token_id": 49407,
        "vocab_size": 49408,
    }


def _vae(small: bool) -> VAE:
    shape = _VAE | ({"ch": 32, "num_res_blocks": 1} if small else {})
    model = AutoencoderKL(ddconfig=shape, embed_dim=shape["z_channels"])
    _fill(model)
    config = {"params": {"ddconfig": shape, "embed_dim": shape["z_channels"]}}
    return VAE(sd=model.state_dict(), config=config)


@torch.no_grad()
def _fill(model: nn.Module) -> None:
    """Random weights that keep activations near 1: NaN could take another path."""
    for value in model.parameters():
        if value.dim() > 1:
            value.normal_(0.0, 0.5 * value[0].numel() ** -0.5)
        else:
            value.fill_(1.0)

"""Checkpoint files with the keys and shapes of the real ones, and random weights.

Imported inside the host's process only.
"""

import comfy.model_base
import comfy.ops
import comfy.sd1_clip
import comfy.supported_models
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from safetensors.torch import save_file

_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2] * 4,
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1] * 9 + [0] * 3,
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
}
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


def write_sd15(path):
    """Write SD1.5 in float16 (2.1 GB); the number of its values."""
    config = comfy.supported_models.SD15(_UNET)
    config.set_inference_dtype(torch.float16, None)
    ops = comfy.ops.disable_weight_init
    with torch.device("meta"):
        unet = comfy.model_base.UNetModel(**config.unet_config, device="meta", operations=ops)
        vae = AutoencoderKL(embed_dim=4, ddconfig=_VAE)
        clip = comfy.sd1_clip.SD1ClipModel(device="meta", dtype=torch.float16)
    source = torch.Generator().manual_seed(0)
    parts = {
        "model.diffusion_model.": unet.state_dict(),
        "first_stage_model.": vae.state_dict(),
        "cond_stage_model.": _text(clip),
    }
    tensors = {
        prefix + key: _random(key, value, source)
        for prefix, state in parts.items()
        for key, value in state.items()
    }
    save_file(tensors, path)
    return sum(value.numel() for value in tensors.values())


def _text(clip):
    state = {key.removeprefix("clip_l."): value for key, value in clip.state_dict().items()}
    return {key: value for key, value in state.items() if "text_model" in key}


def _random(key, like, source):
    if not like.is_floating_point():
        return torch.arange(like.numel()).reshape(like.shape)  # the text encoder's position ids
    if like.dim() > 1:
        drawn = torch.randn(like.shape, generator=source) * 0.02
    else:
        drawn = torch.full(like.shape, float(key.endswith("weight")))
    return drawn.half()

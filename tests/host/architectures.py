"""Four families of the host's own model classes with small dimensions and random weights.

Imported inside the host's process only. The two UNets have the block structure of the real ones,
so that diffusers' names for their layers are the real names.
"""

import json

import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import small_models
import torch
from comfy import quant_ops
from comfy.ldm.modules.diffusionmodules import mmdit
from diffusers import UNet2DConditionModel

TEXT = 32  # width of the text encoder's states and of its pooled vector
SDXL_VECTOR = TEXT + 6 * 256  # pooled text, and six sizes embedded in 256 numbers each
LATENT_CHANNELS = {"SD15": 4, "SDXL": 4, "SD3": 16, "Flux": 16}
_UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_temporal_attention": False,
    "context_dim": TEXT,
}
CONFIGS = {
    "SD15": _UNET
    | {
        "model_channels": 32,
        "num_res_blocks": [2] * 4,
        "channel_mult": [1, 1, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1] * 9 + [0] * 3,
        "transformer_depth_middle": 1,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
    },
    "SDXL": _UNET
    | {
        "model_channels": 64,
        "num_res_blocks": [2] * 3,
        "channel_mult": [1, 1, 2],
        "transformer_depth": [0, 0, 1, 1, 2, 2],
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
        "transformer_depth_middle": 2,
        "use_linear_in_transformer": True,
        "adm_in_channels": SDXL_VECTOR,
        "num_classes": "sequential",
    },
    "SD3": {
        "input_size": None,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "depth": 2,
        "adm_in_channels": TEXT,
        "context_embedder_config": {
            "target": "torch.nn.Linear",
            "params": {"in_features": TEXT, "out_features": 128},
        },
        "num_patches": 256,
        "pos_embed_max_size": 16,
        "pos_embed_scaling_factor": None,
    },
    "Flux": {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "vec_in_dim": TEXT,
        "context_in_dim": TEXT,
        "hidden_size": 64,
        "mlp_ratio": 4.0,
        "num_heads": 2,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [8, 12, 12],
        "txt_ids_dims": [],
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": True,
    },
}
_DIFFUSERS = {
    "SD15": {
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "block_out_channels": (32, 32, 64, 64),
        "attention_head_dim": 8,
        "cross_attention_dim": TEXT,
    },
    "SDXL": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (64, 64, 128),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (1, 1, 2),
        "cross_attention_dim": TEXT,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": SDXL_VECTOR,
    },
}


def sockets(kind, dtype=torch.float32, arithmetic=None):
    """MODEL, CLIP and VAE of a family; the model's weights stored in `dtype`."""
    config = getattr(comfy.supported_models, kind)(CONFIGS[kind])
    config.set_inference_dtype(dtype, arithmetic)
    model = small_models.patcher(config.get_model({}, "").eval())
    if kind == "SD3":
        _place(model.model.diffusion_model)
    return model, small_models.clip(TEXT), vae(kind)


def _place(network):
    """Give SD3's network the positions that its published files have: the host makes the table
    without values, and what lies in that memory may be NaN."""
    side = CONFIGS["SD3"]["pos_embed_max_size"]
    table = mmdit.get_2d_sincos_pos_embed(network.hidden_size, side)
    network.pos_embed.copy_(torch.from_numpy(table))


def vae(kind):
    """VAE of a family."""
    made = small_models.vae(LATENT_CHANNELS[kind])
    made.latent_channels = LATENT_CHANNELS[kind]
    return made


def quantised(kind, form):
    """The family's model with its attention in one of the host's quantised forms, as MODEL, and the
    same with what those weights stand for in float32."""
    plain, stored = sockets(kind)[0], {}
    weights = plain.model.diffusion_model.state_dict()
    layout = quant_ops.QUANT_ALGOS[form]["comfy_tensor_layout"]
    told = torch.tensor(list(json.dumps({"format": form}).encode()), dtype=torch.uint8)
    for name, value in weights.items():
        if ".attn" in name and name.endswith(".weight") and value.dim() == 2:
            packed = quant_ops.QuantizedTensor.from_float(value, layout)
            stored |= packed.state_dict(name)
            stored[name.removesuffix("weight") + "comfy_quant"] = told
            value.copy_(packed.dequantize())
        else:
            stored[name] = value.clone()
    config = getattr(comfy.supported_models, kind)(CONFIGS[kind])
    config.set_inference_dtype(torch.float32, torch.float32)
    config.quant_config = {"mixed_ops": True}
    model = config.get_model({}, "").eval()
    model.diffusion_model.load_state_dict(stored)
    cpu = torch.device("cpu")
    made = comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)
    return made, plain


def diffusers_unet(kind, model):
    """diffusers' own UNet with the weights of a MODEL of the host."""
    unet = UNet2DConditionModel(**_DIFFUSERS[kind]).eval()
    ours = model.model.diffusion_model.state_dict()
    theirs = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    unet.load_state_dict(
        {k: ours[theirs[k]].reshape(v.shape) for k, v in unet.state_dict().items()}
    )
    return unet

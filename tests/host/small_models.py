"""Small random models of the host's own classes, as its loaders would put them on sockets.

Imported inside the host's process only.
"""

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import torch

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "use_checkpoint": False,
    "use_linear_in_transformer": True,
    "adm_in_channels": None,
    "use_temporal_attention": False,
}
TEXT = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
    "vocab_size": 49408,
}


def unet(kind: str = "EPS", dtype: torch.dtype = torch.float32, **extra):
    """A UNet of one of the host's model types ("EPS", "V_PREDICTION", "FLOW"), patched as MODEL."""
    config = comfy.supported_models.SD15({**UNET, **extra})
    config.unet_config["num_heads"] = 4
    config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
    kind = comfy.model_base.ModelType[kind]
    return patcher(comfy.model_base.BaseModel(config, model_type=kind, device="cpu"))


def patched(model):
    """The MODEL of `unet` with a LoRA on one of its layers."""
    source = torch.Generator().manual_seed(9)
    name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    lora = {
        f"{name}.lora_A.weight": torch.randn(4, 32, generator=source),
        f"{name}.lora_B.weight": torch.randn(32, 4, generator=source),
    }
    return comfy.sd.load_lora_for_models(model, None, lora, 0.5, 0.0)[0]


def patched_clip(clip):
    """The CLIP of `clip` with a LoRA on one of its layers."""
    source = torch.Generator().manual_seed(8)
    name = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    lora = {
        f"{name}.lora_down.weight": torch.randn(4, 32, generator=source),
        f"{name}.lora_up.weight": torch.randn(32, 4, generator=source),
    }
    return comfy.sd.load_lora_for_models(None, clip, lora, 0.0, 0.5)[1]


def patcher(model, seed: int = 0):
    """The model with random weights, as MODEL."""
    fill(model.diffusion_model, seed)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def clip(width: int = 32, seed: int = 1):
    """A small CLIP text encoder with SD1's own tokenizer, as CLIP."""
    target = comfy.supported_models_base.ClipTarget(
        comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel
    )
    target.params = {
        "clip_model": comfy.sd1_clip.SDClipModel,
        "textmodel_json_config": {**TEXT, "hidden_size": width},
        "return_projected_pooled": False,
    }
    made = comfy.sd.CLIP(target)
    fill(made.cond_stage_model, seed)
    return made


def vae(channels: int = 4, seed: int = 2):
    """A small autoencoder of factor 8, as VAE."""
    shape = {
        "double_z": True,
        "z_channels": channels,
        "resolution": 32,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=shape, embed_dim=channels)
    fill(model, seed)
    return comfy.sd.VAE(
        sd=model.state_dict(), config={"params": {"ddconfig": shape, "embed_dim": channels}}
    )


def fill(model: torch.nn.Module, seed: int) -> None:
    """Random weights, of a size that keeps what flows through them in bounds."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            drawn = torch.randn(value.shape, generator=source)
            scale = 0.5 * value[0].numel() ** -0.5 if value.dim() > 1 else 0.1
            offset = 1.0 if value.dim() == 1 else 0.0
            value.copy_(drawn * scale + offset)

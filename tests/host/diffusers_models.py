"""diffusers' pipelines with the weights of the host's own small models.

Imported inside the host's process only.
"""

import copy
from pathlib import Path

import architectures
import comfy.sd1_clip
import comfy.supported_models
import comfy.utils
import small_models
import text_models
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

FAMILIES = ("SD15", "SDXL", "SD3", "Flux")
_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_SCALES = {
    "SD15": (0.18215, None),
    "SDXL": (0.13025, None),
    "SD3": (1.5305, 0.0609),
    "Flux": (0.3611, 0.1159),
}
_TRANSFORMERS = {
    "SD3": (
        SD3Transformer2DModel,
        {
            "sample_size": 16,
            "num_layers": 2,
            "attention_head_dim": 64,
            "num_attention_heads": 2,
            "joint_attention_dim": architectures.TEXT,
            "caption_projection_dim": 128,
            "pooled_projection_dim": architectures.TEXT,
            "pos_embed_max_size": 16,
        },
    ),
    "Flux": (
        FluxTransformer2DModel,
        {
            "in_channels": 64,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 32,
            "num_attention_heads": 2,
            "joint_attention_dim": architectures.TEXT,
            "pooled_projection_dim": architectures.TEXT,
            "guidance_embeds": True,
            "axes_dims_rope": (8, 12, 12),
        },
    ),
}


def sockets(family):
    """MODEL, CLIP and VAE; of the UNets the CLIP is the family's own."""
    if family in _TRANSFORMERS:
        return architectures.sockets(family)
    config = dict(architectures.CONFIGS[family])
    if family == "SDXL":
        config["context_dim"] = 2 * architectures.TEXT
    made = getattr(comfy.supported_models, family)(config)
    made.set_inference_dtype(torch.float32, None)
    model = small_models.patcher(made.get_model({}, "").eval())
    return model, text_models.clip(family), architectures.vae(family)


def folder(family, given, place):
    """A pipeline's folder with the weights of MODEL and CLIP, its autoencoder's random."""
    model, clip, _ = given
    if family in _TRANSFORMERS:
        pipeline = _transformer_pipeline(family, model)
    else:
        pipeline = text_models.pipeline(family, clip)
        pipeline.register_modules(
            unet=_unet(family, model), vae=_vae(family), scheduler=DDPMScheduler(**_BETAS)
        )
    pipeline.save_pretrained(place)
    return place


def single_file(given, config, path):
    """Network and autoencoder under the host's names; the configuration's folder loses theirs."""
    model, _, vae = given
    tensors = {
        f"model.{name}": value
        for name, value in model.model.state_dict().items()
        if name.startswith("diffusion_model.")
    }
    autoencoder = vae.first_stage_model.state_dict()
    tensors |= {f"first_stage_model.{name}": value for name, value in autoencoder.items()}
    save_file({name: value.detach().clone() for name, value in tensors.items()}, path)
    for part in ("unet", "transformer", "vae"):
        for weights in (config / part).glob("*.safetensors"):
            weights.unlink()
    return path


def autoencoder(given, config, path):
    """The host's autoencoder into the pipeline's folder."""
    state = given[2].first_stage_model.state_dict()
    save_file({f"first_stage_model.{k}": v.detach().clone() for k, v in state.items()}, path)
    vae = AutoencoderKL.from_single_file(
        str(path), config=str(config), subfolder="vae", local_files_only=True
    )
    vae.save_pretrained(config / "vae")


def _unet(family, model):
    widths = dict(architectures._DIFFUSERS[family])
    if family == "SDXL":
        widths["cross_attention_dim"] = 2 * architectures.TEXT
    before, architectures._DIFFUSERS[family] = architectures._DIFFUSERS[family], widths
    try:
        return architectures.diffusers_unet(family, model)
    finally:
        architectures._DIFFUSERS[family] = before


def _vae(family):
    scale, shift = _SCALES[family]
    return AutoencoderKL(
        block_out_channels=(32,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=architectures.LATENT_CHANNELS[family],
        scaling_factor=scale,
        shift_factor=shift,
    )


def _transformer_pipeline(family, model):
    words = str(Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(words, model_max_length=77)
    config = CLIPTextConfig(**text_models._CLIP, projection_dim=16)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), ("a", -2.0)]
    t5 = T5EncoderModel(T5Config(vocab_size=5, d_model=32, d_kv=8, d_ff=32, num_layers=1))
    parts = {"transformer": _transformer(family, model), "vae": _vae(family)}
    if family == "Flux":
        return FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            text_encoder=CLIPTextModel(config),
            tokenizer=tokenizer,
            text_encoder_2=t5,
            tokenizer_2=T5TokenizerFast(vocab=pieces, extra_ids=0),
            **parts,
        )
    return StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=CLIPTextModelWithProjection(config),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(copy.deepcopy(config)),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
        **parts,
    )


def _transformer(family, model):
    kind, config = _TRANSFORMERS[family]
    network, ours = kind(**config).eval(), model.model.diffusion_model.state_dict()
    convert = {"SD3": comfy.utils.mmdit_to_diffusers, "Flux": comfy.utils.flux_to_diffusers}
    known = convert[family](model.model.model_config.unet_config)
    network.load_state_dict({name: _taken(ours, known[name]) for name in network.state_dict()})
    return network


def _taken(ours, target):
    if isinstance(target, str):
        return ours[target]
    name, part, *change = target
    value = ours[name] if part is None else ours[name].narrow(*part)
    return change[0](value) if change else value

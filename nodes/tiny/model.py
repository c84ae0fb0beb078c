"""The embedded tiny base as the host's own objects: its UNet, text encoder and autoencoder classes,
with the weights of a diffusers folder.

Everything runs in float32: the model is small, and so every machine draws the same pictures.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import comfy.model_management as management
import comfy.utils
import folder_paths
import torch
from comfy.clip_model import CLIPTextModel
from comfy.diffusers_convert import convert_vae_state_dict
from comfy.latent_formats import LatentFormat
from comfy.model_base import BaseModel, ModelType
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel, SDTokenizer
from comfy.supported_models_base import BASE, ClipTarget
from safetensors.torch import load_file
from torch import Tensor, nn

from ...nsync.errors import InputError

Weights = dict[str, Tensor]


class TinyConfig(BASE):
    """A flow-matching UNet without shift: x_t = (1 - t) x_0 + t noise, at network time 1000 t."""

    unet_extra_config = {"num_heads": -1, "num_head_channels": 32}  # noqa: RUF012 - the host's form
    sampling_settings = {"shift": 1.0, "multiplier": 1000}  # noqa: RUF012
    latent_format = LatentFormat
    memory_usage_factor = 0.5

    def inpaint_model(self) -> bool:
        """Never, though it has more than four channels."""
        return False

    def model_type(self, state_dict: Weights, prefix: str = "") -> ModelType:
        """The host's name for flow matching."""
        return ModelType.FLOW

    def process_unet_state_dict(self, state_dict: Weights) -> Weights:
        """From diffusers' names to the host's, by the host's own map."""
        names = comfy.utils.unet_to_diffusers(self.unet_config)
        return {names[name]: value for name, value in state_dict.items()}


class TinyTextModel(CLIPTextModel):
    """The host's text model with a vocabulary of its own size; the host's has CLIP's 49,408."""

    def __init__(
        self, config: dict, dtype: torch.dtype, device: torch.device, operations: type
    ) -> None:
        super().__init__(config, dtype, device, operations)
        table = config["vocab_size"], config["hidden_size"]
        self.set_input_embeddings(operations.Embedding(*table, dtype=dtype, device=device))


def load_tiny_base(folder: Path) -> tuple[ModelPatcher, CLIP, VAE]:
    """The base in a diffusers folder (`unet`, `text_encoder`, `tokenizer`, `vae`) as the host's.

    Raises:
        InputError: a file of it is missing.
    """
    vae = _part(folder, "vae")
    return (
        _load_model(*_part(folder, "unet"), vae[0]),
        _load_clip(*_part(folder, "text_encoder"), folder / "tokenizer"),
        _load_vae(*vae),
    )


def _part(folder: Path, name: str) -> tuple[dict, Weights]:
    """The configuration and the weights of one part, in float32."""
    try:
        config = json.loads((folder / name / "config.json").read_text())
        file = next((folder / name).glob("*.safetensors"))
    except (OSError, StopIteration) as error:
        raise InputError(
            "tiny base",
            f"the files of the tiny base in {folder / name}",
            "an incomplete folder",
            "Install the pack again.",
        ) from error
    return config, {name: value.float() for name, value in load_file(file).items()}


def _load_model(config: dict, weights: Weights, vae: dict) -> ModelPatcher:
    ours = TinyConfig(_unet_config(config))
    ours.latent_format.scale_factor = vae["scaling_factor"]
    ours.latent_format.latent_channels = vae["latent_channels"]
    ours.latent_format.spacial_downscale_ratio = _pixels_per_latent(vae)
    ours.set_inference_dtype(torch.float32, None)
    model: BaseModel = ours.get_model(weights)
    _group_norms(model.diffusion_model, config["norm_num_groups"])
    offload = management.unet_offload_device()
    model.to(offload)
    model.load_model_weights(dict(weights))
    return ModelPatcher(model, load_device=management.get_torch_device(), offload_device=offload)


def _unet_config(config: dict) -> dict:
    widths, depth = config["block_out_channels"], config["layers_per_block"]
    levels = len(widths)
    return {
        "image_size": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": widths[0],
        "channel_mult": [width // widths[0] for width in widths],
        "num_res_blocks": [depth] * levels,
        "transformer_depth": [1] * (levels * depth),
        "transformer_depth_output": [1] * (levels * (depth + 1)),
        "transformer_depth_middle": 1,
        "context_dim": config["cross_attention_dim"],
        "use_spatial_transformer": True,
        "use_linear_in_transformer": True,
        "use_temporal_attention": False,
        "adm_in_channels": None,
        "use_checkpoint": False,
        "legacy": False,
    }


def _load_clip(config: dict, weights: Weights, tokenizer: Path) -> CLIP:
    ends = {end: config[f"{key}_token_id"] for end, key in (("start", "bos"), ("end", "eos"))}
    target = ClipTarget(_tokenizer(tokenizer, config), SD1ClipModel)
    target.params = {
        "clip_model": SDClipModel,
        "model_class": TinyTextModel,
        "textmodel_json_config": config,
        "max_length": config["max_position_embeddings"],
        "special_tokens": {**ends, "pad": ends["end"]},
        "return_projected_pooled": False,
    }
    clip = CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        model_options={"dtype": torch.float32},
        disable_dynamic=True,
    )
    prefix = "text_model."  # transformers 5 leaves it out
    clip.load_sd({prefix + name.removeprefix(prefix): value for name, value in weights.items()})
    return clip


def _tokenizer(folder: Path, config: dict) -> Callable[..., SD1Tokenizer]:
    inner = partial(
        SDTokenizer,
        tokenizer_path=str(folder),
        max_length=config["max_position_embeddings"],
        embedding_size=config["hidden_size"],
    )
    return partial(SD1Tokenizer, tokenizer=inner)


def _load_vae(config: dict, weights: Weights) -> VAE:
    widths = config["block_out_channels"]
    channels = config["latent_channels"]
    shape = {
        "double_z": True,
        "z_channels": channels,
        "resolution": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    vae = VAE(
        sd=_host_vae_names(weights, len(widths)),
        config={"params": {"ddconfig": shape, "embed_dim": channels}},
        dtype=torch.float32,
    )
    _group_norms(vae.first_stage_model, config["norm_num_groups"])
    vae.downscale_ratio = vae.upscale_ratio = _pixels_per_latent(config)
    vae.latent_channels = channels
    return vae


def _pixels_per_latent(vae: dict) -> int:
    return 2 ** (len(vae["block_out_channels"]) - 1)


def _group_norms(model: nn.Module, groups: int) -> None:
    """The host's classes know 32 groups only; the weights are per channel, whatever the groups."""
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.num_groups = groups


def _host_vae_names(weights: Weights, levels: int) -> Weights:
    """The host's conversion, which counts the decoder's levels down from four."""
    surplus = 4 - levels
    named = {}
    for name, value in convert_vae_state_dict(weights).items():
        if name.startswith("decoder.up."):
            level, _, rest = name.removeprefix("decoder.up.").partition(".")
            name = f"decoder.up.{int(level) - surplus}.{rest}"
        named[name] = value
    return named

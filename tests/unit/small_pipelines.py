"""Small random diffusers pipelines of the true classes, in a moment and without a download."""

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from nsync.tiny import BASE_FOLDER

WIDTH = 16
SD_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def small_sd(scheduler=None, channels: int = 4) -> StableDiffusionPipeline:
    """Stable Diffusion 1 (or 2, by the scheduler's prediction type)."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        pipeline = StableDiffusionPipeline(
            vae=_vae(),
            text_encoder=_frozen(CLIPTextModel(_text_config())),
            tokenizer=_tokenizer(),
            unet=_unet(in_channels=channels, cross_attention_dim=WIDTH),
            scheduler=scheduler or DDPMScheduler(**SD_BETAS, clip_sample=False, steps_offset=1),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def small_v() -> StableDiffusionPipeline:
    """Stable Diffusion 2: predicts v."""
    return small_sd(DDIMScheduler(**SD_BETAS, prediction_type="v_prediction", clip_sample=False))


def small_flow() -> StableDiffusionPipeline:
    """Flow matching on a UNet, with times shifted to noise."""
    return small_sd(FlowMatchEulerDiscreteScheduler(shift=3.0))


def small_sdxl() -> StableDiffusionXLPipeline:
    """SDXL: two text encoders of different widths, pooled text and size embeddings."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        pipeline = StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=_frozen(CLIPTextModel(_text_config())),
            text_encoder_2=_frozen(CLIPTextModelWithProjection(_text_config(2 * WIDTH))),
            tokenizer=_tokenizer(),
            tokenizer_2=_tokenizer(),
            unet=_unet(
                cross_attention_dim=3 * WIDTH,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=WIDTH + 6 * 8,
            ),
            scheduler=DDPMScheduler(**SD_BETAS),
            add_watermarker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_pipeline(dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    """The embedded tiny base."""
    pipeline = StableDiffusionPipeline.from_pretrained(BASE_FOLDER, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def source(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def _vae() -> AutoencoderKL:
    return _frozen(
        AutoencoderKL(
            block_out_channels=(16, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            scaling_factor=0.7,
            shift_factor=None,
        )
    )


def _unet(in_channels: int = 4, **options) -> UNet2DConditionModel:
    return _frozen(
        UNet2DConditionModel(
            sample_size=8,
            in_channels=in_channels,
            out_channels=4,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=8,
            norm_num_groups=8,
            **options,
        )
    )


def _text_config(width: int = WIDTH) -> CLIPTextConfig:
    tokenizer = _tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=WIDTH,
        hidden_act="quick_gelu",
        initializer_factor=5.0,  # else every prompt reads nearly the same
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(BASE_FOLDER / "tokenizer", model_max_length=77)


def _frozen(module: torch.nn.Module) -> torch.nn.Module:
    return module.eval().requires_grad_(False)

"""Small random diffusers pipelines of the true classes, in a moment and without a download."""

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

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


def small_sd3(t5: bool = True) -> StableDiffusion3Pipeline:
    """Stable Diffusion 3.5: two attentions in its first block, norms of queries and keys."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        pipeline = StableDiffusion3Pipeline(
            transformer=_scaled(
                SD3Transformer2DModel(
                    sample_size=8,
                    in_channels=4,
                    out_channels=4,
                    num_layers=2,
                    attention_head_dim=8,
                    num_attention_heads=4,
                    joint_attention_dim=4 * WIDTH,
                    caption_projection_dim=32,
                    pooled_projection_dim=2 * WIDTH,
                    pos_embed_max_size=16,
                    dual_attention_layers=(0,),
                    qk_norm="rms_norm",
                )
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_vae(0.1),
            text_encoder=_frozen(CLIPTextModelWithProjection(_text_config())),
            tokenizer=_tokenizer(),
            text_encoder_2=_frozen(CLIPTextModelWithProjection(_text_config(2 * WIDTH))),
            tokenizer_2=_tokenizer(),
            text_encoder_3=_t5(4 * WIDTH) if t5 else None,
            tokenizer_3=_t5_tokenizer() if t5 else None,
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def small_flux(guided: bool = True) -> FluxPipeline:
    """Flux.1: guided is "dev", whose times are shifted by the picture's size; else "schnell"."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        pipeline = FluxPipeline(
            transformer=_scaled(
                FluxTransformer2DModel(
                    in_channels=16,
                    num_layers=1,
                    num_single_layers=1,
                    attention_head_dim=16,
                    num_attention_heads=2,
                    joint_attention_dim=32,
                    pooled_projection_dim=WIDTH,
                    guidance_embeds=guided,
                    axes_dims_rope=(4, 6, 6),
                )
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(
                shift=3.0 if guided else 1.0, use_dynamic_shifting=guided
            ),
            vae=_vae(0.1),
            text_encoder=_frozen(CLIPTextModel(_text_config())),
            tokenizer=_tokenizer(),
            text_encoder_2=_t5(32),
            tokenizer_2=_t5_tokenizer(),
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def small_schnell() -> FluxPipeline:
    """Flux.1 "schnell"."""
    return small_flux(guided=False)


def tiny_pipeline(dtype: torch.dtype = torch.float32) -> StableDiffusionPipeline:
    """The embedded tiny base."""
    pipeline = StableDiffusionPipeline.from_pretrained(BASE_FOLDER, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def source(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def _vae(shift: float | None = None) -> AutoencoderKL:
    return _frozen(
        AutoencoderKL(
            block_out_channels=(16, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            scaling_factor=0.7,
            shift_factor=shift,
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


def _t5(width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(_t5_tokenizer()), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2
    )
    return _frozen(T5EncoderModel(config))


def _t5_tokenizer() -> T5TokenizerFast:
    words = ("the", "of", "a", "in", "on", "over", "two", "red", "blue", "circle", "ring", "hill")
    letters = "abcdefghijklmnopqrstuvwxyz,.()<>!_-0123456789"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -9.0)]
    pieces += [(f"\u2581{word}", -3.0) for word in words]
    pieces += [(piece, -9.0) for piece in (*letters, "the", "of")]
    return T5TokenizerFast(vocab=pieces, extra_ids=0)


def _scaled(module: torch.nn.Module) -> torch.nn.Module:
    """Random weights of a size at which every layer has its say."""
    for value in module.parameters():
        if value.dim() > 1:
            torch.nn.init.normal_(value, std=value[0].numel() ** -0.5)
    return _frozen(module)


def _frozen(module: torch.nn.Module) -> torch.nn.Module:
    return module.eval().requires_grad_(False)

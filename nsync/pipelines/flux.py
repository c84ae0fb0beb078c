"""Flux.1: a transformer over patches and words, trained by flow matching."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline, FluxPipeline
from torch import Tensor, nn

from ..denoiser import Conditioning, Word
from .family import POOLED, STATES, Names, clip_reader
from .lora_names import transformer_names
from .text import TextReader

# As many as the base was made for: the distilled "schnell", which has no guidance, reads half.
_T5_TOKENS, _T5_TOKENS_SCHNELL = 512, 256

GUIDANCE = 3.5
"""What a guidance-distilled base is told, in training and in drawing, as ComfyUI does by default.
It is not the guidance of `SamplerSettings`, which costs a second pass."""


class Flux:
    """A T5, of which every word is read, and a CLIP, of which the pooled vector is."""

    kind = FluxPipeline
    parts = (
        "transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2",
        "scheduler",
    )  # fmt: skip
    optional = ()
    inside: ClassVar = {
        "transformer": ("model.diffusion_model.", "double_blocks."),
        "vae": ("first_stage_model.", "vae."),
        "text_encoder": ("text_encoders.clip_l.",),
        "text_encoder_2": ("text_encoders.t5xxl.",),
    }
    patch = 2

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self._pipeline = pipeline
        self._guided = pipeline.transformer.config.guidance_embeds
        tokens = _T5_TOKENS if self._guided else _T5_TOKENS_SCHNELL
        t5 = pipeline.tokenizer_2, pipeline.text_encoder_2, tokens
        self.readers = [
            clip_reader("clip_l", pipeline, pipeline.tokenizer, pipeline.text_encoder),
            TextReader("t5xxl", pipeline, *t5, layers=False),
        ]
        self.adapted = ("clip_l",)  # diffusers' loader knows no LoRA of a T5
        self.channels = pipeline.transformer.config.in_channels // self.patch**2

    @property
    def network(self) -> nn.Module:
        """The pipeline's own transformer."""
        return self._pipeline.transformer

    def rows(self, texts: Sequence[str], words: Mapping[str, Word]) -> Conditioning:
        """`states` of the T5, `pooled` of the CLIP."""
        clip, t5 = (reader.read(texts, words) for reader in self.readers)
        pairs = zip(t5.last_hidden_state, clip.pooler_output, strict=True)
        return [{STATES: states, POOLED: pooled} for states, pooled in pairs]

    def predict(self, noisy: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """See `Family.predict`; the network itself reads squares of 2 x 2 latents."""
        count, channels, height, width = noisy.shape
        places = height // 2, width // 2, noisy.device, torch.float32
        guidance = timesteps.new_full((count,), GUIDANCE, dtype=torch.float32)
        predicted = self.network(
            hidden_states=FluxPipeline._pack_latents(noisy, count, channels, height, width),
            timestep=timesteps / 1000,
            guidance=guidance if self._guided else None,
            pooled_projections=given[POOLED],
            encoder_hidden_states=given[STATES],
            txt_ids=torch.zeros(given[STATES].shape[1], 3, device=noisy.device),
            img_ids=FluxPipeline._prepare_latent_image_ids(count, *places),
        ).sample
        return FluxPipeline._unpack_latents(predicted, height, width, 1)

    def lora_names(self) -> Names:
        """diffusers' own names."""
        encoders = {one.name: one.encoder for one in self.readers if one.name in self.adapted}
        return transformer_names(self.network, encoders)

"""Stable Diffusion 1, 2 and XL: a UNet that attends to what CLIP says of the prompt."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
from torch import Tensor, nn

from ..denoiser import Conditioning, Word
from .family import POOLED, STATES, Names, clip_reader
from .lora_names import unet_names

_OPEN_CLIP = 1024  # width of Stable Diffusion 2's text encoder, which ComfyUI calls clip_h


class StableDiffusion:
    """Stable Diffusion 1 and 2, and the tiny base: one text encoder."""

    kind = StableDiffusionPipeline
    parts = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
    optional = ()
    inside: ClassVar = {
        "unet": ("model.diffusion_model.",),
        "vae": ("first_stage_model.",),
        "text_encoder": ("cond_stage_model.",),
    }
    patch = 1

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self._pipeline = pipeline
        name = "clip_h" if pipeline.text_encoder.config.hidden_size == _OPEN_CLIP else "clip_l"
        self.readers = [clip_reader(name, pipeline, pipeline.tokenizer, pipeline.text_encoder)]
        self.adapted = (name,)
        self.channels = pipeline.unet.config.in_channels

    @property
    def network(self) -> nn.Module:
        """The pipeline's own UNet."""
        return self._pipeline.unet

    def rows(self, texts: Sequence[str], words: Mapping[str, Word]) -> Conditioning:
        """`states` of the last layer."""
        read = self.readers[0].read(texts, words)
        return [{STATES: states} for states in read.last_hidden_state]

    def predict(self, noisy: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """See `Family.predict`."""
        return self.network(noisy, timesteps, given[STATES]).sample

    def lora_names(self) -> Names:
        """Kohya's names."""
        return unet_names(self.network, {one.name: one.encoder for one in self.readers})


class StableDiffusionXL(StableDiffusion):
    """SDXL: two text encoders, pooled text and the picture's size."""

    kind = StableDiffusionXLPipeline
    parts = (
        "unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler",
    )  # fmt: skip
    inside: ClassVar = {
        "unet": ("model.diffusion_model.",),
        "vae": ("first_stage_model.",),
        "text_encoder": ("conditioner.embedders.0.",),
        "text_encoder_2": ("conditioner.embedders.1.",),
    }

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self._pipeline = pipeline
        self.readers = [
            clip_reader("clip_l", pipeline, pipeline.tokenizer, pipeline.text_encoder),
            clip_reader("clip_g", pipeline, pipeline.tokenizer_2, pipeline.text_encoder_2),
        ]
        self.adapted = ("clip_l", "clip_g")
        self.channels = pipeline.unet.config.in_channels

    def rows(self, texts: Sequence[str], words: Mapping[str, Word]) -> Conditioning:
        """`states` of both encoders' last layer but one, side by side; `pooled` of the second."""
        read = [reader.read(texts, words) for reader in self.readers]
        states = torch.cat([seen.hidden_states[-2] for seen in read], dim=-1)
        pairs = zip(states, read[-1].text_embeds, strict=True)
        return [{STATES: state, POOLED: pooled} for state, pooled in pairs]

    def predict(self, noisy: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """See `Family.predict`."""
        added = {"text_embeds": given[POOLED], "time_ids": self._size_ids(noisy)}
        return self.network(noisy, timesteps, given[STATES], added_cond_kwargs=added).sample

    def _size_ids(self, latents: Tensor) -> Tensor:
        """The picture's size, crop and target size: nothing scaled, nothing cropped."""
        factor = self._pipeline.vae_scale_factor
        height, width = (side * factor for side in latents.shape[-2:])
        ids = torch.tensor([height, width, 0, 0, height, width], device=latents.device)
        return ids.float().repeat(len(latents), 1)

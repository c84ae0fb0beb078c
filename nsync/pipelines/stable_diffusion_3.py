"""Stable Diffusion 3 and 3.5: a transformer over patches and words, trained by flow matching
(arXiv 2403.03206)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline, StableDiffusion3Pipeline
from torch import Tensor, nn
from torch.nn import functional

from ..denoiser import Conditioning, Word
from .family import POOLED, STATES, Names, clip_reader
from .lora_names import transformer_names
from .text import TextReader

_T5_TOKENS = 256  # the pipeline's own `max_sequence_length`


class StableDiffusion3:
    """Two CLIPs, and a T5 that may be missing."""

    kind = StableDiffusion3Pipeline
    parts = (
        "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer",
        "tokenizer_2", "tokenizer_3", "scheduler",
    )  # fmt: skip
    optional = ("text_encoder_3", "tokenizer_3")
    inside: ClassVar = {
        "transformer": ("model.diffusion_model.", "joint_blocks."),
        "vae": ("first_stage_model.", "vae."),
        "text_encoder": ("text_encoders.clip_l.",),
        "text_encoder_2": ("text_encoders.clip_g.",),
        "text_encoder_3": ("text_encoders.t5xxl.",),
    }

    def __init__(self, pipeline: DiffusionPipeline) -> None:
        self._pipeline = pipeline
        self.readers = [
            clip_reader("clip_l", pipeline, pipeline.tokenizer, pipeline.text_encoder),
            clip_reader("clip_g", pipeline, pipeline.tokenizer_2, pipeline.text_encoder_2),
        ]
        self.adapted = ("clip_l", "clip_g")  # diffusers' loader knows no LoRA of a T5
        if pipeline.text_encoder_3 is not None:
            t5 = pipeline.tokenizer_3, pipeline.text_encoder_3, _T5_TOKENS
            self.readers.append(TextReader("t5xxl", pipeline, *t5, layers=False))
        self.channels = pipeline.transformer.config.in_channels
        self.patch = pipeline.transformer.config.patch_size

    @property
    def network(self) -> nn.Module:
        """The pipeline's own transformer."""
        return self._pipeline.transformer

    def rows(self, texts: Sequence[str], words: Mapping[str, Word]) -> Conditioning:
        """`states`: both CLIPs' last layer but one side by side, filled up to the T5's width, then
        the T5's; zeros without a T5. `pooled`: both CLIPs' side by side."""
        read = [reader.read(texts, words) for reader in self.readers]
        clips = torch.cat([seen.hidden_states[-2] for seen in read[:2]], dim=-1)
        width = self.network.config.joint_attention_dim
        if len(read) == len(self.adapted):
            t5 = clips.new_zeros(len(texts), _T5_TOKENS, width)
        else:
            t5 = read[-1].last_hidden_state.to(clips)
        clips = functional.pad(clips, (0, width - clips.shape[-1]))
        states = torch.cat([clips, t5], dim=1)
        pooled = torch.cat([seen.text_embeds for seen in read[:2]], dim=-1)
        pairs = zip(states, pooled, strict=True)
        return [{STATES: state, POOLED: whole} for state, whole in pairs]

    def predict(self, noisy: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """See `Family.predict`."""
        return self.network(
            hidden_states=noisy,
            timestep=timesteps,
            encoder_hidden_states=given[STATES],
            pooled_projections=given[POOLED],
        ).sample

    def lora_names(self) -> Names:
        """diffusers' own names."""
        encoders = {one.name: one.encoder for one in self.readers if one.name in self.adapted}
        return transformer_names(self.network, encoders)

"""The one contract that a model must meet to be trained, sampled or judged here.

Pixels are float32 `[n, 3, h, w]` in 0..1, RGB. Latents are float32 in the model's own scale (what
its network is trained on). Times are float32 `[n]` in 0..1, in main memory: the fraction of the
base's own noise schedule, 0 the clean picture and 1 pure noise; a denoiser maps them to its sigmas
or timesteps.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .runs.judgements import Judgement, at_least

Row = Mapping[str, Tensor]
"""One prompt as a model reads it: named tensors, in a form that only its own denoiser knows."""

Conditioning = Sequence[Row]
"""A row per prompt. Rows whose tensors have the same names and shapes go through the network
together; others one after the other."""

Word = Mapping[str, Tensor]
"""Vectors that stand for a word, `[vectors, width]` by the name of the text encoder."""


def row_shape(row: Row) -> tuple[tuple[str, torch.Size], ...]:
    """Names and shapes of a row's tensors: rows that agree in it fit into one batch."""
    return tuple(sorted((name, value.shape) for name, value in row.items()))


@dataclass(frozen=True)
class SamplerSettings:
    """How pictures are drawn: the host's (or pipeline's) own sampler and scheduler, by name.

    Attributes:
        steps: passes of the network, 1 or more.
        guidance: how closely prompts are followed (CFG), 0 or more; 1 asks once for each step.
        sampler: by the host's name ("euler", "dpmpp_2m", ...).
        scheduler: how noise levels are spaced ("normal", "simple", "karras", ...).
    """

    steps: int = 50
    guidance: float = 7.5
    sampler: str = "euler"
    scheduler: str = "normal"

    def judgements(self) -> list[Judgement]:
        """The rules of the numbers; which names there are is the base's to say."""
        return [at_least(self, "steps", 1), at_least(self, "guidance", 0)]


@runtime_checkable
class Denoiser(Protocol):
    """What the trainer, the negative generator and the evaluator know of a model."""

    identity: str
    """Hash of the base weights (hex): what a negative set and a LoRA are bound to."""

    companions: Mapping[str, str]
    """Hashes (hex) of what stands beside the base: `text_encoders`, `vae`, `noise_levels`. No run
    and no negative set is gone on with by others; of what is not told nothing is asked."""

    size_multiple: int
    """Widths and heights in pixels must be multiples of this."""

    device: torch.device
    """Where `loss` computes."""

    words: dict[str, Word]
    """Words (style tokens) that stand for vectors of their own, as in textual inversion. Wherever
    a prompt has one, in `encode_prompts` and in `generate`, the text encoders read the vectors
    instead; gradients flow through `encode_prompts` to them. Empty unless somebody trains."""

    @property
    def network(self) -> nn.Module:
        """The denoising network that adapters are injected into."""
        ...

    @property
    def text_encoders(self) -> Mapping[str, nn.Module]:
        """The text encoders that adapters and vectors can be trained in, by name ("clip_l")."""
        ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Pixels `[n, 3, h, w]` to latents `[n, c, h', w']`, the mean of the encoder, no noise."""
        ...

    def encode_prompts(self, texts: Sequence[str]) -> Conditioning:
        """Prompts to conditioning, one row each, differentiable where autograd is on."""
        ...

    def word_vectors(self, text: str) -> dict[str, Tensor]:
        """The rows of the token tables that the text's tokens have: float32 `[tokens, width]` by
        text encoder, copies, without start, end and padding."""
        ...

    def prompt_tokens(self, text: str) -> tuple[int, int]:
        """(tokens that the prompt takes, tokens that the text encoder reads at once)."""
        ...

    def loss(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, times: Tensor
    ) -> Tensor:
        """Per-sample denoising loss `[n]`: mean squared error in the base's own target."""
        ...

    def min_snr(self, times: Tensor, gamma: float) -> Tensor:
        """Weights `[n]` of the losses at these times: min-SNR (arXiv 2303.09556, section 3.4).

        In terms of the clean picture the loss is the squared error times s^2, s by the base's own
        target; weighted, it is the squared error times min(SNR, gamma): the weight is
        min(SNR, gamma) / s^2. That is min(SNR, gamma) / SNR for noise prediction and
        min(SNR, gamma) / (SNR + 1) for v prediction, as in the paper.
        """
        ...

    def checkpointing(self) -> AbstractContextManager[None]:
        """For the block, the network keeps only its blocks' inputs and computes again in backward
        what lies between: less memory for about a third more time, the same numbers."""
        ...

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        size: tuple[int, int],
        settings: SamplerSettings,
        *,
        negative_prompt: str = "",
        latents: Tensor | None = None,
        denoise: float = 1.0,
    ) -> Tensor:
        """Draw one picture per (prompt, seed): pixels `[n, 3, height, width]`.

        `size` is (width, height) in pixels. With `latents` and `denoise` < 1 the drawing starts
        from them, noised to that strength, and keeps their composition.
        """
        ...

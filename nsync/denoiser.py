"""The one contract that a model must meet to be trained, sampled or judged here.

Pixels are float32 `[n, 3, h, w]` in 0..1, RGB. Latents are float32 in the model's own scale (what
its network is trained on). Times are float32 `[n]` in 0..1: the fraction of the base's own noise
schedule, 0 the clean picture and 1 pure noise; a denoiser maps them to its sigmas or timesteps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Conditioning = Mapping[str, Tensor]
"""Named tensors, each `[n, ...]` with one row per prompt."""


def take(conditioning: Conditioning, rows: Sequence[int] | Tensor) -> dict[str, Tensor]:
    """The conditioning of some of its prompts, in the order of `rows` (repeats allowed)."""
    index = torch.as_tensor(rows, dtype=torch.long)
    return {name: tensor[index.to(tensor.device)] for name, tensor in conditioning.items()}


@dataclass(frozen=True)
class SamplerSettings:
    """How pictures are drawn: the host's (or pipeline's) own sampler and scheduler, by name."""

    steps: int = 50
    guidance: float = 7.5
    sampler: str = "euler"
    scheduler: str = "normal"


@runtime_checkable
class Denoiser(Protocol):
    """What the trainer, the negative generator and the evaluator know of a model."""

    identity: str
    """Hash of the base weights (hex): what a negative set and a LoRA are bound to."""

    size_multiple: int
    """Widths and heights in pixels must be multiples of this."""

    device: torch.device
    """Where `loss` computes."""

    @property
    def network(self) -> nn.Module:
        """The denoising network that adapters are injected into."""
        ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Pixels `[n, 3, h, w]` to latents `[n, c, h', w']`, the mean of the encoder, no noise."""
        ...

    def encode_prompts(self, texts: Sequence[str]) -> Conditioning:
        """Prompts to conditioning, one row each; all rows have one shape."""
        ...

    def prompt_tokens(self, text: str) -> tuple[int, int]:
        """(tokens that the prompt takes, tokens that the text encoder reads at once)."""
        ...

    def loss(
        self, latents: Tensor, conditioning: Conditioning, noise: Tensor, times: Tensor
    ) -> Tensor:
        """Per-sample denoising loss `[n]`: mean squared error in the base's own target."""
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

"""What the families of pipelines differ in, and what several of them share."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from diffusers import DiffusionPipeline
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..denoiser import Conditioning, Word
from .text import TextReader

STATES, POOLED = "states", "pooled"
"""The tensors of a row: what the text encoders say token by token `[tokens, width]`, and of the
prompt as a whole `[width]`."""

Names = dict[str, str]
"""What a LoRA file calls each layer, by the layer's key (see `nsync.adapters.layer_key`)."""


class Family(Protocol):
    """A pipeline seen through what its family has of its own.

    Attributes:
        kind: the pipelines' class.
        parts: what a pipeline consists of that is used, as its folder names it; the denoising
            network is the first. Those in `optional` may be missing.
        inside: what the keys of each part begin with in a single file, by the part's name.
        readers: the text encoders, in the pipeline's order.
        adapted: names of those that a LoRA may go into; the others are frozen.
        channels: of the latents that the network reads.
        patch: side of the square of latents that the network reads as one token; 1 without tokens.
    """

    kind: ClassVar[type[DiffusionPipeline]]
    parts: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]]
    inside: ClassVar[Mapping[str, tuple[str, ...]]]
    readers: Sequence[TextReader]
    adapted: tuple[str, ...]
    channels: int
    patch: int

    @property
    def network(self) -> nn.Module:
        """The denoising network."""
        ...

    def rows(self, texts: Sequence[str], words: Mapping[str, Word]) -> Conditioning:
        """One row per prompt, as the pipeline's own `encode_prompt` makes them."""
        ...

    def predict(self, noisy: Tensor, timesteps: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """The network's prediction `[n, c, h, w]`.

        Args:
            noisy: latents `[n, c, h, w]`.
            timesteps: `[n]`, in the pipeline's scale of `num_train_timesteps`.
            given: rows of equal shapes, stacked, in the dtype of the latents.
        """
        ...

    def lora_names(self) -> Names:
        """The file's name of every layer that can be trained."""
        ...


def clip_reader(
    name: str,
    pipeline: DiffusionPipeline,
    tokenizer: PreTrainedTokenizerBase,
    encoder: PreTrainedModel,
) -> TextReader:
    """A CLIP text encoder: as long as its tokenizer says, every layer's states told."""
    return TextReader(name, pipeline, tokenizer, encoder, tokenizer.model_max_length)

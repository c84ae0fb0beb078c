"""What the network is told: prompts encoded once, or in every pass where the words are trained."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .denoiser import Denoiser, Row, row_shape


class Prompts:
    """The conditioning of a run's prompts.

    Args:
        texts: every prompt that the run will ask for; they are encoded now, without gradient.
        live: encode anew at every call, with gradient, since the text encoders or their words are
            trained; then only the shapes of the rows are kept.
    """

    def __init__(self, denoiser: Denoiser, texts: Sequence[str], live: bool) -> None:
        self._denoiser, self.live = denoiser, live
        unique = list(dict.fromkeys(texts))
        with torch.no_grad():
            rows = denoiser.encode_prompts(unique)
        self._shapes = {text: row_shape(row) for text, row in zip(unique, rows, strict=True)}
        self._rows = {} if live else dict(zip(unique, map(_kept, rows), strict=True))

    def shape(self, text: str) -> tuple:
        """Prompts of one shape can share a batch of the network."""
        return self._shapes[text]

    def __call__(self, texts: Sequence[str]) -> list[Row]:
        """A row per text, on the denoiser's device."""
        rows = self._denoiser.encode_prompts(texts) if self.live else map(self._rows.get, texts)
        device = self._denoiser.device
        return [{name: to(value, device) for name, value in row.items()} for row in rows]


def to(value: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; from main memory to a GPU without waiting for the GPU."""
    if device.type == "cuda" and value.device.type == "cpu" and not value.requires_grad:
        return value.pin_memory().to(device, non_blocking=True)
    return value.to(device)


def _kept(row: Row) -> Row:
    return {name: value.detach().clone().cpu() for name, value in row.items()}

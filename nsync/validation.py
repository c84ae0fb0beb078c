"""The loss on pictures that are never trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .denoiser import Denoiser
from .draws import generator
from .prompts import Prompts, to
from .runs.log import VALIDATION
from .settings import TrainSettings

TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


class Validation:
    """The mean loss over held-out pictures, each at the same times with the same noise always.

    The training loss jumps with the times that are drawn; of this one a fall is a fall. Without
    held-out pictures it is false.
    """

    def __init__(
        self,
        settings: TrainSettings,
        denoiser: Denoiser,
        prompts: Prompts,
        pictures: Sequence[tuple[str, Tensor, str]],
    ) -> None:
        self._seed, self._denoiser = settings.seed, denoiser
        self._prompts, self._pictures = prompts, pictures

    def __bool__(self) -> bool:
        return bool(self._pictures)

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """The loss now, under its name in the log."""
        losses = [self._loss(*picture, time) for picture in self._pictures for time in TIMES]
        return {VALIDATION: float(torch.stack(losses).mean())}

    def _loss(self, name: str, latents: Tensor, text: str, time: float) -> Tensor:
        drawn = generator(self._seed, "validation", name, str(time))
        noise, device = torch.randn(latents.shape, generator=drawn), self._denoiser.device
        rows = self._prompts([text])
        times = torch.tensor([time])
        return self._denoiser.loss(to(latents[None], device), rows, to(noise[None], device), times)

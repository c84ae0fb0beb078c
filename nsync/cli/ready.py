"""The arithmetic of a training through diffusers."""

from contextlib import AbstractContextManager, nullcontext

import torch

from ..denoiser import Denoiser
from ..settings import TrainSettings


def ready(settings: TrainSettings, denoiser: Denoiser) -> AbstractContextManager:
    """For a block, the network computes in the precision that is asked for; weights stay."""
    if settings.precision == "fp32":
        return nullcontext()
    return torch.autocast(denoiser.device.type, torch.bfloat16)

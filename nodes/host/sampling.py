"""Drawing with the host's own samplers."""

from collections.abc import Sequence

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSampler
from comfy.sd import VAE
from torch import Tensor

from ...nsync.denoiser import Row, SamplerSettings
from ...nsync.errors import InputError
from ...nsync.memory import pictures_at_once
from .conditioning import can_share_batch, host_conditioning

# Samplers that draw no noise on their way. The others draw it for the whole batch at once, so a
# picture would depend on its neighbours; and an adaptive one chooses its steps by all of them.
_NOISELESS = {
    "euler", "euler_cfg_pp", "heun", "heunpp2", "exp_heun_2_x0", "dpm_2", "lms", "dpmpp_2m",
    "dpmpp_2m_cfg_pp", "ipndm", "ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp",
    "gradient_estimation", "gradient_estimation_cfg_pp", "ddim", "uni_pc", "uni_pc_bh2",
}  # fmt: skip


def check_names(settings: SamplerSettings) -> None:
    """Raise `InputError` for a sampler or scheduler that the host does not know."""
    for name, known in (("sampler", KSampler.SAMPLERS), ("scheduler", KSampler.SCHEDULERS)):
        if getattr(settings, name) not in known:
            expected = f"one of {', '.join(known)}"
            raise InputError(name, expected, repr(getattr(settings, name)))


def at_once(rows: Sequence[Row], size: tuple[int, int], settings: SamplerSettings) -> int:
    """How many rows are drawn together: one, where a picture would depend on its neighbours."""
    shared = settings.sampler in _NOISELESS and can_share_batch(rows)
    return pictures_at_once(size) if shared else 1


def draw(
    models: tuple[ModelPatcher, VAE],
    rows: Sequence[Row],
    unwanted: Sequence[Row],
    seeds: Sequence[int],
    starts: Tensor,
    settings: SamplerSettings,
    denoise: float,
) -> Tensor:
    """A batch of pictures, float32 `[n, 3, h, w]` in 0..1, in main memory.

    Args:
        unwanted: the negative prompt, one row.
        starts: latents that the sampler begins from, in the host's own scale.
    """
    patcher, vae = models
    pairs = zip(starts.split(1), seeds, strict=True)
    samples = comfy.sample.sample(
        patcher,
        torch.cat([comfy.sample.prepare_noise(start, seed) for start, seed in pairs]),
        settings.steps,
        settings.guidance,
        settings.sampler,
        settings.scheduler,
        host_conditioning(rows),
        host_conditioning(unwanted),
        starts,
        denoise=denoise,
        disable_pbar=True,
        seed=seeds[0],
    )
    pixels = vae.decode(samples).float()
    return pixels.reshape(-1, *pixels.shape[-3:]).movedim(-1, 1).clamp(0, 1).cpu()

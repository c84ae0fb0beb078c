"""The noise of a diffusers pipeline: how much of it a time stands for, and how it is taken out.

A noisy picture is `alpha x_0 + sigma noise`. Bases of the DDPM kind (arXiv 2006.11239) have a table
of alpha^2 by timestep, with alpha^2 + sigma^2 = 1; flow matching (arXiv 2209.03003) has
alpha = 1 - sigma.
"""

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from ..denoiser import SamplerSettings
from ..errors import InputError

_EPSILON, _VELOCITY, _FLOW = "epsilon", "v_prediction", "flow_prediction"
_TARGETS = {
    _EPSILON: lambda latents, noise, levels: noise,  # arXiv 2006.11239, equation 14
    # arXiv 2202.00512, section 4
    _VELOCITY: lambda latents, noise, levels: levels.alpha * noise - levels.sigma * latents,
    _FLOW: lambda latents, noise, levels: noise - latents,
}
# What of a scheduler's settings says how the base was trained; the others say how to sample.
_TRAINED = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "rescale_betas_zero_snr", "prediction_type",
)  # fmt: skip

# Of a shift that grows with the picture: what `calculate_shift` calls them, and what the scheduler.
_DYNAMIC = {
    "base_seq_len": "base_image_seq_len",
    "max_seq_len": "max_image_seq_len",
    "base_shift": "base_shift",
    "max_shift": "max_shift",
}

# By the host's names. Without noise of its own, DDIM is Euler's method in sigma, in the host too.
_EULER, _MULTISTEP = "euler", "dpmpp_2m"
_SAMPLERS = (_EULER, "ddim", _MULTISTEP)
_SPACINGS = {
    "normal": {"timestep_spacing": "linspace"},
    "simple": {"timestep_spacing": "trailing"},
    "karras": {"use_karras_sigmas": True},
}
_FLOW_SPACINGS = {
    _EULER: ("normal", "simple"),
    "ddim": ("normal", "simple"),
    _MULTISTEP: ("normal",),
}


class Levels(NamedTuple):
    """How pictures are noised: `alpha x_0 + sigma noise`, and what the network is told, `[n]`."""

    alpha: Tensor
    sigma: Tensor
    timesteps: Tensor


class NoiseSchedule:
    """The noise schedule that a pipeline's scheduler was configured with.

    A schedule whose shift follows the size of the picture (Flux: `use_dynamic_shifting`) is trained
    with its largest, `max_shift`, at every size, as in the host; drawing follows the size.

    Args:
        scheduler: of the pipeline; it is read here and never used or changed.
        patch: side of the square of latents that counts as one token of the picture.

    Raises:
        InputError: the base was not trained on a schedule of the DDPM kind or by flow matching, or
            predicts neither noise nor velocity.
    """

    def __init__(self, scheduler: SchedulerMixin, patch: int = 1) -> None:
        config, self._patch, self._mu = scheduler.config, patch, {}
        self._config = {name: config[name] for name in _TRAINED if name in config}
        self._steps = config["num_train_timesteps"]
        self._target = config.get("prediction_type")
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            self._target = _FLOW
        _check_trainable(scheduler, self._target)
        if self._target == _FLOW:
            self._shift = config.get("flow_shift", config.get("shift"))
            if config.get("use_dynamic_shifting"):
                self._mu = {ours: config[theirs] for ours, theirs in _DYNAMIC.items()}
                self._shift = math.exp(config["max_shift"])
        else:
            self._kept = DDPMScheduler(**self._config).alphas_cumprod

    def levels(self, times: Tensor) -> Levels:
        """The noise of each time: the nearest timestep's, or with flow matching the time's own.

        Args:
            times: float32 `[n]` in 0..1.
        """
        if self._target == _FLOW:
            sigma = self._shift * times / (1 + (self._shift - 1) * times)
            return Levels(1 - sigma, sigma, sigma * self._steps)
        timesteps = (times * (self._steps - 1)).round().long()
        kept = self._kept.to(times.device)[timesteps]
        return Levels(kept.sqrt(), (1 - kept).sqrt(), timesteps)

    def noised(
        self, latents: Tensor, noise: Tensor, times: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(noisy latents, what the base should predict of them, timesteps for the network).

        Args:
            latents, noise: float32 `[n, c, h, w]`.
            times: float32 `[n]` in 0..1.
        """
        alpha, sigma, timesteps = self.levels(times)
        levels = Levels(alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1), timesteps)
        noisy = levels.alpha * latents + levels.sigma * noise
        return noisy, _TARGETS[self._target](latents, noise, levels), timesteps

    def min_snr(self, times: Tensor, gamma: float) -> Tensor:
        """Weights `[n]` of the losses at these times; see `nsync.denoiser.Denoiser.min_snr`."""
        alpha, sigma, _ = self.levels(times)
        snr = (alpha / sigma).square()
        if self._target == _EPSILON:
            return (gamma / snr).clamp(max=1)  # also where a schedule ends in noise alone, SNR 0
        # An error of the velocity is one of x_0 over sigma; for v, sigma^2 is 1 / (SNR + 1).
        return snr.clamp(max=gamma) * sigma.square()

    def check(self, settings: SamplerSettings) -> None:
        """Raise `InputError` where there is no such sampler or scheduler here."""
        _check_name("sampler", settings.sampler, _SAMPLERS)
        spacings = _FLOW_SPACINGS[settings.sampler] if self._target == _FLOW else _SPACINGS
        _check_name("scheduler", settings.scheduler, spacings)

    def _sampler(self, settings: SamplerSettings, noise: Tensor) -> SchedulerMixin:
        """diffusers' own sampler of that name, with nothing of how the pipeline samples."""
        self.check(settings)
        if self._target == _FLOW:
            return self._flow_sampler(settings.sampler, self._shift_at(noise))
        options = {**self._config, **_SPACINGS[settings.scheduler]}
        if settings.sampler == _MULTISTEP:
            return DPMSolverMultistepScheduler(**options)
        return EulerDiscreteScheduler(**options)

    def draw(
        self,
        predict: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        settings: SamplerSettings,
        latents: Tensor | None = None,
        denoise: float = 1.0,
    ) -> Tensor:
        """Latents float32 `[n, c, h, w]` drawn from the noise, or from latents noised with it.

        Args:
            predict: (noisy latents, timestep) to the base's prediction, float32.
            noise, latents: float32 `[n, c, h, w]`.
            denoise: how much is drawn anew, above 0, up to 1. All of `settings.steps` are made:
                they are the last ones of a longer way, as in the host.

        Raises:
            InputError: there is no such sampler or scheduler here.
        """
        sampler, count = self._sampler(settings, noise), int(settings.steps / denoise)
        sampler.set_timesteps(count, device=noise.device, **self._spaced(settings, count))
        first = len(sampler.timesteps) - settings.steps
        sampler.set_begin_index(first)
        x = _start(sampler, first, noise, latents)
        for timestep in sampler.timesteps[first:]:
            predicted = predict(_scaled(sampler, x, timestep), timestep)
            x = sampler.step(predicted, timestep, x, return_dict=False)[0]
        return x

    def _spaced(self, settings: SamplerSettings, count: int) -> dict[str, list[float]]:
        """The host's "simple" steps of a flow: even ones from 1, the last from 1 / count to 0."""
        if self._target != _FLOW or settings.scheduler != "simple":
            return {}
        return {"sigmas": [1 - step / count for step in range(count)]}

    def _shift_at(self, latents: Tensor) -> float:
        """The shift for pictures of this size; a shift of e^mu is the exponential one by mu."""
        if not self._mu:
            return self._shift
        height, width = latents.shape[-2:]
        return math.exp(calculate_shift(height * width // self._patch**2, **self._mu))

    def _flow_sampler(self, name: str, shift: float) -> SchedulerMixin:
        if name == _MULTISTEP:
            return DPMSolverMultistepScheduler(
                num_train_timesteps=self._steps,
                prediction_type=_FLOW,
                use_flow_sigmas=True,
                flow_shift=shift,
            )
        return FlowMatchEulerDiscreteScheduler(self._steps, shift=shift)


def _start(sampler: SchedulerMixin, first: int, noise: Tensor, latents: Tensor | None) -> Tensor:
    if isinstance(sampler, FlowMatchEulerDiscreteScheduler):
        if latents is None:
            return noise
        return sampler.scale_noise(latents, sampler.timesteps[first : first + 1], noise)
    if latents is None:
        return noise * sampler.init_noise_sigma
    return sampler.add_noise(latents, noise, sampler.timesteps[first : first + 1])


def _scaled(sampler: SchedulerMixin, x: Tensor, timestep: Tensor) -> Tensor:
    if isinstance(sampler, FlowMatchEulerDiscreteScheduler):
        return x
    return sampler.scale_model_input(x, timestep)


def _check_trainable(scheduler: SchedulerMixin, target: str | None) -> None:
    if target not in _TARGETS:
        expected = f"a base that predicts one of {', '.join(_TARGETS)}"
        raise InputError("pipeline", expected, repr(target))
    if target != _FLOW and not hasattr(scheduler, "alphas_cumprod"):
        expected = "a base trained on a DDPM schedule or by flow matching"
        raise InputError("pipeline", expected, f"one with a {type(scheduler).__name__}")
    if scheduler.config.get("time_shift_type", "exponential") != "exponential":
        expected = "a base whose times are shifted exponentially"
        raise InputError("pipeline", expected, repr(scheduler.config["time_shift_type"]))


def _check_name(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise InputError(name, f"one of {', '.join(known)}", repr(value))

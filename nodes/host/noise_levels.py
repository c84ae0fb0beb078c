"""How the host's families of models noise a picture, and what each was trained to predict.

The host samples every family through one function, `denoised = f(x_t, sigma)`. Its prediction
types differ in the noise level that a time stands for, and in how far an error of `denoised`
counts: the base's own target is linear in `denoised`, with the factor that `error_scale` gives.
"""

from comfy.model_sampling import ModelSamplingDiscrete
from torch import Tensor, nn

from ...nsync.errors import InputError
from ...nsync.prompts import to

# Prediction types by the host's class names, which older versions have only in part: factor of
# (x_0 - denoised) in the error of the base's own target.
_SCALES = {
    # noise: eps - n = (x_0 - denoised) / sigma   (arXiv 2006.11239, eq. 14; VE form of 2206.00364)
    "EPS": lambda sigma, data: 1 / sigma,
    # velocity v = alpha n - sigma' x_0   (arXiv 2202.00512, section 4)
    "V_PREDICTION": lambda sigma, data: (sigma**2 + data**2).sqrt() / (sigma * data),
    "V_PREDICTION_DDPM": lambda sigma, data: (sigma**2 + data**2).sqrt() / (sigma * data),
    # arXiv 2206.00364, table 1: the weight (sigma^2 + data^2) / (sigma data)^2
    "EDM": lambda sigma, data: (sigma**2 + data**2).sqrt() / (sigma * data),
    # flow velocity n - x_0   (arXiv 2209.03003)
    "CONST": lambda sigma, data: 1 / sigma,
    "COSMOS_RFLOW": lambda sigma, data: (sigma + 1) / sigma,
}
# Subclasses of the above that are not trained by adding noise.
_OTHERS = ("X0", "IMG_TO_IMG", "IMG_TO_IMG_FLOW")


def check_trainable(sampling: nn.Module) -> None:
    """Raise `InputError` for a model that was not trained to take noise out of a picture."""
    if prediction(sampling) not in _SCALES:
        raise InputError(
            "model",
            "a model that predicts noise or velocity",
            f"one whose prediction type is {prediction(sampling)}",
            "Choose a text-to-image model.",
        )


def noise_levels(sampling: nn.Module, times: Tensor) -> Tensor:
    """The sigma `[n]` of each time, as the base was trained.

    Args:
        sampling: the host's `model_sampling`.
        times: float32 `[n]` in 0..1, in main memory. A discrete schedule takes the nearest of its
            timesteps; a continuous one its own shift. Sigmas below the schedule's least are raised
            to it, since the error of a prediction says nothing at sigma 0.
    """
    table = sampling.sigmas.float()
    if isinstance(sampling, ModelSamplingDiscrete):
        places = (times * (len(table) - 1)).round().long()
        return table[to(places, table.device)]
    levels = [float(sampling.percent_to_sigma(1 - time)) for time in times.tolist()]
    return to(times.new_tensor(levels), table.device).clamp(table[0], table[-1])


def signal_to_noise(sampling: nn.Module, sigmas: Tensor) -> Tensor:
    """SNR `[n]`: the power of the picture in x_t over that of the noise."""
    if prediction(sampling) == "CONST":  # x_t = (1 - sigma) x_0 + sigma n
        return ((1 - sigmas) / sigmas).square()
    return (getattr(sampling, "sigma_data", 1.0) / sigmas).square()  # x_0 + sigma n, rescaled


def error_scale(sampling: nn.Module, sigmas: Tensor) -> Tensor:
    """What (x_0 - denoised) is multiplied with to be the error of the base's own target, `[n]`."""
    return _SCALES[prediction(sampling)](sigmas, getattr(sampling, "sigma_data", 1.0))


def prediction(sampling: nn.Module) -> str:
    """What the model was trained to predict, by the host's class name."""
    names = [base.__name__ for base in type(sampling).__mro__]
    return next((name for name in names if name in _SCALES or name in _OTHERS), names[0])

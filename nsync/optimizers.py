"""What turns a gradient into a step: optimizers, their rates, their state, and averaged weights.

All trained weights of a kind are one flat parameter, so an optimizer here gets one or two
parameters, and only element-wise optimizers are on offer. The rarer ones come from packages of
their own (Prodigy's and schedule-free's by the papers' authors), imported when they are used.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .errors import InputError
from .optimizer_kinds import KINDS, shapes

Scalars = dict[str, float | int | str]
"""Python numbers of an optimizer's state by their flat names; JSON keeps them exactly."""

_CURVES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}
SCHEDULES = tuple(_CURVES)
"""What a learning rate can do after its warm-up."""


def schedule_factor(schedule: str, step: int, steps: int, warmup: int) -> float:
    """What the base learning rate is multiplied by for update `step` (0-based) of `steps`: (0, 1].

    It rises linearly over `warmup` updates and reaches 1 with the update after them; then
    "constant" stays there, "linear" and "cosine" (arXiv 1608.03983, eq. 5, without restarts) fall
    and would reach 0 with the update after the last.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return _CURVES[schedule]((step - warmup) / max(1, steps - warmup))


def available() -> tuple[str, ...]:
    """The optimizers whose packages are installed, default first; nothing is imported for it."""
    return tuple(name for name, kind in KINDS.items() if find_spec(kind.module))


OPTIMIZERS = available()
"""The optimizers that can be used here, default first."""


def make_optimizer(
    name: str,
    groups: Mapping[str, nn.Parameter],
    rates: Mapping[str, float],
    weight_decay: Mapping[str, float] | float,
) -> Optimizer:
    """An optimizer of flat parameters, one parameter group each, in the order of `groups`.

    - "adamw": arXiv 1711.05101, alg. 2, with the decay multiplied by the learning rate.
    - "adamw-8bit": the same; its moments are kept in 8 bits (arXiv 2110.02861) for parameters of
      4096 elements or more. Every step waits for the device.
    - "prodigy": arXiv 2306.06101, its Adam version, with two additions that its authors advise for
      diffusion models and for a warm-up: Adam's bias correction, and no learning rate in the
      denominator of the distance estimate. Rates are multipliers of the step size that it finds,
      one for all groups, and should be 1.0. Every step waits for the device, twice per group.
    - "schedule-free adamw": arXiv 2405.15682, alg. 1, with Adam's bias correction in the second
      moment rather than in the rate. Meant for the schedule "constant"; see `averaged`.
    - "lion": arXiv 2302.06675, alg. 2. Wants about a tenth of AdamW's rate.

    Each of them may write over `.grad`. Betas and epsilons are the libraries' defaults.

    Args:
        groups: (n,) float32 parameters by name, all on one device.
        rates: base learning rate by name, above 0; see `set_rates`.
        weight_decay: decoupled, 0 or more; by name, or one for all.

    Raises:
        InputError: no such optimizer, its package is missing, or rates that it cannot keep apart.
    """
    if name not in KINDS:
        raise InputError("optimizer", f"one of {', '.join(available())}", repr(name))
    if name == "prodigy" and len(set(rates.values())) > 1:
        raise InputError(
            "learning_rate",
            "the same rate for all weights with the optimizer prodigy",
            ", ".join(f"{rate} for {group}" for group, rate in rates.items()),
            "Prodigy finds one step size for all of them; set every rate to 1.0.",
        )
    try:
        return KINDS[name].build(_parameter_groups(name, groups, rates, weight_decay))
    except ImportError as error:
        package = KINDS[name].module.replace("_", "-")
        raise InputError(
            "optimizer",
            f"the package {package} to be installed for {name!r}",
            f"{type(error).__name__}: {error}",
            f"Install it with `pip install {package}`, or choose another optimizer.",
        ) from error


def set_rates(optimizer: Optimizer, factor: float) -> None:
    """Let the next steps use `factor` times the base learning rate of each group."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def clip(gradients: list[Tensor], most: float) -> Tensor:
    """Scale the gradients in place to a norm of at most `most` (0: leave them); their old norm."""
    norm = torch.nn.utils.get_total_norm(gradients)
    if most:
        factor = (most / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1)
        torch._foreach_mul_(gradients, factor)
    return norm


@contextmanager
def averaged(optimizer: Optimizer) -> Iterator[None]:
    """A context in which the parameters hold what is to be shown or exported.

    That is the average x of the iterates for "schedule-free adamw" (arXiv 2405.15682, alg. 1),
    which trains at another point y; for the other optimizers nothing changes. Afterwards the
    parameters are the same as before to the last bit.
    """
    if not hasattr(optimizer, "eval"):
        yield
        return
    parameters = [group["params"][0] for group in optimizer.param_groups]
    kept = [parameter.detach().clone() for parameter in parameters]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        # The library computes y back from x, with rounding: the copies are what was there.
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


def state_tensors(optimizer: Optimizer) -> tuple[dict[str, Tensor], Scalars]:
    """All that the optimizer has to remember, as copies: tensors in main memory, and numbers.

    Names are flat: `optimizer.lora.exp_avg`. Before the first step there may be none. Rates,
    weight decay and betas are settings, and not part of it. Not to be called within `averaged`.
    """
    tensors: dict[str, Tensor] = {}
    scalars: Scalars = {}
    for group in optimizer.param_groups:
        found = {name: group[name] for name in _estimates(group)}
        found |= optimizer.state.get(group["params"][0], {})
        for name, value in found.items():
            full_name = f"optimizer.{group['name']}.{name}"
            if isinstance(value, Tensor):
                tensors[full_name] = value.detach().to("cpu", copy=True)
            else:
                scalars[full_name] = value
    return tensors, scalars


def load_state(optimizer: Optimizer, tensors: Mapping[str, Tensor], scalars: Scalars) -> None:
    """Let a newly made optimizer go on, to the bit, from where `state_tensors` was taken.

    Raises:
        InputError: names or shapes are not those of this optimizer and its parameters; the
            optimizer is as it was.
    """
    # Copies, because the steps to come write into them.
    left = {name: value.clone() for name, value in tensors.items()} | scalars
    loaded = optimizer.state_dict()
    for index, group in enumerate(optimizer.param_groups):
        prefix = f"optimizer.{group['name']}."
        names = [name for name in left if name.startswith(prefix)]
        found = {name.removeprefix(prefix): left.pop(name) for name in names}
        _check_state(group, found, begun=bool(tensors))
        loaded["param_groups"][index] |= {name: found.pop(name) for name in _estimates(group)}
        loaded["state"][index] = found
    if left:
        groups = ", ".join(group["name"] for group in optimizer.param_groups)
        raise _unfit(f"the state of {groups} and no more", ", ".join(sorted(left)))
    optimizer.load_state_dict(loaded)


def warmed_up(decay: float, updates: int) -> float:
    """What an average keeps of itself in an update, after so many others.

    min(decay, (1 + t) / (10 + t)), so that the first values are soon forgotten: the rule of
    TensorFlow's ExponentialMovingAverage.
    """
    return min(decay, (1 + updates) / (10 + updates))


class Ema:
    """An exponential moving average of parameters, with a decay that warms up.

    See `warmed_up`.

    Args:
        groups: float32 parameters by name; `update` reads them.
        decay: in [0, 1).

    Attributes:
        values: the averages by name, float32, on the devices of the parameters.
    """

    def __init__(self, groups: Mapping[str, nn.Parameter], decay: float) -> None:
        self._groups, self._decay, self._updates = groups, decay, 0
        self.values = {name: value.detach().clone() for name, value in groups.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the parameters of now, without a wait for the device."""
        kept = warmed_up(self._decay, self._updates)
        for name, value in self.values.items():
            value.lerp_(self._groups[name], 1 - kept)
        self._updates += 1

    def state_tensors(self) -> dict[str, Tensor]:
        """Copies in main memory: `ema.<group>`, and the 0-dim int64 `ema.updates`."""
        values = {f"ema.{name}": value.to("cpu", copy=True) for name, value in self.values.items()}
        return values | {"ema.updates": torch.tensor(self._updates)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on, to the bit, from where `state_tensors` was taken.

        Raises:
            InputError: names or shapes are not those of these parameters; nothing has changed.
        """
        wanted = {f"ema.{name}": tuple(value.shape) for name, value in self.values.items()}
        wanted |= {"ema.updates": ()}
        found = {name: tuple(value.shape) for name, value in tensors.items()}
        if found != wanted:
            raise InputError(
                "average of the weights",
                f"tensors of the shapes {wanted}",
                f"{found}",
                "Continue with the rank and layers of the run that was saved.",
            )
        for name, value in self.values.items():
            value.copy_(tensors[f"ema.{name}"])
        self._updates = int(tensors["ema.updates"])


def _parameter_groups(
    name: str,
    groups: Mapping[str, nn.Parameter],
    rates: Mapping[str, float],
    weight_decay: Mapping[str, float] | float,
) -> list[dict]:
    decays = (
        weight_decay if isinstance(weight_decay, Mapping) else dict.fromkeys(groups, weight_decay)
    )
    return [
        {
            "params": [parameter],
            "name": group,
            "optimizer": name,
            "initial_lr": rates[group],
            "lr": rates[group],
            "weight_decay": decays[group],
        }
        for group, parameter in groups.items()
    ]


def _estimates(group: dict) -> list[str]:
    return KINDS[group["optimizer"]].estimates.split()


def _check_state(group: dict, found: Mapping[str, Tensor | float | int], begun: bool) -> None:
    kind, parameter, name = KINDS[group["optimizer"]], group["params"][0], group["name"]
    states = kind.states if begun else ("",)
    wanted = [{*state.split(), *_estimates(group)} for state in states]
    if set(found) not in wanted:
        expected = f"{', '.join(sorted(wanted[0]))} of {group['optimizer']} for {name}"
        raise _unfit(expected, ", ".join(sorted(found)))
    for part, value in found.items():
        if isinstance(value, Tensor) and value.shape not in shapes(part, parameter):
            expected = f"{part} for {parameter.numel()} weights of {name}"
            raise _unfit(expected, f"the shape {tuple(value.shape)}")


def _unfit(expected: str, got: str) -> InputError:
    return InputError(
        "optimizer state",
        expected,
        got or "nothing",
        "Continue with the optimizer, rank and layers of the run that was saved.",
    )

"""The optimizers' side of a run that trains modules: whole steps, and all that they remember.

    with learner.attempt() as attempt:
        norm = learner.update("encoders", loss, factor)
        attempt.good = session.readings.add(step + 1, {"loss": loss, "norm": norm}, known)

A step may update several modules, one after the other (a discriminator, then a generator). It is
made as a whole or not at all: where the numbers are not finite, or something is raised, everything
is put back, running statistics too.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import InputError
from ..optimizers import Scalars, clip, set_rates
from .gan.averaging import Average

ModulesLearned = dict[str, dict[str, Tensor]]
"""Copies in main memory of the trained tensors, by module and name."""

AVERAGE = "average"


@dataclass
class Attempt:
    """A step on trial; `good` (bool, no dimensions, on the device) says whether it counts."""

    good: Tensor | None = None


class ModuleLearner:
    """Makes the steps of modules; see `nsync.runs.parts.Learns`.

    Weights that ask for no gradient are no part of it: they are neither trained nor saved.

    Args:
        modules: by name, on the device on which they stay; they are put into training mode.
        optimizers: of the modules' weights, by names of their own: one for each part that is
            updated by itself. Their state must be tensors, as that of Adam is.
        average: of one of the modules. `attempt` calls for no update of it; the loop does.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        average: Average | None = None,
    ) -> None:
        self._modules, self._optimizers, self._average = modules, optimizers, average
        self._torn = False
        for module in modules.values():
            module.train()
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self._on_cpu = all(t.device.type == "cpu" for _, t in self._tensors())

    @property
    def on_cpu(self) -> bool:
        """Whether there is no device to wait for."""
        return self._on_cpu

    @contextmanager
    def attempt(self) -> Iterator[Attempt]:
        """For the block, a step: forward passes, updates, and at its end the verdict.

        Where it is bad, everything is put back by the device, so that nobody waits for it. What is
        raised puts everything back as well.
        """
        held = self._held()
        before, attempt = [value.clone() for value in held], Attempt()
        begun = all(optimizer.state for optimizer in self._optimizers.values())
        updates = self._average.updates if self._average else 0
        self._torn = True  # until it is whole or undone, whatever interrupts it
        try:
            yield attempt
            if attempt.good is None:
                raise RuntimeError("A step ended without a verdict on its numbers")
            # On a CPU there is nobody to wait for, and before the first step a state is made only.
            if self._on_cpu or not begun:
                undone = not attempt.good
            else:
                undone = False
                _put_back(held, before, attempt.good)
        except BaseException:
            self._undo(held, before, begun, updates)
            raise
        if undone:
            self._undo(held, before, begun, updates)
        self._torn = False

    def update(self, name: str, loss: Tensor, factor: float = 1.0, most: float = 0.0) -> Tensor:
        """One update of an optimizer's weights, down the gradient of `loss` with regard to them.

        Args:
            name: of the optimizer.
            factor: on the learning rates.
            most: the gradient is scaled down to this norm; 0 leaves it.

        Returns:
            The gradient's norm before that, no dimensions, on the device.
        """
        optimizer = self._optimizers[name]
        weights = [w for group in optimizer.param_groups for w in group["params"]]
        gradients = list(torch.autograd.grad(loss, weights, materialize_grads=True))
        norm = clip(gradients, most)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        set_rates(optimizer, factor)
        optimizer.step()
        optimizer.zero_grad()
        return norm

    @contextmanager
    def as_saved(self) -> Iterator[None]:
        """For the block, the modules are in evaluation mode; their weights are saved as they are.

        The average is always in evaluation mode.
        """
        for module in self._modules.values():
            module.eval()
        try:
            yield
        finally:
            for module in self._modules.values():
                module.train()

    def learned(self) -> ModulesLearned:
        """Copies of what would be saved now; the average, if there is one, under `AVERAGE`."""
        found = {name: _trained(module) for name, module in self._modules.items()}
        if self._average:
            found[AVERAGE] = self._average.network.state_dict()
        return {name: {k: _copy(v) for k, v in each.items()} for name, each in found.items()}

    def state(self) -> tuple[dict[str, Tensor], Scalars]:
        """All that the next step depends on: copies of tensors in main memory.

        Raises:
            RuntimeError: in the midst of a step.
        """
        if self._torn:
            raise RuntimeError("Half a step is no state of a run")
        tensors = {name: _copy(value) for name, value in self._tensors()}
        if self._average:
            saved = self._average.state_tensors()
            tensors |= {f"{AVERAGE}.{name}": value for name, value in saved.items()}
        return tensors, {}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], scalars: Scalars) -> None:
        """Go on, to the bit, from where `state` was taken.

        Raises:
            InputError: it is the state of other modules.
        """
        for name, value in self._tensors():
            found = tensors.get(name)
            if found is None or found.shape != value.shape:
                got = "none" if found is None else f"one of shape {tuple(found.shape)}"
                raise InputError("state", f"a tensor {name} of shape {tuple(value.shape)}", got)
            value.copy_(found)
        for name, optimizer in self._optimizers.items():
            self._load_optimizer(optimizer, _under(f"optimizer.{name}.", tensors))
        if self._average:
            self._average.load_state(_under(f"{AVERAGE}.", tensors))

    def _load_optimizer(self, optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            place, part = name.split(".", 1)
            state.setdefault(int(place), {})[part] = value.clone()
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Weights, buffers, and what the optimizers remember, by flat names."""
        for name, module in self._modules.items():
            for key, value in _trained(module).items():
                yield f"{name}.{key}", value
        for name, optimizer in self._optimizers.items():
            for place, found in optimizer.state_dict()["state"].items():
                for part, value in found.items():
                    yield f"optimizer.{name}.{place}.{part}", value

    def _held(self) -> list[Tensor]:
        """All tensors that a step may change."""
        averages = self._average.network.state_dict().values() if self._average else ()
        return [*(value for _, value in self._tensors()), *averages]

    @torch.no_grad()
    def _undo(
        self, held: Sequence[Tensor], before: Sequence[Tensor], begun: bool, updates: int
    ) -> None:
        for value, old in zip(held, before, strict=True):
            value.copy_(old)
        if not begun:
            for optimizer in self._optimizers.values():
                optimizer.state.clear()
        if self._average:
            self._average.updates = updates
        self._torn = False


@torch.no_grad()
def _put_back(held: Sequence[Tensor], before: Sequence[Tensor], good: Tensor) -> None:
    for value, old in zip(held, before, strict=True):
        # A count kept in main memory beside a GPU's weights is let run on.
        if value.device == good.device:
            value.copy_(torch.where(good, value, old))


def _trained(module: nn.Module) -> dict[str, Tensor]:
    """The module's tensors that training changes: weights that ask for gradients, and buffers."""
    frozen = {name for name, weight in module.named_parameters() if not weight.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name not in frozen}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named = tensors.items()
    return {name.removeprefix(prefix): value for name, value in named if name.startswith(prefix)}


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True)

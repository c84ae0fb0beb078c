"""The optimizer's side of a run: one update of the trained weights, and all that it remembers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .errors import InputError
from .optimizers import Ema, Scalars, averaged, load_state, make_optimizer, set_rates, state_tensors
from .runs.state_order import in_order, order_of, with_order
from .settings import TrainSettings
from .trained import EMBEDDING, LORA, Trained

_WEIGHTS, _OPTIMIZER, _EMA = "weights.", "optimizer.", "ema."


@dataclass(frozen=True)
class Learned:
    """What was learned, float32 in main memory.

    Attributes:
        lora: `<layer>.lora_A` and `<layer>.lora_B` by the layer's key; empty without a LoRA.
        alphas: alpha by the layer's key.
        embedding: `[vectors, width]` by text encoder; empty without an embedding.
    """

    lora: dict[str, Tensor]
    alphas: dict[str, float]
    embedding: dict[str, Tensor]


class Learner:
    """Makes the steps of a run's weights; see `TrainSettings` for what with.

    Args:
        names: what a LoRA file calls the layers, by key; see `nsync.runs.state_order`.
    """

    def __init__(
        self, settings: TrainSettings, trained: Trained, names: Mapping[str, str] | None = None
    ) -> None:
        self._settings, self._trained = settings, trained
        sizes = {
            kind: dict(zip(store.shapes, store.sizes, strict=True))
            for kind, store in trained.stores.items()
        }
        self._orders = {kind: order_of(each, names or {}) for kind, each in sizes.items()}
        decay = {LORA: settings.weight_decay, EMBEDDING: 0.0}
        self._optimizer = make_optimizer(settings.optimizer, trained.groups, settings.rates, decay)
        self._ema = Ema(trained.groups, settings.ema) if settings.ema else None
        self._on_cpu = all(vector.device.type == "cpu" for vector in self.vectors)

    @property
    def on_cpu(self) -> bool:
        """Whether there is no device to wait for."""
        return self._on_cpu

    @property
    def vectors(self) -> list[Tensor]:
        """The trained weights, one vector per kind."""
        return list(self._trained.groups.values())

    def step(self, update: list[Tensor], step: int, good: Tensor) -> None:
        """Make update `step` (0-based) of the weights, unless it is not `good`.

        Args:
            update: as long as all weights together, in the order of `Trained.stores`.
            good: bool, no dimensions, on the device. Where it is False everything stays as it
                was. The device decides, so that nobody has to wait for it.
        """
        # On a CPU there is nobody to wait for, and before the first step nothing to put back.
        if (self._on_cpu or not any(self._optimizer.state.values())) and not good:
            return
        sizes = [vector.numel() for vector in self.vectors]
        whole = torch.cat([part.reshape(-1) for part in update])
        whole = torch.where(good, whole, 0)  # no optimizer ever meets NaN
        for vector, part in zip(self.vectors, whole.split(sizes), strict=True):
            vector.grad = part
        set_rates(self._optimizer, self._settings.factor(step))
        before = [(held, held.clone()) for held in self._held()]
        self._optimizer.step()
        if self._ema:
            self._ema.update()
        with torch.no_grad():
            for held, old in before:
                held.copy_(torch.where(good, held, old))
        for vector in self.vectors:
            vector.grad = None

    def _held(self) -> Iterator[Tensor]:
        yield from self._ema.values.values() if self._ema else ()
        for vector in self.vectors:
            yield vector.detach()
            for value in self._optimizer.state.get(vector, {}).values():
                # A count kept in main memory beside a GPU's weights is let run on.
                if isinstance(value, Tensor) and value.device == vector.device:
                    yield value

    @contextmanager
    def as_saved(self) -> Iterator[None]:
        """For the block, the weights hold what would be saved; afterwards the very same bits."""
        with averaged(self._optimizer), torch.no_grad():
            if self._ema is None:
                yield
                return
            vectors = self._trained.groups
            before = {kind: vector.detach().clone() for kind, vector in vectors.items()}
            _copy(vectors, self._ema.values)
            try:
                yield
            finally:
                _copy(vectors, before)

    def learned(self) -> Learned:
        """Copies of what would be saved now."""
        with self.as_saved():
            vectors = {kind: vector.detach() for kind, vector in self._trained.groups.items()}
            kinds = self._trained.state(vectors)
        return Learned(kinds.get(LORA, {}), self._trained.alphas, kinds.get(EMBEDDING, {}))

    def state(self) -> tuple[dict[str, Tensor], Scalars]:
        """All that the next step depends on: copies of tensors in main memory, and numbers."""
        tensors, scalars = state_tensors(self._optimizer)
        for kind, vector in self._trained.groups.items():
            tensors[_WEIGHTS + kind] = vector.detach().to("cpu", copy=True)
        tensors |= self._ema.state_tensors() if self._ema else {}
        return tensors, with_order(scalars, self._orders)

    def load(self, tensors: Mapping[str, Tensor], scalars: Scalars) -> None:
        """Go on, to the bit, from where `state` was taken.

        Raises:
            InputError: it is the state of other weights or of another optimizer.
        """
        tensors, scalars = in_order(tensors, scalars, self._orders)
        for kind, vector in self._trained.groups.items():
            found = tensors.get(_WEIGHTS + kind)
            if found is None or found.shape != vector.shape:
                got = "none" if found is None else f"{found.numel()}"
                raise InputError("state", f"{vector.numel()} {kind} weights", got)
        load_state(self._optimizer, _starting(tensors, _OPTIMIZER), scalars)
        if self._ema:
            self._ema.load_state(_starting(tensors, _EMA))
        groups = self._trained.groups
        _copy(groups, {kind: tensors[_WEIGHTS + kind] for kind in groups})


def check_optimizer(settings: TrainSettings) -> None:
    """Raise `InputError` where the optimizer cannot be made: no package, rates it cannot take."""
    groups = {kind: nn.Parameter(torch.zeros(1)) for kind in settings.rates}
    make_optimizer(settings.optimizer, groups, settings.rates, settings.weight_decay)


def _starting(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if name.startswith(prefix)}


@torch.no_grad()
def _copy(into: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for kind, vector in into.items():
        vector.copy_(values[kind])

"""The average of a generator over its training, which is what samples are drawn with."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...optimizers import warmed_up


class Average:
    """An exponential moving average of a network: its parameters and its buffers.

    The decay warms up (`nsync.optimizers.warmed_up`). Running statistics of batch normalisation are
    averaged as the weights are, for statistics of the newest weights do not belong to averaged
    ones. Buffers of whole numbers are copied.

    Args:
        network: a copy of it is where the average begins.
        decay: in [0, 1). Per update: 0.999 remembers about a thousand.

    Attributes:
        network: the average, in eval mode, without gradients.
        updates: how many there were.

    Raises:
        InputError: such a decay.
    """

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise InputError("decay", "a number of 0 or more, below 1", repr(decay))
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.updates, self._decay = 0, decay

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards `network` as it is now, without a wait for the device.

        Raises:
            InputError: its tensors are not those of the average; nothing has changed.
        """
        theirs = network.state_dict()
        mine = self.network.state_dict()
        _same(theirs, mine, "network")
        kept = warmed_up(self._decay, self.updates)
        for name, value in mine.items():
            if value.is_floating_point():
                value.lerp_(theirs[name].to(value.dtype), 1 - kept)
            else:
                value.copy_(theirs[name])
        self.updates += 1

    def state_tensors(self) -> dict[str, Tensor]:
        """Copies in main memory: the average by names, and the 0-dim int64 `updates`."""
        values = self.network.state_dict()
        copies = {f"network.{name}": value.to("cpu", copy=True) for name, value in values.items()}
        return copies | {"updates": torch.tensor(self.updates)}

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on, to the bit, from where `state_tensors` was taken.

        Raises:
            InputError: names or shapes are not those of this network; nothing has changed.
        """
        _same(tensors, self.state_tensors(), "average of the generator")
        for name, value in self.network.state_dict().items():
            value.copy_(tensors[f"network.{name}"])
        self.updates = int(tensors["updates"])


def _same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str) -> None:
    shapes, expected = ({k: tuple(v.shape) for k, v in each.items()} for each in (found, wanted))
    if shapes != expected:
        differ = sorted(
            k for k in shapes | expected if shapes.get(k, "missing") != expected.get(k, "missing")
        )
        first = differ[0]
        raise InputError(
            name,
            f"`{first}` of shape {expected.get(first, 'none (no such tensor)')}",
            f"{shapes.get(first, 'none (no such tensor)')}, and {len(differ) - 1} more that differ",
            "Use the settings that the average was made with.",
        )

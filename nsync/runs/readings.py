"""The numbers of the steps: kept on the device, read a few steps at a time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """The numbers of one step.

    Attributes:
        step: updates made with this one.
        values: `loss_positive`, `cos_negative`, `removed`, ... by name.
        fault: what was not finite, in words, or "".
    """

    step: int
    values: dict[str, float]
    fault: str


@dataclass(frozen=True)
class ItemLosses:
    """The losses of a branch, item by item: what is not finite is told by the items' names.

    Attributes:
        names: of the `n` items.
        losses: float `[n]`, on the device. Their mean is logged as `loss_<branch>`.
    """

    names: Sequence[str]
    losses: Tensor


@dataclass(frozen=True)
class _Kept:
    step: int
    names: list[str]
    numbers: Tensor
    places: list[tuple[str, str]]
    known: dict[str, float]


class Readings:
    """Collects the numbers of steps without waiting for the device, until they are read.

    Attributes:
        latest: the step that was added last.
    """

    def __init__(self) -> None:
        self._kept: list[_Kept] = []
        self.latest = 0

    def add(
        self,
        step: int,
        seen: Mapping[str, Tensor],
        known: Mapping[str, float],
        branches: Mapping[str, ItemLosses] | None = None,
    ) -> Tensor:
        """Keep a step's numbers; whether all of them are finite, as a tensor on the device.

        Args:
            seen: numbers on the device, without dimensions, by name. `norm_<branch>` is that of a
                branch's gradient.
            known: numbers that the host knows already.
            branches: by name, where the losses are known item by item.
        """
        self.latest = step
        branches = branches or {}
        means = {f"loss_{name}": branch.losses.mean() for name, branch in branches.items()}
        named = {name: value.float() for name, value in (means | dict(seen)).items()}
        each = [branch.losses for branch in branches.values()]
        numbers = torch.cat([torch.stack(list(named.values())), *each])
        places = [(name, item) for name, branch in branches.items() for item in branch.names]
        self._kept.append(_Kept(step, list(named), numbers, places, dict(known)))
        return numbers.isfinite().all()

    def read(self) -> list[Reading]:
        """The numbers since the last call: the only wait for the device."""
        kept, self._kept = self._kept, []
        if not kept:
            return []
        numbers = torch.cat([one.numbers for one in kept]).tolist()
        readings, start = [], 0
        for one in kept:
            here = numbers[start : start + len(one.numbers)]
            readings.append(_reading(one, here))
            start += len(one.numbers)
        return readings


def _reading(kept: _Kept, numbers: list[float]) -> Reading:
    values = dict(zip(kept.names, numbers, strict=False))
    fault = ""
    if not all(map(math.isfinite, numbers)):
        fault = _fault(values, kept.places, numbers[len(values) :], kept.step)
    return Reading(kept.step, values | kept.known, fault)


def _fault(
    values: dict[str, float], places: list[tuple[str, str]], losses: list[float], step: int
) -> str:
    pairs = zip(places, losses, strict=True)
    bad = [f"{name} {item}" for (name, item), loss in pairs if not math.isfinite(loss)]
    if bad:
        return f"The loss is NaN or infinite at step {step} for: {', '.join(bad)}."
    if not places:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        return f"NaN or infinite at step {step}: {', '.join(bad)}."
    bad = [
        f"{name} {item}"
        for name, item in places
        if not math.isfinite(values.get(f"norm_{name}", math.nan))
    ]
    items = bad or [f"{name} {item}" for name, item in places]
    return f"The gradient is NaN or infinite at step {step} for: {', '.join(items)}."

"""Times of training steps: arms take turns in one process, so that a slow minute meets them all."""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tables import Spread
from torch.utils.flop_counter import FlopCounterMode
from workload import Arm


@dataclass(frozen=True)
class Turn:
    """One turn of an arm.

    Attributes:
        first: seconds from its start to the end of its unmeasured steps.
        step: seconds per step in the mean of the measured ones.
    """

    first: float
    step: float


def rounds(
    arms: Sequence[Arm], device: torch.device, repeats: int, unmeasured: int, steps: int
) -> dict[str, list[Turn]]:
    """The turns of every arm by its name: A B C A B C ..."""
    turns: dict[str, list[Turn]] = {arm.name: [] for arm in arms}
    for _ in range(repeats):
        for arm in arms:
            turns[arm.name].append(_turn(arm, device, unmeasured, steps))
    return turns


def step_times(turns: Sequence[Turn]) -> Spread:
    """Seconds per step."""
    return Spread.of([turn.step for turn in turns])


def ratios(turns: Sequence[Turn], others: Sequence[Turn]) -> Spread:
    """The times of some turns over those of others, round by round."""
    return Spread.of([a.step / b.step for a, b in zip(turns, others, strict=True)])


def operations(arm: Arm) -> int:
    """Floating-point operations of one step, as torch counts those of its matrix products."""

    def counted(steps: int) -> int:
        with FlopCounterMode(display=False) as counter:
            arm.run(steps, lambda: None)
        return counter.get_total_flops()

    return counted(2) - counted(1)  # what comes before the steps is in both


def peak_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second in large matrix products on this device."""
    size, tries = (8192, 20) if device.type == "cuda" else (2048, 5)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(tries):
        wait(device)
        start = time.perf_counter()
        torch.mm(a, b)
        wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _turn(arm: Arm, device: torch.device, unmeasured: int, steps: int) -> Turn:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    times, done = {0: time.perf_counter()}, 0

    def after_step() -> None:
        nonlocal done
        done += 1
        if done in (unmeasured, unmeasured + steps):
            wait(device)
            times[done] = time.perf_counter()

    arm.run(unmeasured + steps, after_step)
    start, end = times[unmeasured], times[unmeasured + steps]
    return Turn(first=start - times[0], step=(end - start) / steps)

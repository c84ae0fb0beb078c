"""What of a step is the gradient rule, and how often a step makes the host wait for the GPU."""

import time
import warnings
from statistics import median

import torch
from nsync_style.nsync.rules import refine_and_read
from nsync_style.nsync.trained import trained_count
from timing import wait
from workload import Arm, Workload

_TRIES = 21


def rule_seconds(work: Workload) -> float:
    """Seconds of the rule and its statistics on gradients as long as those of a step."""
    device, settings = work.device, work.settings
    length = trained_count(settings, work.denoiser, None)
    names = ("positive", "negative", "anchor")
    rows = torch.randn(3, length, device=device).unbind()
    gradients = {name: [row] for name, row in zip(names, rows, strict=True)}
    seconds = []
    for _ in range(_TRIES):
        wait(device)
        start = time.perf_counter()
        refine_and_read(settings.rule, **gradients, scope=settings.scope)
        wait(device)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def waits_per_step(arm: Arm, device: torch.device, steps: int = 10) -> float | None:
    """How often a step makes the host wait for the GPU, as CUDA itself tells; None on a CPU.

    As many steps as between two readings of the log, so that one reading is among them.
    """
    if device.type != "cuda":
        return None
    done = 0

    def after_step() -> None:
        nonlocal done
        done += 1
        torch.cuda.set_sync_debug_mode("warn" if steps <= done < 2 * steps else "default")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            arm.run(2 * steps, after_step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(w.message) for w in caught) / steps

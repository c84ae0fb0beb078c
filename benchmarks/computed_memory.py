"""The peak memory of a training step where no GPU is at hand: computed from the tensors' sizes.

The very step that a run makes is made on fake tensors, under CUDA's rules of autocast; `LiveMemory`
follows what lives. Attention goes through PyTorch's fused kernel, as it does on a GPU: no matrix of
n x n is kept.

Imported inside the host's process only.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from unittest import mock

import torch
from bases import SD15, sockets
from fake_base import FakeBase
from live_memory import CUDA_BLOCK, LiveMemory
from nsync_style.nodes.host.adapter import HostDenoiser
from nsync_style.nsync import adapters
from nsync_style.nsync import trained as trained_module
from nsync_style.nsync.flat import FlatWeights
from nsync_style.nsync.settings import TrainSettings
from nsync_style.nsync.trained import trained
from one_step import TOKEN, OneStep
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Computed:
    """Bytes.

    Attributes:
        base: of the base's own weights.
        between: alive between two steps.
        peak: the most within a step.
    """

    base: int
    between: int
    peak: int


def computed(base: str, settings: TrainSettings, stored: torch.dtype) -> Computed:
    """The memory of a step by these settings.

    Args:
        stored: dtype of the base's weights.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    denoiser = FakeBase(base, mode, stored, DTYPES[settings.precision], settings.trains_text)
    with ExitStack() as stack:
        _keep_weights_fake(stack, mode)
        made = stack.enter_context(trained(settings, denoiser, TOKEN))
        stack.enter_context(mode)
        live = stack.enter_context(LiveMemory(CUDA_BLOCK))
        live.hold(denoiser.held)
        weights = live.now
        live.hold(made.groups.values())
        step = OneStep(settings, denoiser, made, denoiser.latents(), stack)
        live.restart()
        step()
        return Computed(base=weights, between=live.now, peak=live.peak)


def _keep_weights_fake(stack: ExitStack, mode: FakeTensorMode) -> None:
    """Adapters are put in outside the mode, which PEFT does not bear; their vectors are fake."""

    def fake(*args: object) -> FlatWeights:
        with mode:
            return FlatWeights(*args)

    for module in (adapters, trained_module):
        stack.enter_context(mock.patch.object(module, "FlatWeights", fake))


def checked() -> tuple[int, int]:
    """Bytes that a real step of a small model adds at its peak: as followed here, as allocated."""
    settings = TrainSettings(batch=1, rank=16, branches="fused")
    with ExitStack() as stack:
        denoiser = HostDenoiser(*sockets(SD15, True, torch.float32))
        stack.enter_context(denoiser.trainable(torch.float32))
        made = stack.enter_context(trained(settings, denoiser, TOKEN))
        step = OneStep(settings, denoiser, made, torch.randn(4, 32, 32), stack)
        before = [*denoiser.network.parameters(), *made.groups.values()]
        return _followed(step, before), _allocated(step)


def _followed(step: Callable[[], None], before: Sequence[Tensor]) -> int:
    live = LiveMemory(block=1)
    live.hold(before)
    held = live.now
    with live:
        step()
    return live.peak - held


def _allocated(step: Callable[[], None]) -> int:
    """By the events of torch's own allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events, now, peak = list(profiler.profiler.kineto_results.experimental_event_tree()), 0, 0
    changes = []
    while events:
        event = events.pop()
        events.extend(event.children)
        if event.tag.name == "Allocation":
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    for _, change in sorted(changes):
        now += change
        peak = max(peak, now)
    return peak

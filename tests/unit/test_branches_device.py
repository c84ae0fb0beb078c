"""A step never waits for the device, and its form is chosen by what is free there.

Shown without a device, on fake CUDA tensors that hold no data. They have no backward pass; it is
replaced here, and is autograd's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from branch_runs import SMALL, TALL, assert_near, batches_of, chosen, expected_of, passes_of
from test_rules_device import SYNCS
from tiny_denoiser import TinyDenoiser
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from nsync.flat import FlatWeights
from nsync.passes import BranchPasses
from nsync.prompts import to
from nsync.settings import AUTO, FUSED, SEQUENTIAL, TrainSettings

CUDA = torch.device("cuda")
SETTINGS = TrainSettings(rank=2, batch=3, branches=FUSED, min_snr=5.0)


class OnDevice(TinyDenoiser):
    """Its times come to the device without a wait, as the contract asks of every denoiser."""

    def loss(self, latents, conditioning, noise, times: Tensor) -> Tensor:
        return super().loss(latents, conditioning, noise, to(times, latents.device))


class WaitedError(Exception):
    """Something was copied in a way that the host waits for."""


class NeverWaiting(TorchDispatchMode):
    """Between host and device only copies from pinned memory that nobody waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._pin_memory.default:
            self.pinned.append(args[0].clone())  # fake tensors know no pinned memory
            return self.pinned[-1]
        result = func(*args, **kwargs)
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            *_, source = args
            if source.device.type != result.device.type and not self._is_free(source, args, kwargs):
                raise WaitedError(f"{func} of {list(source.shape)}")
        return result

    def _is_free(self, source: Tensor, args: tuple, kwargs: dict) -> bool:
        return kwargs.get("non_blocking", False) and any(source is one for one in self.pinned)


@contextmanager
def fake_passes(
    monkeypatch: pytest.MonkeyPatch, settings: TrainSettings
) -> Iterator[tuple[BranchPasses, NeverWaiting]]:
    """Passes whose network and weights are on a fake CUDA device, and who watches the copies."""
    monkeypatch.setattr("nsync.passes._gradients", lambda _, leaves: list(map(zeros, leaves)))
    denoiser = OnDevice()
    texts = [text for batch in batches_of((3, 3, 3)).values() for text in batch.prompts]
    start = chosen(settings, denoiser)
    with passes_of(settings, denoiser, start, texts) as (_, passes), FakeTensorMode() as mode:
        for module in denoiser.network.modules():
            for name, value in module._parameters.items():
                fake = torch.empty(value.shape, device=CUDA)
                module._parameters[name] = nn.Parameter(fake, requires_grad=False)
        (store,) = passes._trained.stores.values()
        values = {name: torch.empty(shape) for name, shape in store.shapes.items()}
        vars(store).update(vars(FlatWeights(values, CUDA)))
        kept = passes._prompts._rows
        for text, row in kept.items():
            kept[text] = {name: mode.from_tensor(value) for name, value in row.items()}
        denoiser.device = CUDA
        with NeverWaiting() as watched:
            yield passes, watched


def zeros(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf)


@pytest.mark.parametrize("form", [FUSED, SEQUENTIAL])
def test_a_step_never_waits(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, branches=form)
    with fake_passes(monkeypatch, settings) as (passes, watched):
        results = passes(batches_of((3, 3, 2), [SMALL, TALL]))
    assert watched.pinned
    assert {result.losses.device.type for result in results.values()} == {"cuda"}
    assert [len(result.losses) for result in results.values()] == [3, 3, 2]


WAITS = {
    "a copy that is waited for": lambda x: torch.ones(2).to("cuda"),
    "a copy from memory that is not pinned": lambda x: torch.ones(2).to("cuda", non_blocking=True),
    "a list as an index": lambda x: x[[0, 1]],
    "a list as the index of a place": lambda x: x.__setitem__([1], 0.0),
    "a number": lambda x: float(x.sum()),
    "a copy to the host": lambda x: x.cpu(),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_the_detector_detects(wait) -> None:
    with FakeTensorMode(), NeverWaiting():
        x = torch.ones(2, device=CUDA)
        with pytest.raises((WaitedError, *SYNCS)):
            wait(x)
        to(torch.ones(2), CUDA)


@pytest.mark.parametrize(("free", "form"), [(331, SEQUENTIAL), (335, FUSED)])
def test_all_go_together_if_they_fit(
    free: int, form: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One branch took 100 bytes: three need 300, and a tenth of what is free is left alone."""
    caplog.set_level("INFO")
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda _: 1000)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda _: 1100)
    monkeypatch.setattr("nsync.passes.free_memory", lambda _: free)
    settings = replace(SETTINGS, branches=AUTO)
    with fake_passes(monkeypatch, settings) as (passes, _):
        passes(batches_of((3, 3, 3)))
        assert passes.form["branches"] == form
        assert f"Branches: {form}" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype:UserWarning")
@pytest.mark.parametrize("form", [AUTO, FUSED, SEQUENTIAL])
def test_a_real_device_reports_no_wait_and_agrees(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    settings = replace(SETTINGS, branches=form)
    denoiser, batches = OnDevice(), batches_of((3, 3, 2), [SMALL, TALL])
    start = chosen(settings, denoiser)
    expected = expected_of(settings, denoiser, batches, start)
    denoiser.network.to(CUDA)
    denoiser.device = CUDA  # the text encoder stays where it is: words are not trained
    texts = [text for batch in batches.values() for text in batch.prompts]
    with passes_of(settings, denoiser, start, texts) as (find, passes):
        find(batches)  # libraries are loaded, and the form is chosen
        torch.cuda.set_sync_debug_mode("error")
        try:
            passes(batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found = find(batches)
    for name, losses in found.losses.items():
        found.losses[name] = losses.cpu()
    assert_near(found, expected, 2e-5)
    assert passes.form["branches"] == (SEQUENTIAL if form == SEQUENTIAL else FUSED)

"""The rules never wait for the device, shown without one: on fake CUDA tensors that hold no data.

Reading a value of a fake tensor raises; what leaves the device is caught by its result's device.
"""

from contextlib import contextmanager

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nsync.rules import RULES, SCOPES, refine, statistics, turns_against_negatives


class LeftTheDevice(Exception):
    """An operation gave a tensor on the host."""


class _StayOnDevice(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "cuda":
                raise LeftTheDevice(str(func))
        return result


@contextmanager
def no_host_sync():
    """Inside, whatever makes the host wait for a CUDA tensor raises."""
    with FakeTensorMode(), _StayOnDevice():
        yield


SYNCS = (DataDependentOutputException, DynamicOutputShapeException, LeftTheDevice, RuntimeError)


def _branches(device):
    sizes = ((3, 4), (5,), ())
    return [[torch.ones(size, device=device) for size in sizes] for _ in range(3)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_refine_and_statistics_do_not_sync(rule, scope, dtype):
    with no_host_sync():
        branches = [[x.to(dtype) for x in branch] for branch in _branches("cuda")]
        update = refine(rule, *branches, scope=scope)
        read = statistics(rule, *branches, scope=scope)
    assert all(u.device.type == "cuda" and u.dtype == dtype for u in update)
    assert all(x.device.type == "cuda" and x.shape == () for x in read.values())
    assert ("removed" in read) == turns_against_negatives(rule)


@pytest.mark.parametrize(
    "sync",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: 1 if x.sum() > 0 else 0,
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.equal(x, x),
        lambda x: x * torch.tensor([2.0]).to(x.device),
    ],
)
def test_the_detector_detects(sync):
    with no_host_sync():
        x = torch.ones(1, device="cuda")
        with pytest.raises(SYNCS):
            sync(x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_real_device_reports_no_sync_and_agrees_with_the_cpu(rule, scope):
    branches = [[torch.randn_like(x) for x in branch] for branch in _branches("cpu")]
    on_device = [[x.cuda() for x in branch] for branch in branches]
    torch.cuda.set_sync_debug_mode("error")
    try:
        update = refine(rule, *on_device, scope=scope)
        statistics(rule, *on_device, scope=scope)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close([u.cpu() for u in update], refine(rule, *branches, scope=scope))

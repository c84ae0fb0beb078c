"""Running out of memory looks different on every device; nothing else may look like it.

A batch that does not fit goes through in parts.
"""

from functools import partial

import pytest
import torch
from torch import Tensor

from nsync.memory import OutOfMemoryError, Parts, is_out_of_memory

ERRORS = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
    (MemoryError(), True),
    (RuntimeError("CUDA error: out of memory"), True),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
    (RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"), True),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
    (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    (ValueError("out of memory"), False),
    (OutOfMemoryError("One picture of one branch does not fit into memory"), False),
]


@pytest.mark.parametrize(("error", "expected"), ERRORS)
def test_running_out_of_memory_is_told_from_other_failures(
    error: Exception, expected: bool
) -> None:
    assert is_out_of_memory(error) is expected


def test_torchs_own_failure_in_main_memory() -> None:
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        torch.empty(2**58)
    assert is_out_of_memory(raised.value)


ROWS = torch.arange(11.0)


def through(room: int, seen: list[int], part: slice) -> Tensor:
    seen.append(len(ROWS[part]))
    if len(ROWS[part]) > room:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return ROWS[part] * 2


@pytest.mark.parametrize(
    ("most", "room", "expected"),
    [(20, 20, [11]), (4, 9, [4, 4, 3]), (20, 4, [11, 5, 2, 2, 2, 2, 2, 1]), (3, 1, [3] + [1] * 11)],
)
def test_a_batch_goes_through_in_parts_that_fit(most: int, room: int, expected: list[int]) -> None:
    seen: list[int] = []
    parts, cpu = Parts(most), torch.device("cpu")
    assert torch.equal(parts(11, partial(through, room, seen), cpu, "no"), ROWS * 2)
    assert seen == expected
    seen.clear()
    parts(11, partial(through, room, seen), cpu, "no")
    assert max(seen) <= room  # it is not tried again


def test_a_row_that_does_not_fit_is_told() -> None:
    with pytest.raises(OutOfMemoryError, match="too large") as raised:
        Parts(4)(11, partial(through, 0, []), torch.device("cpu"), "it is too large")
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)


def test_another_failure_is_not_tried_again() -> None:
    def fail(part: slice) -> Tensor:
        seen.append(part)
        raise ValueError("no")

    seen: list[slice] = []
    with pytest.raises(ValueError, match="no"):
        Parts(4)(11, fail, torch.device("cpu"), "it is too large")
    assert len(seen) == 1

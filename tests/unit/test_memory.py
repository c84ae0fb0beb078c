"""Running out of memory looks different on every device; nothing else may look like it."""

import pytest
import torch

from nsync.memory import OutOfMemoryError, is_out_of_memory

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

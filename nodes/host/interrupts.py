"""The host's stop button, which any operation of its networks may heed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from comfy.model_management import InterruptProcessingException, interrupt_current_processing


@contextmanager
def heeded_later() -> Iterator[None]:
    """What is only looked at (a validation) may fail without ending a run, and until 0.30 the
    interrupt is an exception like any other: it is raised again after the next step, where work is
    saved."""
    try:
        yield
    except InterruptProcessingException as error:
        if isinstance(error, Exception) and not torch.is_grad_enabled():
            interrupt_current_processing()
        raise

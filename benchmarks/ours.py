"""The arms of this project: `nsync.training.train` itself, from one step's end to another's."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from nsync_style.nsync import settings
from nsync_style.nsync.layers import EVERYTHING
from nsync_style.nsync.training import train
from workload import Arm, Workload

FUSED, SEQUENTIAL, EMBEDDING = "ours, fused", "ours, sequential", "ours, fused, embedding"
COMPILED = "ours, fused, compiled"


def arms(work: Workload, compiled: bool) -> list[Arm]:
    """Fused and sequential; an embedding, as the authors train; every layer that can be trained."""
    fused = work.with_settings(branches=settings.FUSED)
    made = [
        arm(FUSED, fused),
        arm(SEQUENTIAL, work.with_settings(branches=settings.SEQUENTIAL)),
        arm(EMBEDDING, fused.with_settings(trains=settings.EMBEDDING, rule="released-4.2")),
        arm(f"{FUSED}, all layers", fused.with_settings(layers=EVERYTHING)),
    ]
    return made + ([arm(COMPILED, fused.with_settings(compile=True))] if compiled else [])


def arm(name: str, work: Workload) -> Arm:
    """The trainer by the settings of a workload."""
    return Arm(name, partial(_train, work))


def _train(work: Workload, steps: int, after_step: Callable[[], None]) -> None:
    wanted = replace(work.settings, steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        train(
            wanted,
            work.denoiser,
            work.style_set,
            Path(folder),
            lambda learned, step: {},
            on_step=lambda report: after_step(),
            ready=partial(work.denoiser.trainable, work.dtype, wanted.trains_text),
        )

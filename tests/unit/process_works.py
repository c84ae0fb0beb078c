"""What the processes of a group do in tests; see `process_group.together`."""

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from process_group import die
from safetensors.torch import save_file
from small_runs import EVERYTHING, QUICK, run
from test_encoders_store import Counting, pictures
from test_negatives import SETTINGS as NEGATIVES
from test_negatives import Drawing
from test_negatives import pictures as positives
from tiny_denoiser import TinyDenoiser, tiny_set
from torch import Tensor

from nsync import processes as processes_module
from nsync import training
from nsync.errors import InputError
from nsync.evaluation.store import encode_stored
from nsync.launched import OneSidedError
from nsync.learner import Learner
from nsync.negatives import make_negatives
from nsync.processes import Processes, ProcessLostError, joined
from nsync.settings import TrainSettings
from nsync.training import TrainResult

LOST = 1

FOUR = replace(
    QUICK,
    batch=4,
    min_snr=5.0,
    caption_dropout=0.3,
    noise_offset=0.1,
    validation=0,
    clip_norm=0.0,
    **EVERYTHING,
)
"""Four of three pictures: each batch has one of them twice, and no three processes share it evenly.
Nothing is clipped, so that the update is as large as its gradients."""


def train(folder: Path, settings: TrainSettings) -> None:
    """Train, and keep each process's updates, and what it found, by its rank."""
    denoiser = Sized()
    with joined() as processes, kept_updates() as kept:
        result = shared_run(folder, settings, processes, denoiser=denoiser)
    keep(folder, processes, kept)
    told = {"losses": result.losses, "files": sorted(result.files), "most": max(denoiser.sizes)}
    (folder / f"told_{processes.rank}.json").write_text(json.dumps(told))


class Sized(TinyDenoiser):
    """Keeps how many pictures went through at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def loss(self, latents: Tensor, *given: object) -> Tensor:
        self.sizes.append(len(latents))
        return super().loss(latents, *given)


def shared_run(
    folder: Path, settings: TrainSettings, processes: Processes, **given: object
) -> TrainResult:
    """`small_runs.run`, with a copy of the set's files for each process, which writes them."""
    own = tiny_set(folder / f"set_{processes.rank}")
    return run(folder, settings, style_set=own, processes=processes, **given)


@contextmanager
def kept_updates():
    """For the block, the updates that the learner makes, by their number."""
    kept, step = {}, Learner.step

    def keeping(self: Learner, update: Sequence[Tensor], number: int, good: Tensor) -> None:
        kept[f"{number}"] = torch.cat([part.detach().reshape(-1) for part in update])
        step(self, update, number, good)

    with mock.patch.object(Learner, "step", keeping):
        yield kept


def keep(folder: Path, processes: Processes, kept: dict[str, Tensor]) -> None:
    save_file(kept, folder / f"updates_{processes.rank}.safetensors")


def train_until_killed(folder: Path, settings: TrainSettings, victim: int, at: int) -> int:
    """Train; one process is killed when the others wait for its part of step `at`."""
    with joined() as processes, mock.patch.object(training, "draw_batches", killing(victim, at)):
        return word_of(folder, processes, lambda: shared_run(folder, settings, processes))


def killing(victim: int, at: int) -> Callable:
    draw = training.draw_batches

    def drawn(encoded: object, settings: TrainSettings, step: int, processes: Processes) -> dict:
        if (processes.rank, step) == (victim, at):
            die()
        return draw(encoded, settings, step, processes)

    return drawn


def word_of(folder: Path, processes: Processes, work: Callable[[], object]) -> int:
    """The exit code; what was said when another process was lost is kept by the rank."""
    try:
        work()
    except ProcessLostError as error:
        (folder / f"word_{processes.rank}.txt").write_text(str(error))
        return LOST
    return 0


def train_with_nan(folder: Path, settings: TrainSettings, at: int) -> None:
    """Train; in step `at` the loss of the first item of process 1 is not a number."""
    with joined() as processes:
        denoiser = Spoiled(at if processes.rank == 1 else -1)
        shared_run(folder, settings, processes, denoiser=denoiser)


class Spoiled(TinyDenoiser):
    """The loss of the first row of pass `at` is NaN."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def loss(self, *given: object) -> Tensor:
        self.left -= 1
        losses = super().loss(*given)
        if self.left == -1:
            losses = losses * torch.tensor([float("nan"), *[1.0] * (len(losses) - 1)])
        return losses


def train_unlike(folder: Path) -> int:
    """Train by settings that are not the same in all processes."""
    with joined() as processes:
        settings = replace(FOUR, seed=processes.rank)
        return refused(folder, processes, lambda: shared_run(folder, settings, processes))


def train_too_few(folder: Path) -> int:
    """Train with fewer pictures in an update than there are processes."""
    with joined() as processes:
        settings = replace(QUICK, batch=1)
        return refused(folder, processes, lambda: shared_run(folder, settings, processes))


def meet_bad_input(folder: Path, who: Sequence[int]) -> int:
    """Some processes meet bad input, and the others wait for them."""

    def meet() -> None:
        with joined() as processes:
            if processes.rank in who:
                raise InputError("file", "one that is there", "none")
            processes.wait()

    with mock.patch("nsync.processes.GRACE", timedelta(seconds=0.5)):
        try:
            meet()
        except OneSidedError:
            return 3
        except InputError:
            return 2
        except ProcessLostError:
            return LOST
    return 0


def without_distributed() -> None:
    """Alone with a torch that was built without it, as there are for some GPUs."""
    for name in ("Store", "DistStoreError", "all_reduce", "broadcast", "init_process_group"):
        delattr(dist, name)
    sys.modules["torch.distributed.rendezvous"] = None
    importlib.reload(processes_module)
    with processes_module.joined() as processes:
        processes.summed([torch.ones(1)])
        processes.wait()
    os.environ["WORLD_SIZE"] = "2"
    dist.is_available = lambda: False
    with pytest.raises(InputError, match=r"a torch with torch\.distributed"):
        processes_module.joined().__enter__()


def meet(folder: Path) -> int:
    """Only come together."""

    def met() -> None:
        with joined():
            pass

    return refused(folder, Processes(), met)


def refused(folder: Path, processes: Processes, work: Callable[[], object]) -> int:
    try:
        work()
    except InputError as error:
        (folder / f"word_{processes.rank}.txt").write_text(str(error))
        return 2
    return 0


def paint(folder: Path, count: int, victim: int = -1) -> int:
    """Paint negatives, one picture at a time; the victim is killed when it begins its second."""

    class Dying(Drawing):
        def generate(self, prompts: Sequence[str], *given: object, **start: object) -> Tensor:
            if processes.rank == victim and self.drawn:
                die()
            return super().generate(prompts, *given, **start)

    with joined() as processes, mock.patch("nsync.negatives.BATCH_MOST", 1):
        denoiser = Dying()
        made = folder / "negatives"

        def work() -> None:
            make_negatives(NEGATIVES, denoiser, positives(count), made, processes=processes)

        code = word_of(folder, processes, work)
    told = [prompt for prompt, _ in denoiser.drawn]
    (folder / f"drawn_{processes.rank}.json").write_text(json.dumps(told))
    return code


def encode(folder: Path, seeds: Sequence[int]) -> None:
    """Encode pictures of several sizes; some are stored already."""
    with joined() as processes:
        encoder = Counting()
        rows = encode_stored(encoder, many(seeds), folder / "store", processes=processes)
    save_file({"rows": rows}, folder / f"rows_{processes.rank}.safetensors")
    (folder / f"seen_{processes.rank}.json").write_text(json.dumps(encoder.seen))


def many(seeds: Sequence[int]) -> list[Tensor]:
    sizes = [(9, 7), (12, 12), (7, 9)]
    return [pictures(seed, size=sizes[seed % 3])[0] for seed in seeds]

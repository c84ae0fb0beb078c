"""Trials on the smallest denoiser: sets, whole runs, and single steps."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import torch
from small_runs import Exports
from tiny_denoiser import TinyDenoiser, pixels, source, tiny_set
from torch import Tensor

from benchmarks.stylebench.trials.choice import Trial
from benchmarks.stylebench.trials.loop import encoded_prior, train_trial
from benchmarks.stylebench.trials.step import Running, Step
from benchmarks.stylebench.trials.steps import STEPS
from nsync.batches import encode_set
from nsync.branches import Batch
from nsync.learner import Learned, Learner
from nsync.passes import BranchPasses
from nsync.pictures.images import png, to_picture
from nsync.prompts import Prompts
from nsync.runs.folder import RunFolder
from nsync.settings import TrainSettings
from nsync.style_set import StyleSet
from nsync.trained import trained
from nsync.training import train

SETTINGS = TrainSettings(
    rule="projection", steps=4, rank=2, alpha=2.0, learning_rate=1e-2, preview_every=2,
    save_every=0, warmup=1, batch=4, clip_norm=0.01,
)  # fmt: skip


def two_negatives(folder: Path) -> StyleSet:
    """Five positives with two negatives each."""
    style_set, files = tiny_set(folder, 5), {}
    for item in style_set.items:
        second = folder / f"{item.name} second.png"
        second.write_bytes(png(to_picture(pixels(f"second {item.name}"))))
        files[item.name] = (*item.negatives, second)
    return style_set.with_negatives(files, style_set.base)


def run(
    folder: Path, settings: TrainSettings, trial: Trial | None
) -> tuple[Learned, list[dict[str, float]]]:
    """Weights and log of a run by a trial's loop, or by the library's where that is None.

    Previews and reports are in the log, too.
    """
    style_set, export, told = two_negatives(folder / "set"), Exports(folder), []
    loop = train
    if trial is not None:
        prior = tiny_set(folder / "prior", 5) if trial.prior else None
        loop = partial(train_trial, trial=trial, prior=prior)
    loop(
        settings, TinyDenoiser(), style_set, folder / "run", export,
        on_step=lambda report: told.append({"reported": report.step}),
        preview=lambda done: told.append({"drawn": done}), ready=nullcontext,
    )  # fmt: skip
    log = RunFolder(folder / "run").records()
    timeless = [{k: v for k, v in one.items() if k != "seconds"} for one in log]
    return export.last, timeless + told


@contextmanager
def stepping(folder: Path, trial: Trial, settings: TrainSettings = SETTINGS) -> Iterator[Step]:
    """A trial's step, ready to be called; the weights have come a long way since its start."""
    denoiser, style_set = TinyDenoiser(), two_negatives(folder / "set")
    encoded = encode_set(settings, denoiser, style_set)
    prior = encoded_prior(settings, denoiser, tiny_set(folder / "prior", 5))
    texts = [*encoded.texts, *encoded.negative_texts, *prior.negative_texts]
    prompts = Prompts(denoiser, texts, live=False)
    with ExitStack() as stack:
        made = stack.enter_context(trained(settings, denoiser, style_set.token))
        learner = Learner(settings, made)
        passes = BranchPasses(settings, denoiser, made, prompts, stack)
        running = Running(
            trial, settings, denoiser, encoded, prior, prompts, made, learner, passes
        )  # fmt: skip
        step = STEPS[trial.kind](running)
        [vector] = learner.vectors
        with torch.no_grad():
            vector += 0.3 * torch.randn(vector.shape, generator=source("trained"))
        yield step


def gradient(step: Step, batch: Batch) -> Tensor:
    """Of a batch alone, float64."""
    return step.passes({"alone": batch})["alone"].gradients[0].double()


def some(batch: Batch, rows: list[int]) -> Batch:
    """Some rows of a batch."""
    parts = {
        name: tuple(getattr(batch, name)[row] for row in rows)
        for name in ("names", "latents", "prompts", "noise")
    }
    return Batch(**parts, times=torch.stack([batch.times[row] for row in rows]))


def same(one: Mapping[str, Batch], other: Mapping[str, Batch]) -> bool:
    """Whether batches are equal to the bit."""
    return list(one) == list(other) and all(_alike(one[name], other[name]) for name in one)


def _alike(one: Batch, other: Batch) -> bool:
    tensors = [(*batch.latents, *batch.noise, batch.times) for batch in (one, other)]
    pairs = list(zip(*tensors, strict=True))
    words = (one.names, one.prompts) == (other.names, other.prompts)
    return words and all(torch.equal(*pair) for pair in pairs)

"""The trial loop: `nsync.training.train` as far as a cell needs it, with a step of its own."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

from nsync.batches import EncodedSet, check_set, encode_set
from nsync.denoiser import Denoiser
from nsync.learner import Learner
from nsync.optimizers import clip
from nsync.passes import BranchPasses
from nsync.prompts import Prompts
from nsync.runs.parts import Export, StepReport
from nsync.runs.readings import ItemLosses
from nsync.runs.session import Session
from nsync.runs.standing import Standing
from nsync.settings import TrainSettings
from nsync.style_set import StyleSet
from nsync.trained import trained
from nsync.training import run_config
from nsync.validation import Validation

from .choice import Trial
from .step import Running
from .steps import STEPS


def train_trial(
    settings: TrainSettings,
    denoiser: Denoiser,
    style_set: StyleSet,
    folder: Path,
    export: Export,
    *,
    trial: Trial,
    prior: StyleSet | None = None,
    on_step: Callable[[StepReport], None],
    preview: Callable[[int], None],
    ready: Callable[[], AbstractContextManager],
) -> None:
    """Train a LoRA from its first step to its last; arguments without a word as for `train`.

    By a trial in which nothing differs it makes the same weights and the same log as `train`, bit
    for bit (`tests/unit/test_stylebench_trial_loop.py`).

    Args:
        folder: empty; of this run.
        trial: what differs.
        prior: the base's own pictures as negatives, for a trial with `prior`.

    Raises:
        InputError: the trial, the settings or the set are not fit for training.
        RunStoppedError: the numbers went bad.
    """
    with ExitStack() as stack:
        settings.check()
        per_positive = min((len(item.negatives) for item in style_set.items), default=0)
        trial.check(settings, per_positive)
        check_set(settings, denoiser, style_set)

        # Pictures and words are encoded once.
        encoded = encode_set(settings, denoiser, style_set)
        kept = encoded_prior(settings, denoiser, prior) if prior else None
        texts = [*encoded.texts, *encoded.negative_texts, *(kept.negative_texts if kept else ())]
        prompts = Prompts(denoiser, texts, settings.trains_text)
        run = Standing(folder, settings, run_config(settings, denoiser, style_set))
        log, _ = run.begin()

        # The model with what is trained in it for a while, and what it takes to train it.
        stack.enter_context(ready())
        made = stack.enter_context(trained(settings, denoiser, style_set.token))
        learner = Learner(settings, made)
        passes = BranchPasses(settings, denoiser, made, prompts, stack)
        validation = Validation(settings, denoiser, prompts, encoded.held_out)
        running = Running(
            trial, settings, denoiser, encoded, kept, prompts, made, learner, passes
        )  # fmt: skip
        make = STEPS[trial.kind](running)

        session = Session(
            settings, run.run, log, learner, export, run.begun, lambda: passes.form,
            validation or None, on_step, preview,
        )  # fmt: skip
        session.look_at_the_start()
        with session.kept_if_stopped():
            for step in range(settings.steps):
                # A gradient per branch, and one update of them: here the trials differ.
                one = make(step)

                # Clipped after the rule; left out by the device where a number is not finite.
                one.seen["norm_update"] = clip(one.update, settings.clip_norm)
                known = {"rate": settings.rate(step)}
                losses = {
                    n: ItemLosses(one.batches[n].names, one.branches[n].losses)
                    for n in one.branches
                }
                good = session.readings.add(step + 1, one.seen, known, losses)
                learner.step(one.update, step, good)

                # Told, looked at, saved. Whoever is told may stop the run by raising.
                session.after_step(step + 1)
            session.exported()


def encoded_prior(settings: TrainSettings, denoiser: Denoiser, prior: StyleSet) -> EncodedSet:
    """The base's own pictures, under plain captions and names (and so noise) of their own."""
    encoded = encode_set(replace(settings, rule="projection"), denoiser, prior)
    captions = {item.name: item.caption for item in prior.items}
    return replace(
        encoded,
        names=tuple(f"{name}, prior" for name in encoded.names),
        negative_texts=tuple(captions[name] for name in encoded.names),
    )

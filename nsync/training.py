"""The training loop: one function, read from top to bottom."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from torch import Tensor, nn

from . import __version__
from .batches import check_set, draw_batches, encode_set
from .branches import BranchPasses
from .denoiser import Denoiser
from .learner import Learner, check_optimizer
from .lora_file import LowRank
from .resume import check_same_run
from .rules import refine_and_read
from .run_folder import RunFolder
from .run_log import RunLog
from .session import Export, Session, StepReport, Watch
from .settings import TrainSettings
from .style_set import StyleSet
from .trained import check_layers, first_vectors, standing_for, trained
from .validation import Validation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What came of a run, or of its part up to a pause.

    Attributes:
        files: the exported files by kind: "lora", "embedding".
        losses: the positive loss of every step, skipped ones left out.
        step: updates made in all.
        over: nothing is left to train; else it was a pause.
    """

    files: dict[str, Path]
    losses: list[float]
    step: int
    over: bool


def train(
    settings: TrainSettings,
    denoiser: Denoiser,
    style_set: StyleSet,
    folder: Path,
    export: Export,
    *,
    start: Mapping[str, LowRank] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_item: Callable[[int, int], None] | None = None,
    preview: Callable[[int], None] | None = None,
    watch: Watch | None = None,
    ready: Callable[[], AbstractContextManager] = nullcontext,
) -> TrainResult:
    """Teach the model the style of the set; the model itself stays as it is.

    Where `folder` holds a state of this very run, it goes on from there, and ends, on the same
    machine, with the same bits as if it had never stopped. A run that is there in full is not made
    again.

    Args:
        folder: of this run; see `nsync.run_folder`.
        export: called at the end, at a pause, or when the run stops early with something learned.
        start: an existing LoRA to go on from, by layer; it decides layers, ranks and alphas.
        on_step: called after every step; whatever it raises stops the run.
        on_item: called while encoding with (items done, items in all); may raise too.
        preview: called with the steps done, at the start, every `preview_every` steps and at the
            end, while the model holds what would be saved. Its failures are logged and forgotten.
        watch: scores the style at the start, every `score_every` steps and at the end, likewise;
            it may end the run before its last step.
        ready: a context in which the model can be trained, entered after the encoding.

    Raises:
        InputError: settings or set are not fit for training, or `folder` holds another run;
            nothing has been written.
        RunStoppedError: the numbers went bad; what was learned before is saved.
        OutOfMemoryError: not even the smallest pass fits; likewise.
    """
    with ExitStack() as stack:
        # Everything that can be judged before the work is judged here.
        settings.check()
        check_optimizer(settings)
        if settings.trains_embedding:
            vectors = first_vectors(settings, denoiser)
            stack.enter_context(standing_for(denoiser, style_set.token, vectors))
        check_set(settings, denoiser, style_set)
        check_layers(settings, denoiser, start)
        run, config = RunFolder(folder), run_config(settings, denoiser, style_set, start)
        state = run.latest()
        begun = state.step if state else 0
        check_same_run(run, begun, config)
        if files := run.finished(begun, settings.steps):
            logger.info("This run is there already: %s", ", ".join(map(str, files.values())))
            return TrainResult(files, RunLog(run.log, run.records()).losses, begun, over=True)

        # Pictures are encoded once, and so are words where they are not trained.
        encoded = encode_set(settings, denoiser, style_set, on_item)
        prompts = None if settings.trains_text else encoded.prompts(denoiser, settings)
        records = run.begin(config, begun)
        log = RunLog(run.log, records)
        if watch:
            watch.begin(records)

        # The model with what is trained in it for a while, and what it takes to train it.
        stack.enter_context(ready())
        made = stack.enter_context(trained(settings, denoiser, style_set.token, start))
        prompts = prompts or encoded.prompts(denoiser, settings)
        learner = Learner(settings, made)
        form = state.form if state else None
        if state:
            learner.load(state.tensors, state.scalars)
            state = None  # it is as large as the weights and the optimizer together
            logger.info("Going on after step %d of %d", begun, settings.steps)
        passes = BranchPasses(settings, denoiser, made, prompts, stack, form)
        validation = Validation(settings, denoiser, prompts, encoded.held_out)
        if settings.compile:
            stack.enter_context(_compiled(denoiser.network))

        session = Session(
            settings, run, log, learner, passes, validation, export, begun, on_step, preview, watch
        )
        session.look_at_the_start()
        with session.kept_if_stopped():
            for step in range(begun, settings.steps):
                # A gradient per branch.
                batches = draw_batches(encoded, settings, step)
                branches = passes(batches)

                # One update of them, clipped after the rule.
                gradients = {
                    name: made.parts(branch.gradients, settings.scope)
                    for name, branch in branches.items()
                }
                options = {"scope": settings.scope, "weight": settings.weight}
                update, seen = refine_and_read(settings.rule, **gradients, **options)
                seen["norm_update"] = clip(update, settings.clip_norm)

                # The step itself; where a number is not finite, the device leaves it out.
                known = {"rate": settings.rate(step)}
                good = session.readings.add(step + 1, batches, branches, seen, known)
                learner.step(update, step, good)

                # Told, looked at, saved. Whoever is told may stop the run by raising.
                if session.after_step(step + 1):
                    break
            files = dict(export(learner.learned(), session.done))

    run.finish(session.done, files, settings.steps if session.is_over else 0)
    logger.info("Trained %d steps; saved %s", session.done, ", ".join(map(str, files.values())))
    return TrainResult(files, log.losses, session.done, session.is_over)


def check_runs(
    settings: TrainSettings,
    denoiser: Denoiser,
    sets: Mapping[Path, StyleSet],
    start: Mapping[str, LowRank] | None = None,
) -> None:
    """Refuse now what `train` would refuse of a set or folder after the runs before it are trained.

    Args:
        sets: of several runs by the same settings, by the run's folder.

    Raises:
        InputError: as `train`.
    """
    for folder, style_set in sets.items():
        with ExitStack() as stack:
            if settings.trains_embedding:
                vectors = first_vectors(settings, denoiser)
                stack.enter_context(standing_for(denoiser, style_set.token, vectors))
            check_set(settings, denoiser, style_set)
        run, config = RunFolder(folder), run_config(settings, denoiser, style_set, start)
        check_same_run(run, max(run.steps(), default=0), config)


def run_config(
    settings: TrainSettings,
    denoiser: Denoiser,
    style_set: StyleSet,
    start: Mapping[str, LowRank] | None = None,
) -> dict[str, object]:
    """What a run was made of: settings, base, set, first weights and versions, as JSON values."""
    return {
        "settings": settings.as_dict(),
        "base": denoiser.identity,
        "token": style_set.token,
        "template": style_set.template,
        "pictures": len(style_set),
        "dataset": style_set.digest,
        "start_from": _digest(start) if start else "",
        "versions": {"nsync": __version__, "torch": torch.__version__, "peft": peft.__version__},
    }


def clip(gradients: list[Tensor], most: float) -> Tensor:
    """Scale the gradients in place to a norm of at most `most` (0: leave them); their old norm."""
    norm = torch.nn.utils.get_total_norm(gradients)
    if most:
        factor = (most / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1)
        torch._foreach_mul_(gradients, factor)
    return norm


def _digest(start: Mapping[str, LowRank]) -> str:
    digest = hashlib.sha256()
    for key, one in start.items():
        digest.update(f"{key} {one.alpha}".encode())
        for factor in (one.down, one.up):
            digest.update(factor.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _compiled(network: nn.Module) -> Iterator[None]:
    """Compile the network where it stands, and let it be as it was afterwards."""
    network.compile()
    try:
        yield
    finally:
        network._compiled_call_impl = None  # torch has no word for undoing `compile`
        torch.compiler.reset()

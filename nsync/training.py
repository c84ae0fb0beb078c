"""The training loop: one function, read from top to bottom."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

import peft
import torch
from torch import nn

from . import __version__
from .batches import check_set, draw_batches, encode_set
from .branches import over_all
from .checkpoint import check_names, check_room
from .denoiser import Denoiser
from .errors import InputError
from .learner import Learned, Learner, check_optimizer
from .lora_file import LowRank
from .optimizers import clip
from .passes import BranchPasses
from .processes import ONE, Processes, check_device
from .rules import refine_and_read
from .runs.parts import Export, StepReport, TrainResult, Watch
from .runs.readings import ItemLosses
from .runs.session import Session
from .runs.standing import Standing
from .settings import TrainSettings
from .style_set import StyleSet
from .trained import (
    check_layers,
    chosen_layers,
    first_vectors,
    standing_for,
    trained,
    trained_count,
)
from .validation import Validation


def train(
    settings: TrainSettings,
    denoiser: Denoiser,
    style_set: StyleSet,
    folder: Path,
    export: Export[Learned],
    *,
    start: Mapping[str, LowRank] | None = None,
    names: Mapping[str, str] | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_item: Callable[[int, int], None] | None = None,
    preview: Callable[[int], None] | None = None,
    watch: Watch[Learned] | None = None,
    ready: Callable[[], AbstractContextManager] = nullcontext,
    processes: Processes = ONE,
) -> TrainResult:
    """Teach the model the style of the set; the model itself stays as it is.

    Where `folder` holds a state of this very run, it goes on from there, and ends, on the same
    machine, with the same bits as if it had never stopped. A run that is there in full is not made
    again.

    Args:
        folder: of this run; see `nsync.runs.folder`.
        export: called at the end, at a pause, or when the run stops early with something learned.
        start: an existing LoRA to go on from, by layer; it decides layers, ranks and alphas.
        names: what a LoRA file calls the layers, by key; with them the run's states can be gone on
            with from another door to the same base (see `nsync.runs.state_order`).
        on_step: called after every step; whatever it raises stops the run.
        on_item: called while encoding with (items done, items in all); may raise too.
        preview: called with the steps done, at the start, every `preview_every` steps and at the
            end, while the model holds what would be saved. Its failures are logged and forgotten.
        watch: scores the style at the start, every `score_every` steps and at the end, likewise;
            it may end the run before its last step.
        ready: a context in which the model can be trained, entered after the encoding.
        processes: that make this call together, each with a share of every batch; they learn what
            one alone would. The lead alone writes, tells and looks; without a watch. What is
            returned in the others names no files.

    Raises:
        InputError: settings or set are not fit for training, or `folder` holds another run;
            nothing has been written.
        RunStoppedError: the numbers went bad; what was learned before is saved.
        OutOfMemoryError: not even the smallest pass fits; likewise.
        ProcessLostError: another process has stopped; likewise.
    """
    if not processes.is_lead:
        export, on_step, on_item, preview = _no_files, None, None, None
    with ExitStack() as stack:
        # Everything that can be judged before the work is judged here.
        settings.check()
        check_optimizer(settings)
        if settings.trains_embedding:
            vectors = first_vectors(settings, denoiser)
            stack.enter_context(standing_for(denoiser, style_set.token, vectors))
        check_set(settings, denoiser, style_set)
        check_layers(settings, denoiser, start)
        check_processes(settings, denoiser, processes, watch)
        config = run_config(settings, denoiser, style_set, start)
        run = Standing(folder, settings, config, writes=processes.is_lead)
        processes.check_same("processes", json.dumps([config, run.begun]))
        if result := run.result():
            return result

        # Pictures are encoded once, and so are words where they are not trained.
        encoded = encode_set(settings, denoiser, style_set, on_item)
        prompts = None if settings.trains_text else encoded.prompts(denoiser, settings)
        log, records = run.begin()
        if watch:
            watch.begin(records)

        # The model with what is trained in it for a while, and what it takes to train it.
        stack.enter_context(ready())
        made = stack.enter_context(trained(settings, denoiser, style_set.token, start))
        prompts = prompts or encoded.prompts(denoiser, settings)
        learner = Learner(settings, made, names)
        run.load(learner)
        passes = BranchPasses(settings, denoiser, made, prompts, stack, run.form, processes.count)
        validation = Validation(settings, denoiser, prompts, encoded.held_out)
        if settings.compile:
            stack.enter_context(_compiled(denoiser.network))

        session = Session(
            settings,
            run.run,
            log,
            learner,
            export,
            run.begun,
            lambda: passes.form,
            validation if validation and processes.is_lead else None,
            on_step,
            preview,
            watch,
        )
        session.look_at_the_start()
        with session.kept_if_stopped():
            for step in range(run.begun, settings.steps):
                # A gradient per branch, over the pictures of all processes.
                batches = draw_batches(encoded, settings, step, processes)
                branches = over_all(processes, batches, passes(batches))

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
                losses = {n: ItemLosses(batches[n].names, branches[n].losses) for n in branches}
                good = session.readings.add(step + 1, seen, known, losses)
                learner.step(update, step, good)

                # Told, looked at, saved. Whoever is told may stop the run by raising.
                if session.after_step(step + 1):
                    break
            files = session.exported()
    result = session.finish(files)
    processes.wait()  # or the others would go on before the lead has written
    return result


def check_processes(
    settings: TrainSettings, denoiser: Denoiser, processes: Processes, watch: object = None
) -> None:
    """Raise `InputError` where so many processes cannot share a run."""
    size = settings.batch * settings.accumulate
    if processes.count > size:
        wanted = f"{processes.count} pictures or more in an update, one for each process"
        remedy = "`batch` is that of all processes together; raise it, or start fewer."
        raise InputError("batch", wanted, f"{size}", remedy)
    if processes.count > 1:
        check_device(denoiser.device)
        if watch is not None:
            raise InputError("watch", "none, with several processes", "one")


def _no_files(learned: Learned, made: int) -> dict[str, Path]:
    """What a process exports that does not lead."""
    return {}


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
        Standing(folder, settings, run_config(settings, denoiser, style_set, start))


def check_runs_whole(
    settings: TrainSettings,
    denoiser: Denoiser,
    sets: Mapping[Path, StyleSet],
    names: Mapping[str, str],
    loras: Path,
    start: Mapping[str, LowRank] | None = None,
) -> None:
    """Everything that a door to training has to refuse before any work: see `check_runs`, and the
    layers, what their files call them, and the room on the disks.

    Args:
        sets: at least one.
        names: what a LoRA file calls the layers.
        loras: the folder that takes what is learned.

    Raises:
        InputError: as `train`; a layer without a name, a full disk.
    """
    check_layers(settings, denoiser, start)
    if settings.trains_lora:
        check_names(start or chosen_layers(settings, denoiser), names)
    check_runs(settings, denoiser, sets, start)
    weights = trained_count(settings, denoiser, start) * len(sets)
    check_room(loras, weights, 2)
    # A state holds the weights, two moments and perhaps an average of them.
    check_room(next(iter(sets)), weights, 4 * (settings.keep_last + 1))


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
        **denoiser.companions,
        "token": style_set.token,
        "template": style_set.template,
        "pictures": len(style_set),
        "dataset": style_set.digest,
        "start_from": _digest(start) if start else "",
        "versions": {"nsync": __version__, "torch": torch.__version__, "peft": peft.__version__},
    }


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
    before = network._compiled_call_impl  # torch has no word for undoing `compile`
    network.compile()
    try:
        yield
    finally:
        network._compiled_call_impl = before
        torch.compiler.reset()

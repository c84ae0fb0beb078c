"""The training loop: one function, read from top to bottom."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from torch import Tensor

from . import __version__
from .adapters import Adapters, adapters, check_rank, select_layers
from .batches import check_set, draw_batches, encode_set
from .branches import Batch, BranchPasses, BranchResult
from .denoiser import Denoiser
from .rules import refine, statistics
from .run_log import RunLog, ShareWatch
from .settings import TrainSettings
from .style_set import StyleSet

logger = logging.getLogger(__name__)

Weights = dict[str, Tensor]
"""Trained adapters by `<layer>.lora_A` and `<layer>.lora_B`, float32, in main memory."""


class NonFiniteError(RuntimeError):
    """A loss or a gradient became NaN or infinite: the step, the items and what was saved."""


@dataclass(frozen=True)
class StepReport:
    """What happened in one step.

    Attributes:
        step: steps done, 1 after the first.
        steps: steps asked for.
        values: the numbers of the log by name: `loss_positive`, `cos_negative`, `removed`, ...
        warning: a sentence for the user when the negatives are too far or too near, else "".
        remaining: seconds that the rest will take at the pace of the last steps.
    """

    step: int
    steps: int
    values: dict[str, float]
    warning: str
    remaining: float


@dataclass(frozen=True)
class TrainResult:
    """The trained weights, the positive loss of every step, and the exported file."""

    weights: Weights
    losses: list[float]
    file: Path


def train(
    settings: TrainSettings,
    denoiser: Denoiser,
    style_set: StyleSet,
    folder: Path,
    export: Callable[[Weights, int], Path],
    *,
    on_step: Callable[[StepReport], None] | None = None,
    on_item: Callable[[int, int], None] | None = None,
    preview: Callable[[int], None] | None = None,
    ready: Callable[[], AbstractContextManager] = nullcontext,
) -> TrainResult:
    """Teach the denoiser's network the style of the set, as adapters; the network stays as it is.

    Args:
        folder: of this run; gets `config.json` and `log.jsonl`.
        export: writes the weights learned in so many steps to a file and returns its path. Called
            once: at the end, or when the run stops early with something learned.
        on_step: called after every step; whatever it raises stops the run.
        on_item: called while encoding with (items done, items in all); may raise too.
        preview: called with the steps done, at the start, every `preview_every` steps and at the
            end, while the adapters are in the network. Its failures are logged and forgotten.
        ready: a context in which the network can be trained, entered after the encoding.

    Raises:
        InputError: settings or set are not fit for training; nothing has been written.
        NonFiniteError: NaN or infinity in a loss or gradient.
    """
    # Everything that can be judged before the work is judged here.
    settings.check()
    check_set(settings, denoiser, style_set)
    check_rank(select_layers(denoiser.network, settings.layers), settings.rank)

    # Pictures and words are encoded once.
    encoded = encode_set(settings, denoiser, style_set, on_item)
    log = RunLog(folder, run_config(settings, denoiser, style_set))

    # The network, with adapters in it for a while, and the optimizer of their float32 weights.
    with ready(), _adapters(settings, denoiser) as trained, _kept_if_stopped(trained, log, export):
        parameters = list(trained.parameters.values())
        optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate)
        passes = BranchPasses(denoiser, parameters, settings.precision)
        watch, clock = ShareWatch(), _Clock(settings.steps)
        if settings.preview_every:
            _draw_preview(preview, 0)

        for step in range(settings.steps):
            # A gradient per branch.
            clock.start()
            batches = draw_batches(encoded, settings, step)
            branches = passes(batches)

            # One update of them, clipped after the rule.
            gradients = {name: branch.gradients for name, branch in branches.items()}
            options = {"scope": settings.scope, "weight": settings.weight}
            update = refine(settings.rule, **gradients, **options)
            seen = statistics(settings.rule, **gradients, **options)
            seen["norm_update"] = _clip(update, settings.clip_norm)

            # The only wait for the device: the numbers of the log. Bad ones stop the run.
            values = _read(branches, batches, seen, step)

            # The step itself.
            for parameter, gradient in zip(parameters, update, strict=True):
                parameter.grad = gradient
            for group in optimizer.param_groups:
                group["lr"] = settings.rate(step)
            optimizer.step()

            # Told to the log and to the caller, who may stop the run by raising.
            values |= {"rate": settings.rate(step), "seconds": clock.lap()}
            warning = watch.see(values.get("removed"))
            log.add(step + 1, values, warning)
            if on_step:
                report = StepReport(step + 1, settings.steps, values, warning, clock.remaining)
                on_step(report)
            if _is_preview_due(settings, step + 1):
                _draw_preview(preview, step + 1)

        weights = trained.state()

    file = export(weights, settings.steps)
    logger.info("Trained %d steps; saved %s", settings.steps, file)
    return TrainResult(weights, log.losses, file)


def run_config(
    settings: TrainSettings, denoiser: Denoiser, style_set: StyleSet
) -> dict[str, object]:
    """What a run was made of: settings, base, set and versions, as JSON values."""
    return {
        "settings": settings.as_dict(),
        "base": denoiser.identity,
        "token": style_set.token,
        "template": style_set.template,
        "pictures": len(style_set),
        "dataset": style_set.digest,
        "versions": {"nsync": __version__, "torch": torch.__version__, "peft": peft.__version__},
    }


def _adapters(settings: TrainSettings, denoiser: Denoiser) -> AbstractContextManager[Adapters]:
    return adapters(
        denoiser.network,
        settings.layers,
        settings.rank,
        settings.alpha,
        settings.seed,
        denoiser.device,
    )


@contextmanager
def _kept_if_stopped(
    trained: Adapters, log: RunLog, export: Callable[[Weights, int], Path]
) -> Iterator[None]:
    """Save what was learned when the loop stops early, whatever stopped it, and say so."""
    try:
        yield
    except BaseException as error:
        steps = len(log.losses)
        told = f"Stopped after {steps} steps"
        try:
            saved = f"saved as {export(trained.state(), steps)}" if steps else "nothing learned yet"
        except Exception as failure:
            saved = f"and could not be saved: {failure}"
        logger.warning("%s (%s); what was learned: %s", told, type(error).__name__, saved)
        if isinstance(error, NonFiniteError):
            raise NonFiniteError(f"{error} {told}; the last good weights: {saved}.") from error
        raise


def _clip(gradients: list[Tensor], most: float) -> Tensor:
    """Scale the gradients in place to a norm of at most `most` (0: leave them); their old norm."""
    norm = torch.nn.utils.get_total_norm(gradients)
    if most:
        factor = (most / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1)
        torch._foreach_mul_(gradients, factor)
    return norm


def _read(
    branches: dict[str, BranchResult], batches: dict[str, Batch], seen: dict[str, Tensor], step: int
) -> dict[str, float]:
    """All numbers of a step in one transfer from the device.

    Raises:
        NonFiniteError: one of them is NaN or infinite; it names the step and the items.
    """
    means = {f"loss_{name}": branch.losses.mean() for name, branch in branches.items()}
    named = {name: value.float() for name, value in (means | seen).items()}
    each = [branch.losses for branch in branches.values()]
    numbers = torch.cat([torch.stack(list(named.values())), *each]).tolist()
    values = dict(zip(named, numbers, strict=False))
    if not all(map(math.isfinite, numbers)):
        places = [(name, item) for name, batch in batches.items() for item in batch.names]
        raise NonFiniteError(_blame(values, places, numbers[len(values) :], step))
    return values


def _blame(
    values: dict[str, float], places: list[tuple[str, str]], losses: list[float], step: int
) -> str:
    bad = [
        f"{name} {item}"
        for (name, item), loss in zip(places, losses, strict=True)
        if not math.isfinite(loss)
    ]
    if bad:
        return f"The loss is NaN or infinite at step {step + 1} for: {', '.join(bad)}."
    bad = [
        f"{name} {item}"
        for name, item in places
        if not math.isfinite(values.get(f"norm_{name}", math.nan))
    ]
    items = bad or [f"{name} {item}" for name, item in places]
    return f"The gradient is NaN or infinite at step {step + 1} for: {', '.join(items)}."


def _is_preview_due(settings: TrainSettings, done: int) -> bool:
    every = settings.preview_every
    return every > 0 and (done % every == 0 or done == settings.steps)


def _draw_preview(preview: Callable[[int], None] | None, done: int) -> None:
    if preview is None:
        return
    try:
        with torch.no_grad():
            preview(done)
    except Exception:  # whatever a sampler or a full disk may raise: training goes on
        logger.warning("The preview after %d steps failed", done, exc_info=True)


class _Clock:
    """Seconds per step, and what the rest will take at the pace of the last ones."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._recent: deque[float] = deque(maxlen=20)

    def start(self) -> None:
        self._started = time.perf_counter()

    def lap(self) -> float:
        self._recent.append(time.perf_counter() - self._started)
        self._left -= 1
        return self._recent[-1]

    @property
    def remaining(self) -> float:
        return self._left * sum(self._recent) / len(self._recent)

"""Pretraining of a pair of encoders: two branches of labelled pairs, matching and contrast."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from .. import __version__
from ..checkpoint import check_room
from ..draws import seeded
from ..errors import InputError
from ..runs.log import VALIDATION
from ..runs.parts import Export, StepReport, TrainResult
from ..runs.session import Session
from ..runs.standing import Standing, check_before_pictures
from ..style_set import StyleSet
from . import losses
from .collapse import CollapseWatch, inside
from .contrast import CLASSIFIER, contrast
from .encoders import Encoders, check_words, device_of, identity, warn_of_unknown_words
from .learner import ModuleLearner, ModulesLearned
from .pairs import LabelledPairs, draw_rows, numbered, read_pairs, split
from .pretrain_settings import PretrainSettings
from .reading import Reader, reader
from .retrieval import retrieval
from .words import word_matching

logger = logging.getLogger(__name__)

ENCODERS = "encoders"
"""The name of what was learned, in exports and in states."""

KIND = "a pair of encoders"
TEXT_TO_IMAGE, IMAGE_TO_TEXT = "precision_text_to_image", "precision_image_to_text"

_WEIGHT_DECAY, _CLIP_NORM = 0.01, 1.0


def pretrain(
    settings: PretrainSettings,
    encoders: Encoders,
    style_set: StyleSet,
    folder: Path,
    export: Export[ModulesLearned],
    *,
    on_step: Callable[[StepReport], None] | None = None,
    on_item: Callable[[int, int], None] | None = None,
) -> TrainResult:
    """Train encoders on a labelled set, where they are and on their device.

    Where `folder` holds a state of this very run, it goes on from there, and ends, on the same
    machine, with the same bits as if it had never stopped. For that, `encoders` have to be the same
    as at its beginning. A run that is there in full is not made again, and then `encoders` stay as
    they are: what it learned is in its files.

    Args:
        folder: of this run; see `nsync.runs.folder`.
        export: called at the end, at a pause, or when the run stops early with something learned:
            with the trained tensors of the encoders under `ENCODERS`, and the steps.
        on_step: called after every step; whatever it raises stops the run.
        on_item: called while reading the set with (items done, items in all); may raise too.

    Raises:
        InputError: settings or set are not fit for training, or `folder` holds another run;
            nothing has been written.
        RunStoppedError: the numbers went bad; what was learned before is saved.
    """
    settings.check()
    check_words(encoders, [(item.name, item.caption) for item in style_set.items])
    check_before_pictures(folder, settings, base_config(settings, encoders))
    weights = [w for w in encoders.parameters() if w.requires_grad]
    # A state holds the weights and two moments of each; one is written before an old one goes.
    check_room(folder, sum(w.numel() for w in weights), 3 * (settings.keep_last + 1))
    warn_of_unknown_words(encoders, (item.caption for item in style_set.items))
    pairs = read_pairs(style_set, encoders.image_size, on_item)
    trained_on, held_out = split(pairs, settings.validation, settings.seed)
    if settings.validation and len(set(held_out.captions)) < 2:
        expected = "0, or pairs of at least two different captions, to be told apart"
        got = f"{settings.validation} with one caption"
        raise InputError("validation", expected, got, "Hold out more.")
    config = run_config(settings, encoders, pairs)
    # Cosines are bounded, so no loss here explodes; a small one that trembles is no alarm.
    run = Standing(folder, settings, config, headline="loss", watched=False)
    if result := run.result():
        return result

    read = reader(encoders, trained_on, in_parts=bool(settings.words), on_item=on_item)
    log, records = run.begin()
    watch = _Watch(on_step, CollapseWatch(labelled=settings.uses_labels), records)
    classifier = _classifier(settings, encoders, len(pairs.labels.names))
    modules = {ENCODERS: encoders} | ({CLASSIFIER: classifier} if classifier else {})
    weights = [w for module in modules.values() for w in module.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(weights, settings.learning_rate, weight_decay=_WEIGHT_DECAY)
    learner = ModuleLearner(modules, {"all": optimizer})
    run.load(learner)

    def validate() -> dict[str, float]:
        return measure(settings, encoders, held_out)

    validation = validate if settings.validation else None
    session = Session(
        settings, run.run, log, learner, export, run.begun, validation=validation, on_step=watch
    )
    session.look_at_the_start()
    with session.kept_if_stopped():
        for step in range(run.begun, settings.steps):
            with learner.attempt() as attempt:
                rows = draw_rows(trained_on.labels.tensor, settings.batch, settings.seed, step)
                seen = _losses(settings, read, classifier, trained_on, [*rows[0], *rows[1]])
                factor = settings.factor(step)
                seen["norm"] = learner.update("all", seen["loss"], factor, _CLIP_NORM)
                known = {"rate": settings.learning_rate * factor}
                attempt.good = session.readings.add(step + 1, seen, known)
            if session.after_step(step + 1):
                break
        files = session.exported()
    return session.finish(files)


def run_config(
    settings: PretrainSettings, encoders: Encoders, pairs: LabelledPairs
) -> dict[str, object]:
    """What a run was made of: settings, first encoders, set and versions, as JSON values."""
    versions = {"nsync": __version__, "torch": torch.__version__}
    return {
        **base_config(settings, encoders),
        "pictures": len(pairs),
        "labels": list(pairs.labels.names),
        "labelled": pairs.digest,
        "versions": versions | {"transformers": transformers.__version__},
    }


def base_config(settings: PretrainSettings, encoders: Encoders) -> dict[str, object]:
    """The same as far as it is known before any picture is read."""
    return {"kind": KIND, "settings": settings.as_dict(), "encoders": identity(encoders)}


@torch.no_grad()
def measure(
    settings: PretrainSettings, encoders: Encoders, pairs: LabelledPairs
) -> dict[str, float]:
    """The matching loss of pairs that were held out, and their R-precision both ways.

    The loss is that of all of them at once, with the mask of training.
    """
    images, texts = encode(encoders, pairs, 2 * settings.batch)
    spared = _spared(settings, pairs.labels.tensor, pairs.captions).to(images.device)
    loss = losses.matching(images, texts, spared, temperature=settings.temperature)
    found = retrieval(images, texts, pairs.captions, seed=settings.seed)
    return {
        VALIDATION: float(loss),
        TEXT_TO_IMAGE: found.text_to_image,
        IMAGE_TO_TEXT: found.image_to_text,
    }


@torch.no_grad()
def encode(encoders: Encoders, pairs: LabelledPairs, batch: int) -> tuple[Tensor, Tensor]:
    """Features of pictures and captions as wholes, each `[n, d]`, so many at a time."""
    device, images, texts = device_of(encoders), [], []
    for start in range(0, len(pairs), batch):
        rows = range(start, min(start + batch, len(pairs)))
        images.append(encoders.images(pairs.pixels(rows).to(device)).whole)
        texts.append(encoders.texts(pairs.texts(rows)).sentence)
    return torch.cat(images), torch.cat(texts)


def _classifier(settings: PretrainSettings, encoders: Encoders, classes: int) -> nn.Module | None:
    """What says the label of a feature, be it of a picture or of a text; thrown away at the end."""
    if settings.contrast != CLASSIFIER:
        return None
    with seeded(settings.seed, "classifier"):
        return nn.Linear(encoders.width, classes).to(device_of(encoders))


def _losses(
    settings: PretrainSettings,
    read: Reader,
    classifier: nn.Module | None,
    pairs: LabelledPairs,
    rows: list[int],
) -> dict[str, Tensor]:
    """The loss of a step as "loss", and its parts, all on the device and without dimensions.

    Args:
        rows: of branch 1, then as many of branch 2. Both go through the encoders together.
    """
    images, regions = read.images(rows)
    texts, words, mask = read.texts(rows)
    device, captions = images.device, pairs.texts(rows)
    labels = pairs.labels.rows(rows).to(device)
    spared = _spared(settings, labels, captions).to(device)
    branches = zip(*(part.chunk(2) for part in (images, texts, spared)), strict=True)
    at = settings.temperature
    matching = sum(losses.matching(*each, temperature=at) for each in branches) / 2
    told = inside(images, texts, labels, captions, at)
    labelled, parts = contrast(
        settings.contrast, images, texts, labels,
        weights=settings.weights, temperature=settings.contrast_temperature,
        classifier=classifier,
    )  # fmt: skip
    total = settings.matching * matching + labelled
    if settings.words:
        looked_at = (part.chunk(2) for part in (regions, words, mask, spared))
        each = [word_matching(*one, gamma3=1 / at) for one in zip(*looked_at, strict=True)]
        parts["words"] = sum(each) / 2
        total = total + settings.words * parts["words"]
    named = {f"loss_{name}": value for name, value in parts.items()}
    return {"loss": total, "loss_matching": matching} | named | told


def _spared(settings: PretrainSettings, labels: Tensor, captions: Sequence[str]) -> Tensor:
    """What tells which items are no wrong answers in matching."""
    return labels if settings.class_mask else numbered(captions)


class _Watch:
    """Passes on what a step tells, with a warning when what is inside a label comes together.

    Args:
        records: of the log, of earlier parts of the run.
    """

    def __init__(
        self,
        on_step: Callable[[StepReport], None] | None,
        watch: CollapseWatch,
        records: Iterable[Mapping[str, float]],
    ) -> None:
        self._on_step, self._watch = on_step, watch
        self._seen = 0
        for record in records:
            self._watch.see(record)

    def __call__(self, report: StepReport) -> None:
        new, self._seen = bool(report.values) and report.read > self._seen, report.read
        if new and (warning := self._watch.see(report.values)):
            logger.warning("Step %d: %s", report.step, warning)
            report = replace(report, warning=report.warning or warning)
        if self._on_step:
            self._on_step(report)

"""The training loop of text-to-image GANs: one function, read from top to bottom."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ... import __version__
from ...checkpoint import check_room
from ...draws import seeded
from ...errors import InputError
from ...identity import feed_tensors
from ...runs.parts import Export, StepReport, TrainResult, Watch
from ...runs.session import Session
from ...runs.standing import Standing, check_before_pictures
from ..contrast import CLASSIFIER
from ..encoders import (
    Encoders,
    check_words,
    device_of,
    identity,
    warn_of_unknown_words,
)
from ..learner import ModuleLearner, ModulesLearned
from ..pairs import LabelledPairs
from .averaging import Average
from .batches import draw_sides, encode_pairs
from .contract import Family, Networks
from .model_file import describe
from .settings import GanSettings
from .steps import classifier_loss, discriminator_loss, generator_loss, paint

KIND = "a text-to-image GAN"
GENERATOR, DISCRIMINATORS = "generator", "discriminators"

Preview = Callable[[int, nn.Module], None]
"""Given the steps done and the average of the generator, in eval mode."""


def train(
    settings: GanSettings,
    family: Family,
    encoders: Encoders,
    pairs: LabelledPairs,
    folder: Path,
    export: Export[ModulesLearned],
    *,
    vision: nn.Module | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_item: Callable[[int, int], None] | None = None,
    preview: Preview | None = None,
    watch: Watch[ModulesLearned] | None = None,
) -> TrainResult:
    """Teach a generator to paint the captions of labelled pairs; the encoders stay as they are.

    Everything is computed on the encoders' device, in float32. Where `folder` holds a state of this
    very run, it goes on from there, and ends, on the same machine, with the same bits as if it had
    never stopped. A run that is there in full is not made again.

    Args:
        encoders: in eval mode, and frozen, or memory is kept for gradients that nobody takes.
        pairs: of the family's `image_size`.
        folder: of this run; see `nsync.runs.folder`.
        export: called at the end, at a pause, or when the run stops early with something learned.
        vision: see `Family.needs_vision`.
        on_step: called after every step; whatever it raises stops the run.
        on_item: called while encoding with (items done, items in all); may raise too.
        preview: called at the start, every `preview_every` steps and at the end. Its failures are
            logged and forgotten.
        watch: scores at the start, every `score_every` steps and at the end, likewise; it may end
            the run before its last step.

    Raises:
        InputError: settings, encoders or pairs are not fit for training, or `folder` holds another
            run; nothing has been written.
        RunStoppedError: the numbers went bad; what was learned before is saved.
    """
    # Everything that can be judged before the work is judged here.
    settings.check()
    check_fit(family, encoders, pairs)
    check_penalties(settings, family)
    warn_of_unknown_words(encoders, pairs.captions)
    config = run_config(settings, family, encoders, pairs, vision)
    run = Standing(folder, settings, config, headline="loss_g", watched=False)
    if result := run.result():
        return result
    networks, head = first_networks(settings, family, encoders, pairs, vision)

    check_states_room(settings, networks, folder)

    # Pictures and captions are encoded once.
    encoded = encode_pairs(pairs, encoders, on_item)
    log, records = run.begin()
    if watch:
        watch.begin(records)

    # The networks with all that their training remembers.
    device = device_of(encoders)
    generator, discriminators = (network.to(device) for network in networks)
    average = Average(generator, settings.ema)
    learner = _learner(settings, generator, discriminators, head, average)
    run.load(learner)

    session = Session(
        settings,
        run.run,
        log,
        learner,
        export,
        run.begun,
        on_step=on_step,
        preview=preview and (lambda done: preview(done, average.network)),
        watch=watch,
    )
    session.look_at_the_start()
    with session.kept_if_stopped():
        for step in range(run.begun, settings.steps):
            factor = settings.factor(step)
            sides = draw_sides(encoded, settings, generator.noise, step, device)
            with learner.attempt() as attempt:
                # Painted once, for both.
                painted = paint(generator, sides)

                # The discriminators, and what learns real pictures beside them.
                asked = discriminator_loss(
                    settings, discriminators, sides, painted, step, alone=family.judges_alone
                )
                norms = {"norm_d": learner.update(DISCRIMINATORS, asked["loss_d"], factor)}
                if head:
                    asked[CLASSIFIER] = classifier_loss(head, sides)
                    learner.update(CLASSIFIER, asked[CLASSIFIER], factor)

                # The generator, by what came of them.
                wanted = generator_loss(
                    settings, discriminators, encoders, sides, painted, step, head,
                    alone=family.judges_alone,
                )  # fmt: skip
                norms["norm_g"] = learner.update(GENERATOR, wanted["loss_g"], factor)
                average.update(generator)

                # Where a number is not finite, nothing of this has happened.
                told = {name: value.detach() for name, value in (asked | wanted | norms).items()}
                rates = {"rate": settings.generator_rate * factor}
                attempt.good = session.readings.add(step + 1, told, rates)

            # Told, looked at, saved. Whoever is told may stop the run by raising.
            if session.after_step(step + 1):
                break
        files = session.exported()
    return session.finish(files)


def check_before_reading(
    settings: GanSettings,
    family: Family,
    encoders: Encoders,
    folder: Path,
    vision: nn.Module | None = None,
) -> Networks:
    """Judge what can be judged before a picture is read; untrained networks of the family.

    Raises:
        InputError: `folder` holds another run, or its disk has no room for the states.
    """
    check_before_pictures(folder, settings, base_config(settings, family, encoders, vision))
    with seeded(settings.seed, "networks"):
        networks = family.build(vision)
    check_states_room(settings, networks, folder)
    return networks


def check_states_room(settings: GanSettings, networks: Networks, folder: Path) -> None:
    """Raise `InputError` if the disk of `folder` has no room for the states of a run."""
    generator, discriminators = (count_weights(network) for network in networks)
    # Weights and two moments of each, and the generator's average.
    check_room(folder, 4 * generator + 3 * discriminators, settings.keep_last + 1)


def count_weights(network: nn.Module) -> int:
    """Numbers that a file of the network holds."""
    return sum(tensor.numel() for tensor in network.state_dict().values())


def check_fit(family: Family, encoders: Encoders, pairs: LabelledPairs) -> None:
    """Raise `InputError` where family, encoders and pairs do not go together."""
    family.check()
    if family.text_width != encoders.width:
        expected = f"encoders of the width {family.text_width}, as the family's `text_width`"
        remedy = "Set `text_width` to theirs."
        raise InputError("encoders", expected, f"of {encoders.width}", remedy)
    side = pairs.pictures.shape[-1]
    if side != family.image_size:
        expected = f"pictures of {family.image_size} px, as the family paints"
        raise InputError("pairs", expected, f"{side} px")
    check_words(encoders, list(zip(pairs.names, pairs.captions, strict=True)))


def check_penalties(settings: GanSettings, family: Family) -> None:
    """Raise `InputError` for a gradient penalty where a picture's score depends on others."""
    if family.judges_alone:
        return
    for name in ("penalty_weight", "r1_gamma"):
        if given := getattr(settings, name):
            rule = "0: this family's discriminators judge a batch together, not each picture"
            raise InputError(name, rule, repr(given))


def first_networks(
    settings: GanSettings,
    family: Family,
    encoders: Encoders,
    pairs: LabelledPairs,
    vision: nn.Module | None = None,
) -> tuple[Networks, nn.Linear | None]:
    """The networks that a new run starts from, from the seed alone, and the classifier, if any."""
    with seeded(settings.seed, "networks"):
        networks = family.build(vision)
        classes = len(pairs.labels.names)
        head = nn.Linear(encoders.width, classes) if settings.contrast == CLASSIFIER else None
    return networks, head.to(device_of(encoders)) if head else None


def run_config(
    settings: GanSettings,
    family: Family,
    encoders: Encoders,
    pairs: LabelledPairs,
    vision: nn.Module | None = None,
) -> dict[str, object]:
    """What a run was made of: settings, networks, encoders, set and versions, as JSON values."""
    return {
        **base_config(settings, family, encoders, vision),
        "labelled": pairs.digest,
        "pictures": len(pairs),
        "labels": list(pairs.labels.names),
        "versions": {"nsync": __version__, "torch": torch.__version__},
    }


def base_config(
    settings: GanSettings, family: Family, encoders: Encoders, vision: nn.Module | None = None
) -> dict[str, object]:
    """The same as far as it is known before any picture is read."""
    return {
        "kind": KIND,
        "settings": settings.as_dict(),
        "family": describe(family),
        "encoders": identity(encoders),
        "base": _digest(vision) if family.needs_vision and vision else "",
    }


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    feed_tensors(digest, network.state_dict())
    return digest.hexdigest()


def _learner(
    settings: GanSettings,
    generator: nn.Module,
    discriminators: nn.Module,
    head: nn.Module | None,
    average: Average,
) -> ModuleLearner:
    modules = {GENERATOR: generator, DISCRIMINATORS: discriminators}
    modules |= {CLASSIFIER: head} if head else {}
    optimizers = {
        name: torch.optim.Adam(
            module.parameters(),
            lr=settings.generator_rate if name == GENERATOR else settings.discriminator_rate,
            betas=(settings.beta1, settings.beta2),
        )
        for name, module in modules.items()
    }
    return ModuleLearner(modules, optimizers, average)

"""What the branches see: pictures and words encoded once, and who is drawn at which step."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .branches import Batch
from .denoiser import Denoiser
from .draws import generator
from .errors import InputError
from .processes import ONE, Processes
from .prompts import Prompts
from .rules import denies_style, needs_anchor, needs_negative
from .sets.labels import check_anchors, check_others
from .settings import TrainSettings
from .style_set import StyleItem, StyleSet, check_prompts, check_token


@dataclass(frozen=True)
class EncodedSet:
    """A style set as a model sees it, in main memory.

    Attributes:
        names: of the items that are trained on; those of `held_out` are not among them.
        positives: latents `[c, h, w]` by item.
        negatives: latents of each item's painted negatives; empty where none are asked for.
        texts: the items' prompts.
        negative_texts: the prompts that the negatives are trained with.
        held_out: (name, latents, prompt) of the pictures for validation.
        labels: of the items; nothing stands for one label.
        others: latents of all pictures of other labels, in each item's size; nothing where none
            are asked for.
    """

    names: tuple[str, ...]
    positives: tuple[Tensor, ...]
    negatives: tuple[tuple[Tensor, ...], ...]
    texts: tuple[str, ...]
    negative_texts: tuple[str, ...]
    held_out: tuple[tuple[str, Tensor, str], ...] = ()
    labels: tuple[str, ...] = ()
    others: tuple[tuple[Tensor, ...], ...] = ()

    def prompts(self, denoiser: Denoiser, settings: TrainSettings) -> Prompts:
        """All prompts that a run by these settings may ask for, ready to be asked."""
        texts = [*self.texts, *self.negative_texts, *(text for *_, text in self.held_out)]
        texts += [""] if settings.caption_dropout else []
        return Prompts(denoiser, texts, settings.trains_text)


def check_set(settings: TrainSettings, denoiser: Denoiser, style_set: StyleSet) -> None:
    """Raise `InputError` where the set cannot be trained by these settings; reads no picture."""
    if not len(style_set):
        raise InputError("style_set", "at least one picture", "an empty set")
    if settings.uses_others:
        check_others(style_set)
    if settings.uses_painted and not style_set.has_negatives:
        raise InputError(
            "style_set",
            f"a set with negatives, which rule '{settings.rule}' needs",
            "a set without",
            "Put a Negative Set Generator before the trainer, or choose the rule 'plain'.",
        )
    if settings.uses_painted and style_set.base != denoiser.identity:
        raise InputError(
            "style_set",
            f"negatives painted by the model that is trained ({denoiser.identity[:12]})",
            f"negatives painted by another ({style_set.base[:12] or 'unknown'})",
            "Give the Negative Set Generator the same model and run it again.",
        )
    left = _trained_on(settings, style_set)
    if settings.validation and len(left) < 2:
        expected = "fewer held-out pictures, so that at least two of the set are trained on"
        raise InputError("validation", expected, f"{settings.validation} of {len(style_set)}")
    check_anchors(settings, [item.label for item in left])
    check_prompts(denoiser, style_set)
    if settings.trains_embedding:
        check_token(style_set)


def _trained_on(settings: TrainSettings, style_set: StyleSet) -> list[StyleItem]:
    held = held_out(style_set, settings)
    return [item for item in style_set.items if item.name not in held]


def encode_set(
    settings: TrainSettings,
    denoiser: Denoiser,
    style_set: StyleSet,
    on_item: Callable[[int, int], None] | None = None,
) -> EncodedSet:
    """Encode pictures and words once.

    Args:
        on_item: called with (items done, items in all) after each item; may raise to stop.

    Raises:
        InputError: a picture's latents are not finite; it is named.
    """
    multiple, trained = denoiser.size_multiple, _trained_on(settings, style_set)
    sizes = {item.name: style_set.size(item, multiple) for item in trained}
    wanted = list(dict.fromkeys(sizes.values())) if settings.uses_others else []
    total, done = len(style_set) + len(wanted) * len(style_set.others), itertools.count(1)

    def told() -> None:
        if on_item:
            on_item(next(done), total)

    positives, negatives = {}, {}
    for item in style_set.items:
        picture = style_set.positive(item, multiple)
        positives[item.name] = _latents(denoiser, picture, item.name)
        if item.name in sizes:
            negatives[item.name] = _negatives(settings, denoiser, style_set, item)
        told()
    others = {size: _others(denoiser, style_set, size, told) for size in wanted}
    texts = {item.name: style_set.prompt(item) for item in style_set.items}
    denied = denies_style(settings.rule)
    return EncodedSet(
        names=tuple(sizes),
        positives=tuple(positives[name] for name in sizes),
        negatives=tuple(negatives.values()),
        texts=tuple(texts[name] for name in sizes),
        negative_texts=tuple(
            denial(style_set, item) if denied else texts[item.name] for item in trained
        ),
        held_out=tuple(
            (name, value, texts[name]) for name, value in positives.items() if name not in sizes
        ),
        labels=tuple(item.label for item in trained),
        others=tuple(others[size] for size in sizes.values()) if others else (),
    )


def held_out(style_set: StyleSet, settings: TrainSettings) -> frozenset[str]:
    """Names of the items that are kept for validation: drawn by the seed, as many as asked for."""
    order = torch.randperm(len(style_set), generator=generator(settings.seed, "held out"))
    items = [style_set.items[int(place)] for place in order[: settings.validation]]
    return frozenset(item.name for item in items)


def _negatives(
    settings: TrainSettings, denoiser: Denoiser, style_set: StyleSet, item: StyleItem
) -> tuple[Tensor, ...]:
    count = len(item.negatives) if settings.uses_painted else 0
    return tuple(
        _latents(
            denoiser,
            style_set.negative(item, place, denoiser.size_multiple),
            str(item.negatives[place]),
        )
        for place in range(count)
    )


def _others(
    denoiser: Denoiser, style_set: StyleSet, size: tuple[int, int], told: Callable[[], None]
) -> tuple[Tensor, ...]:
    found = []
    for place, item in enumerate(style_set.others):
        found.append(_latents(denoiser, style_set.other(place, size), item.name))
        told()
    return tuple(found)


def denial(style_set: StyleSet, item: StyleItem) -> str:
    """The prompt of a negative under the rule `mean`: "<caption> not in the style of <token>".

    As versions v5.0 and v5.1 of the authors' code caption it; a template without "in the style
    of" gets its "not" before the token.
    """
    phrase = "in the style of {token}"
    if phrase in style_set.template:
        template = style_set.template.replace(phrase, f"not {phrase}")
        return template.format(caption=item.caption, token=style_set.token)
    return style_set.prompt(item, f"not {style_set.token}")


def draw_batches(
    encoded: EncodedSet, settings: TrainSettings, step: int, processes: Processes = ONE
) -> dict[str, Batch]:
    """The branches' batches of update `step` (0-based), from the seed alone.

    Who is in a batch, and with which noise, does not depend on the processes; each draws its share.

    Positives come in a new order every epoch, each once. A negative is one that was painted for its
    positive, or any picture of another label; an anchor is any other positive of its positive's
    label. Only the branches that the rule needs are made.
    """
    count, size = len(encoded.names), settings.batch * settings.accumulate
    rows = _in_order(settings.seed, step * size, size, count)
    rest = encoded, settings, step, processes
    batches = {"positive": _batch("positive", rows, encoded.positives, *rest)}
    if needs_negative(settings.rule):
        mine = processes.mine(rows)
        pictures = {row: _negative(encoded, row, settings.seed, step) for row in mine}
        batches["negative"] = _batch("negative", rows, pictures, *rest)
    if needs_anchor(settings.rule):
        anchors = [
            _another(row, encoded.labels or [""] * count, settings.seed, step, place)
            for place, row in enumerate(rows)
        ]
        batches["anchor"] = _batch("anchor", anchors, encoded.positives, *rest)
    return batches


def _batch(
    branch: str,
    rows: Sequence[int],
    pictures: Sequence[Tensor] | Mapping[int, Tensor],
    encoded: EncodedSet,
    settings: TrainSettings,
    step: int,
    processes: Processes,
) -> Batch:
    noise_of = "positive" if branch == "negative" and settings.shared_noise else branch
    words_of = "positive" if branch == "negative" else branch  # dropped together or not at all
    texts = encoded.negative_texts if branch == "negative" else encoded.texts
    noise, times, prompts = [], [], []
    mine = processes.mine(rows)
    for place, row in processes.mine(list(enumerate(rows))):
        again = rows[:place].count(row)  # an item twice in a batch gets noise of its own
        drawn = generator(settings.seed, step, noise_of, encoded.names[row], again)
        times.append(draw_time(settings.times, drawn))
        noise.append(draw_noise(pictures[row].shape, settings.noise_offset, drawn))
        kept = generator(settings.seed, step, "words", words_of, encoded.names[row], again)
        dropped = float(torch.rand((), generator=kept)) < settings.caption_dropout
        prompts.append("" if dropped else texts[row])
    return Batch(
        names=tuple(encoded.names[row] for row in rows),
        latents=tuple(pictures[row] for row in mine),
        prompts=tuple(prompts),
        noise=tuple(noise),
        times=torch.stack(times),
    )


def draw_time(distribution: str, drawn: torch.Generator) -> Tensor:
    """A time in 0..1, float32, no dimensions; see `TrainSettings.times`."""
    if distribution == "logit-normal":
        return torch.randn((), generator=drawn).sigmoid()
    uniform = torch.rand((), generator=drawn)
    return uniform**3 if distribution == "early" else uniform


def draw_noise(shape: torch.Size, offset: float, drawn: torch.Generator) -> Tensor:
    """Standard normal noise `[c, ...]`, with a constant per channel of deviation `offset`."""
    noise = torch.randn(shape, generator=drawn)
    if offset:
        noise += offset * torch.randn((shape[0], *[1] * len(shape[1:])), generator=drawn)
    return noise


def _in_order(seed: int, start: int, size: int, count: int) -> list[int]:
    """`size` rows from place `start` on, of epochs of `count` one after the other."""
    epochs = range(start // count, (start + size - 1) // count + 1)
    orders = [torch.randperm(count, generator=generator(seed, "order", e)) for e in epochs]
    first = start - epochs.start * count
    return torch.cat(orders)[first : first + size].tolist()


def _negative(encoded: EncodedSet, row: int, seed: int, step: int) -> Tensor:
    """A painted negative or a picture of another label; where there are both, either half the time.

    Drawn from all of them together, a painted one would hardly come among hundreds of others.
    """
    name, painted = encoded.names[row], encoded.negatives[row]
    others = encoded.others[row] if encoded.others else ()
    if painted and others:
        heads = torch.rand((), generator=generator(seed, step, "whose negative", name)) < 0.5
        return _pick(painted if heads else others, seed, step, name)
    return _pick(painted or others, seed, step, name)


def _pick(pictures: Sequence[Tensor], seed: int, step: int, name: str) -> Tensor:
    drawn = generator(seed, step, "which negative", name)
    return pictures[int(torch.randint(len(pictures), (), generator=drawn))]


def _another(row: int, labels: Sequence[str], seed: int, step: int, place: int) -> int:
    kin = [other for other, label in enumerate(labels) if label == labels[row]]
    drawn = generator(seed, step, "which anchor", place)
    step_on = 1 + int(torch.randint(len(kin) - 1, (), generator=drawn))
    return kin[(kin.index(row) + step_on) % len(kin)]


def _latents(denoiser: Denoiser, pixels: Tensor, name: str) -> Tensor:
    latents = denoiser.encode_images(pixels[None])[0].detach().float().cpu().clone()
    if not latents.isfinite().all():
        raise InputError(
            name,
            "a picture whose latents are finite numbers",
            "NaN or infinity from the VAE",
            "Use a VAE that runs in fp32 or bf16, or take the picture out of the set.",
        )
    return latents

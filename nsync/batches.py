"""What the branches see: pictures and words encoded once, and who is drawn at which step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .branches import Batch
from .denoiser import Denoiser
from .draws import generator
from .errors import InputError
from .prompts import Prompts
from .rules import denies_style, needs_anchor, needs_negative
from .settings import TrainSettings
from .style_set import StyleItem, StyleSet, check_prompts


@dataclass(frozen=True)
class EncodedSet:
    """A style set as a model sees it, in main memory.

    Attributes:
        names: of the items that are trained on; those of `held_out` are not among them.
        positives: latents `[c, h, w]` by item.
        negatives: latents of each item's negatives; empty where the rule needs none.
        texts: the items' prompts.
        negative_texts: the prompts that the negatives are trained with.
        held_out: (name, latents, prompt) of the pictures for validation.
    """

    names: tuple[str, ...]
    positives: tuple[Tensor, ...]
    negatives: tuple[tuple[Tensor, ...], ...]
    texts: tuple[str, ...]
    negative_texts: tuple[str, ...]
    held_out: tuple[tuple[str, Tensor, str], ...] = ()

    def prompts(self, denoiser: Denoiser, settings: TrainSettings) -> Prompts:
        """All prompts that a run by these settings may ask for, ready to be asked."""
        texts = [*self.texts, *self.negative_texts, *(text for *_, text in self.held_out)]
        texts += [""] if settings.caption_dropout else []
        return Prompts(denoiser, texts, settings.trains_text)


def check_set(settings: TrainSettings, denoiser: Denoiser, style_set: StyleSet) -> None:
    """Raise `InputError` where the set cannot be trained by these settings; reads no picture."""
    rule = settings.rule
    if not len(style_set):
        raise InputError("style_set", "at least one picture", "an empty set")
    if needs_negative(rule) and not style_set.has_negatives:
        raise InputError(
            "style_set",
            f"a set with negatives, which rule '{rule}' needs",
            "a set without",
            "Put a Negative Set Generator before the trainer, or choose the rule 'plain'.",
        )
    if needs_negative(rule) and style_set.base != denoiser.identity:
        raise InputError(
            "style_set",
            f"negatives painted by the model that is trained ({denoiser.identity[:12]})",
            f"negatives painted by another ({style_set.base[:12] or 'unknown'})",
            "Give the Negative Set Generator the same model and run it again.",
        )
    _check_count(settings, len(style_set))
    check_prompts(denoiser, style_set)


def _check_count(settings: TrainSettings, count: int) -> None:
    left = count - settings.validation
    if settings.validation and left < 2:
        expected = "fewer held-out pictures, so that at least two of the set are trained on"
        raise InputError("validation", expected, f"{settings.validation} of {count}")
    if needs_anchor(settings.rule) and left < 2:
        raise InputError(
            "style_set",
            f"at least two positives, since an anchor of rule '{settings.rule}' is another "
            "positive",
            "one",
            "Add a picture, or choose the rule 'projection'.",
        )


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
    held = held_out(style_set, settings)
    positives, negatives, latents = {}, {}, {}
    for done, item in enumerate(style_set.items, start=1):
        picture = style_set.positive(item, denoiser.size_multiple)
        if item.name in held:
            latents[item.name] = _latents(denoiser, picture, item.name)
        else:
            positives[item.name] = _latents(denoiser, picture, item.name)
            negatives[item.name] = _negatives(settings, denoiser, style_set, item)
        if on_item:
            on_item(done, len(style_set))
    items = {item.name: item for item in style_set.items}
    texts = {name: style_set.prompt(item) for name, item in items.items()}
    denied = denies_style(settings.rule)
    return EncodedSet(
        names=tuple(positives),
        positives=tuple(positives.values()),
        negatives=tuple(negatives.values()),
        texts=tuple(texts[name] for name in positives),
        negative_texts=tuple(
            denial(style_set, items[name]) if denied else texts[name] for name in positives
        ),
        held_out=tuple((name, value, texts[name]) for name, value in latents.items()),
    )


def held_out(style_set: StyleSet, settings: TrainSettings) -> frozenset[str]:
    """Names of the items that are kept for validation: drawn by the seed, as many as asked for."""
    order = torch.randperm(len(style_set), generator=generator(settings.seed, "held out"))
    items = [style_set.items[int(place)] for place in order[: settings.validation]]
    return frozenset(item.name for item in items)


def _negatives(
    settings: TrainSettings, denoiser: Denoiser, style_set: StyleSet, item: StyleItem
) -> tuple[Tensor, ...]:
    count = len(item.negatives) if needs_negative(settings.rule) else 0
    return tuple(
        _latents(
            denoiser,
            style_set.negative(item, place, denoiser.size_multiple),
            str(item.negatives[place]),
        )
        for place in range(count)
    )


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


def draw_batches(encoded: EncodedSet, settings: TrainSettings, step: int) -> dict[str, Batch]:
    """The branches' batches of update `step` (0-based), from the seed alone.

    Positives come in a new order every epoch, each once. A negative is one of its positive's; an
    anchor is any other positive. Only the branches that the rule needs are made.
    """
    count, size = len(encoded.names), settings.batch * settings.accumulate
    rows = [_in_order(settings.seed, step * size + place, count) for place in range(size)]
    batches = {"positive": _batch("positive", rows, encoded.positives, encoded, settings, step)}
    if needs_negative(settings.rule):
        pictures = {
            row: _pick(encoded.negatives[row], settings.seed, step, encoded.names[row])
            for row in rows
        }
        batches["negative"] = _batch("negative", rows, pictures, encoded, settings, step)
    if needs_anchor(settings.rule):
        others = [
            _another(row, count, settings.seed, step, place) for place, row in enumerate(rows)
        ]
        batches["anchor"] = _batch("anchor", others, encoded.positives, encoded, settings, step)
    return batches


def _batch(
    branch: str,
    rows: Sequence[int],
    pictures: Sequence[Tensor] | Mapping[int, Tensor],
    encoded: EncodedSet,
    settings: TrainSettings,
    step: int,
) -> Batch:
    noise_of = "positive" if branch == "negative" and settings.shared_noise else branch
    words_of = "positive" if branch == "negative" else branch  # dropped together or not at all
    texts = encoded.negative_texts if branch == "negative" else encoded.texts
    noise, times, prompts = [], [], []
    for place, row in enumerate(rows):
        again = rows[:place].count(row)  # an item twice in a batch gets noise of its own
        drawn = generator(settings.seed, step, noise_of, encoded.names[row], again)
        times.append(draw_time(settings.times, drawn))
        noise.append(draw_noise(pictures[row].shape, settings.noise_offset, drawn))
        kept = generator(settings.seed, step, "words", words_of, encoded.names[row], again)
        dropped = float(torch.rand((), generator=kept)) < settings.caption_dropout
        prompts.append("" if dropped else texts[row])
    return Batch(
        names=tuple(encoded.names[row] for row in rows),
        latents=tuple(pictures[row] for row in rows),
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
    """Standard normal noise `[c, h, w]`, with a constant per channel of deviation `offset`."""
    noise = torch.randn(shape, generator=drawn)
    if offset:
        noise += offset * torch.randn((shape[0], 1, 1), generator=drawn)
    return noise


def _in_order(seed: int, place: int, count: int) -> int:
    epoch, position = divmod(place, count)
    return int(torch.randperm(count, generator=generator(seed, "order", epoch))[position])


def _pick(pictures: Sequence[Tensor], seed: int, step: int, name: str) -> Tensor:
    drawn = generator(seed, step, "which negative", name)
    return pictures[int(torch.randint(len(pictures), (), generator=drawn))]


def _another(row: int, count: int, seed: int, step: int, place: int) -> int:
    drawn = generator(seed, step, "which anchor", place)
    return (row + 1 + int(torch.randint(count - 1, (), generator=drawn))) % count


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

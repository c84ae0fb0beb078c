"""What the branches see: pictures and words encoded once, and who is drawn at which step."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .branches import Batch
from .denoiser import Conditioning, Denoiser, take
from .draws import generator
from .errors import InputError
from .rules import denies_style, needs_anchor, needs_negative
from .settings import TrainSettings
from .style_set import StyleItem, StyleSet, check_prompts


@dataclass(frozen=True)
class EncodedSet:
    """A style set as a model sees it, in main memory.

    Attributes:
        names: of the items.
        positives: latents `[c, h, w]` by item.
        negatives: latents of each item's negatives; empty where the rule needs none.
        prompts: conditioning of the items' prompts, one row each.
        negative_prompts: conditioning that the negatives are trained with, one row an item.
    """

    names: tuple[str, ...]
    positives: tuple[Tensor, ...]
    negatives: tuple[tuple[Tensor, ...], ...]
    prompts: Conditioning
    negative_prompts: Conditioning


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
    if needs_anchor(rule) and len(style_set) < 2:
        raise InputError(
            "style_set",
            f"at least two positives, since an anchor of rule '{rule}' is another positive",
            "one",
            "Add a picture, or choose the rule 'projection'.",
        )
    check_prompts(denoiser, style_set)


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
    multiple = denoiser.size_multiple
    positives, negatives = [], []
    for done, item in enumerate(style_set.items, start=1):
        positives.append(_latents(denoiser, style_set.positive(item, multiple), item.name))
        count = len(item.negatives) if needs_negative(settings.rule) else 0
        negatives.append(
            tuple(
                _latents(denoiser, style_set.negative(item, i, multiple), str(item.negatives[i]))
                for i in range(count)
            )
        )
        if on_item:
            on_item(done, len(style_set))
    prompts = _encode(denoiser, [style_set.prompt(item) for item in style_set.items])
    denied = denies_style(settings.rule)
    words = [denial(style_set, item) for item in style_set.items] if denied else []
    return EncodedSet(
        names=tuple(item.name for item in style_set.items),
        positives=tuple(positives),
        negatives=tuple(negatives),
        prompts=prompts,
        negative_prompts=_encode(denoiser, words) if denied else prompts,
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
    count = len(encoded.names)
    rows = [
        _in_order(settings.seed, step * settings.batch + i, count) for i in range(settings.batch)
    ]
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
    source = "positive" if branch == "negative" and settings.shared_noise else branch
    latents, noise, times = [], [], []
    for place, row in enumerate(rows):
        again = rows[:place].count(row)  # an item twice in a batch gets noise of its own
        drawn = generator(settings.seed, step, source, encoded.names[row], again)
        times.append(torch.rand((), generator=drawn))
        noise.append(torch.randn(pictures[row].shape, generator=drawn))
        latents.append(pictures[row])
    return Batch(
        names=tuple(encoded.names[row] for row in rows),
        latents=tuple(latents),
        conditioning=take(
            encoded.negative_prompts if branch == "negative" else encoded.prompts, rows
        ),
        noise=tuple(noise),
        times=torch.stack(times),
    )


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


def _encode(denoiser: Denoiser, texts: list[str]) -> dict[str, Tensor]:
    return {k: v.detach().clone().cpu() for k, v in denoiser.encode_prompts(texts).items()}

"""The negative set: the base's own pictures of the same captions, in a generic style.

Which pictures those are follows from the style set and the settings alone; each is made once. They
are kept in a folder with a manifest, each under a name of its own request, so that another request
(a changed caption, another base, another seed) never overwrites or borrows a picture.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from .denoiser import Denoiser, SamplerSettings
from .draws import derive_seed, generator
from .errors import InputError
from .memory import pictures_at_once
from .processes import ONE, Processes
from .runs.judgements import at_least, judge
from .sets.negative_store import NegativeStore, Request
from .style_set import StyleItem, StyleSet, check_template, too_long
from .words import contains_word, standing_alone

logger = logging.getLogger(__name__)

GENERIC_WORDS = ("painting", "illustration", "animation")
NEGATIVE_TEMPLATE = "{caption} in the style of {word}"

BATCH_MOST = 16
"""Drawn together: up to so many pictures. An interrupt loses these."""


@dataclass(frozen=True)
class NegativeSettings:
    """How negatives are made; `check` is the only place that judges it, but for the sampler.

    Attributes:
        words: generic words; each item draws one of them, further negatives of it take the next.
        template: the prompt; has `{caption}` and `{word}`.
        per_positive: negatives of each item.
        sampler: steps, guidance, sampler and scheduler.
        from_positive: start from the positive's own latent and keep its composition, instead of
            from pure noise (the paper's way).
        denoise: how much of the positive is drawn anew, above 0, up to 1; from noise it is 1.
        seed: words and noise are derived from it, item by item.
    """

    words: tuple[str, ...] = GENERIC_WORDS
    template: str = NEGATIVE_TEMPLATE
    per_positive: int = 1
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    from_positive: bool = False
    denoise: float = 0.6
    seed: int = 0

    def check(self, token: str) -> None:
        """Raise `InputError` for a setting out of its range, or a word that is the style's own."""
        if not self.words:
            raise InputError("generic_words", "at least one word", "none")
        for word in self.words:
            if contains_word(word, token):
                remedy = "A negative must not ask for the style itself."
                raise InputError("generic_words", f"words other than {token!r}", repr(word), remedy)
        check_template("template", self.template, "caption", "word")
        if contains_word(self.template, token):
            rule = f"a text without the style's own word {token!r}"
            raise InputError("template", rule, repr(self.template), "Write {word} for it.")
        judge([at_least(self, "per_positive", 1)])
        if self.from_positive and not 0 < self.denoise <= 1:
            raise InputError("denoise", "above 0, up to 1", repr(self.denoise))

    def word(self, item: StyleItem, index: int) -> str:
        """The generic word of negative `index` of an item."""
        drawn = generator(self.seed, "generic word", item.name)
        first = int(torch.randint(len(self.words), (), generator=drawn))
        return self.words[(first + index) % len(self.words)]

    def prompt(self, style_set: StyleSet, item: StyleItem, index: int) -> str:
        """The negative prompt: the caption in a generic style, without the style token."""
        word = self.word(item, index)
        caption = standing_alone(style_set.token).sub(lambda _: word, item.caption)
        return self.template.format(caption=caption, word=word)


def plan(settings: NegativeSettings, denoiser: Denoiser, style_set: StyleSet) -> list[Request]:
    """The negatives that settings and set ask for, item by item.

    Raises:
        InputError: settings out of range, an empty set, or prompts that are cut off.
    """
    settings.check(style_set.token)
    judge(settings.sampler.judgements())
    if not len(style_set):
        raise InputError("style_set", "at least one picture", "an empty set")
    requests = [
        Request(
            item, index, _facts(settings, denoiser, style_set, item, index), denoiser.companions
        )
        for item in style_set.items
        for index in range(settings.per_positive)
    ]
    _check_lengths(denoiser, requests)
    return requests


def make_negatives(
    settings: NegativeSettings,
    denoiser: Denoiser,
    style_set: StyleSet,
    folder: Path,
    on_picture: Callable[[int, int], None] | None = None,
    processes: Processes = ONE,
) -> StyleSet:
    """The same set with negatives, made by the denoiser where `folder` does not hold them yet.

    Args:
        folder: gets the pictures (PNG) and `manifest.json`, which is written after every batch, so
            that an interrupted call is continued by the next.
        on_picture: called with (pictures there, pictures in all), first before any work and then
            after each batch; what it raises ends the work. Of several processes each counts what is
            there and its own share.
        processes: that make this call together, each a share of the pictures; they need to see one
            and the same folder.

    Raises:
        InputError: as `plan`; or the manifest is damaged, a picture was changed, the disk is full.
        ProcessLostError: another process has stopped; what was painted is there.
    """
    requests = plan(settings, denoiser, style_set)
    processes.check_same("negatives", " ".join(request.file for request in requests))
    store = NegativeStore(folder, part=processes.count > 1)
    # The lead looks at the folder; seen at another moment it may hold more.
    there = processes.told([processes.is_lead and store.has(request) for request in requests])
    missing = [request for request, is_there in zip(requests, there, strict=True) if not is_there]
    mine, done = processes.mine(missing), len(requests) - len(missing)
    logger.info("Negatives: %d of %d are there in %s", done, len(requests), folder)
    total = done + len(mine)
    if on_picture:
        on_picture(done, total)
    for batch in _batches(mine):
        for request, pixels in zip(batch, _draw(settings, denoiser, style_set, batch), strict=True):
            store.add(request, pixels)
        store.save()
        done += len(batch)
        if on_picture:
            on_picture(done, total)
    _put_together(folder, processes)
    files: dict[str, tuple[Path, ...]] = {}
    for request in requests:
        name = request.item.name
        files[name] = (*files.get(name, ()), folder / request.file)
    return style_set.with_negatives(files, denoiser.identity)


def _put_together(folder: Path, processes: Processes) -> None:
    """The parts of the manifest in one, once all processes have painted."""
    if processes.count == 1:
        return
    processes.wait()
    if processes.is_lead:
        NegativeStore(folder).save()
    processes.wait()


def _facts(
    settings: NegativeSettings,
    denoiser: Denoiser,
    style_set: StyleSet,
    item: StyleItem,
    index: int,
) -> dict[str, object]:
    return {
        "prompt": settings.prompt(style_set, item, index),
        "seed": derive_seed(settings.seed, "negative", item.name, index),
        "size": list(style_set.size(item, denoiser.size_multiple)),
        "mode": "from positive" if settings.from_positive else "from noise",
        "denoise": settings.denoise if settings.from_positive else 1.0,
        **asdict(settings.sampler),
        "base": denoiser.identity,
        "positive": item.digest,
    }


def _check_lengths(denoiser: Denoiser, requests: Sequence[Request]) -> None:
    prompts = ((request.item.name, request.facts["prompt"]) for request in requests)
    if long := too_long(denoiser, prompts):
        raise InputError(
            "style_set",
            "captions whose negative prompts the text encoder reads to the end",
            long,
            "\nShorten these captions, or the template.",
        )


def _batches(requests: Sequence[Request]) -> Iterator[list[Request]]:
    """Requests of one bucket at a time, in the order in which the buckets first come."""
    buckets: dict[tuple[int, int], list[Request]] = {}
    for request in requests:
        buckets.setdefault(request.size, []).append(request)
    for (width, height), same in buckets.items():
        count = min(BATCH_MOST, pictures_at_once((width, height)))
        for start in range(0, len(same), count):
            yield same[start : start + count]


def _draw(
    settings: NegativeSettings, denoiser: Denoiser, style_set: StyleSet, batch: Sequence[Request]
) -> Tensor:
    start = {}
    if settings.from_positive:
        multiple = denoiser.size_multiple
        pixels = torch.stack([style_set.positive(request.item, multiple) for request in batch])
        start = {"latents": denoiser.encode_images(pixels), "denoise": settings.denoise}
    return denoiser.generate(
        [request.facts["prompt"] for request in batch],
        [request.facts["seed"] for request in batch],
        batch[0].size,
        settings.sampler,
        **start,
    )

"""The style set: pictures of a style (positives), their captions, labels and negatives.

A set is an immutable value; it travels on a socket and never holds a model. Captions describe
content only; the style token enters through the template, once, at the end.
"""

import hashlib
import string
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from .denoiser import Denoiser
from .errors import InputError
from .pictures.buckets import bucket_size, fit
from .pictures.images import image_size, read_image
from .words import contains_word

DEFAULT_TEMPLATE = "{caption} in the style of {token}"


@dataclass(frozen=True, eq=False)
class StyleItem:
    """One positive: a picture on disk (`path`) or from a socket (`pixels`), and its caption.

    Attributes:
        name: unique in the set; the file's stem, or `image_0001` for a socket's picture.
        caption: the content in words, without the style token.
        label: groups items that belong together; empty where the set has no labels.
        path: the picture's file, or None.
        pixels: float32 `[3, h, w]` in 0..1, or None.
        negatives: files of the negatives painted for this item, in order.
    """

    name: str
    caption: str
    label: str = ""
    path: Path | None = None
    pixels: Tensor | None = None
    negatives: tuple[Path, ...] = ()

    def load(self) -> Tensor:
        """The picture at its own size: float32 `[3, h, w]` in 0..1, RGB, turned upright."""
        return self.pixels if self.path is None else read_image(self.path)

    @property
    def picture_size(self) -> tuple[int, int]:
        """(width, height) of the picture in pixels."""
        if self.path is not None:
            return image_size(self.path)
        return self.pixels.shape[2], self.pixels.shape[1]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the picture: of the file's bytes, or of the pixels."""
        data = self.path.read_bytes() if self.path else self.pixels.cpu().numpy().tobytes()
        return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, eq=False)
class StyleSet:
    """Positives of one style with the words that stand for it.

    Attributes:
        items: the positives, in a stable order.
        token: the style token (trigger word), as it is typed in a prompt.
        template: how caption and token make a prompt; has `{caption}` and `{token}`.
        resolution: side in pixels of the square whose area every bucket has.
        base: identity of the base model that painted the negatives; empty before that.
        others: pictures that are none of this style's, to serve as negatives of every item; their
            captions and labels are not used.

    Raises:
        InputError: the token is empty, or the template is none.
    """

    items: tuple[StyleItem, ...]
    token: str
    template: str = DEFAULT_TEMPLATE
    resolution: int = 512
    base: str = ""
    others: tuple[StyleItem, ...] = ()

    def __post_init__(self) -> None:
        if not self.token.strip():
            raise InputError("token", "a word that stands for the style", repr(self.token))
        check_template("template", self.template, "caption", "token")

    def __len__(self) -> int:
        return len(self.items)

    @property
    def has_negatives(self) -> bool:
        """True when every item has at least one negative."""
        return bool(self.items) and all(item.negatives for item in self.items)

    def prompt(self, item: StyleItem, word: str | None = None) -> str:
        """The item's prompt; `word` stands in for the style token (a generic word)."""
        return self.template.format(caption=item.caption, token=word or self.token)

    def size(self, item: StyleItem, multiple: int) -> tuple[int, int]:
        """(width, height) of the item's bucket for a model whose sizes are multiples of this."""
        return bucket_size(*item.picture_size, self.resolution, multiple)

    def positive(self, item: StyleItem, multiple: int) -> Tensor:
        """The item's picture in its bucket: scaled to cover, cropped to the centre."""
        return fit(item.load(), self.size(item, multiple))

    def negative(self, item: StyleItem, index: int, multiple: int) -> Tensor:
        """The item's negative `index` in the positive's bucket."""
        return fit(read_image(item.negatives[index]), self.size(item, multiple))

    def other(self, place: int, size: tuple[int, int]) -> Tensor:
        """Picture `place` of `others` in the bucket of this (width, height), a positive's."""
        return fit(self.others[place].load(), size)

    def with_negatives(self, files: dict[str, tuple[Path, ...]], base: str) -> "StyleSet":
        """The same set with negatives by item name, painted by the base of this identity."""
        items = tuple(replace(item, negatives=files[item.name]) for item in self.items)
        return replace(self, items=items, base=base)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all that training reads: pictures, words and negatives."""
        parts = [self.token, self.template, str(self.resolution)]
        for item in self.items:
            negatives = [hashlib.sha256(p.read_bytes()).hexdigest() for p in item.negatives]
            parts += [item.name, item.caption, item.label, item.digest, *negatives]
        if self.others:
            parts += ["others", *(item.digest for item in self.others)]
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def check_template(name: str, template: str, *fields: str) -> None:
    """Refuse a template that does not have exactly these fields in braces, each at least once.

    Raises:
        InputError: it names the input `name`.
    """
    rule = "a text with " + " and ".join(f"{{{field}}}" for field in fields)
    try:
        parts = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise InputError(name, rule, f"{template!r} ({error})") from error
    plain = all(not spec and not turned for _, spec, turned in parts)
    if not plain or {field for field, *_ in parts} != set(fields):
        raise InputError(name, rule, repr(template), "Double a brace that is meant as it stands.")


def check_prompts(denoiser: Denoiser, style_set: StyleSet) -> None:
    """Refuse a set in which the text encoder would not read up to some item's style token.

    Raises:
        InputError: it lists every such item, with the tokens its prompt takes.
    """
    readable = {}
    for item in style_set.items:
        before = style_set.template.format(caption=item.caption, token="\0").rpartition("\0")[0]
        readable[item.name] = before + style_set.token
    if long := too_long(denoiser, readable.items()):
        raise InputError(
            "captions",
            f"prompts whose style token {style_set.token!r} the text encoder still reads",
            long,
            "\nShorten these captions, or put {token} first in the template.",
        )


def check_token(style_set: StyleSet) -> None:
    """Refuse a set in which the style token stands in some item's prompt inside another word.

    An embedding is read only where its word stands by itself.

    Raises:
        InputError: it quotes the first such prompt.
    """
    for item in style_set.items:
        prompt = style_set.prompt(item)
        if not contains_word(prompt, style_set.token):
            raise InputError(
                "template",
                f"{{token}} between spaces or punctuation, so that {style_set.token!r} is a word",
                f"{prompt!r} ({item.name})",
            )


def too_long(denoiser: Denoiser, prompts: Iterable[tuple[str, str]]) -> str:
    """A list, for an error, of the (name, prompt) that the text encoder would cut off; else ""."""
    long = []
    for name, prompt in prompts:
        used, limit = denoiser.prompt_tokens(prompt)
        if used > limit:
            long.append(f"  {name}: {used} tokens of {limit}")
    return "\n".join([f"{len(long)} too long:", *long]) if long else ""

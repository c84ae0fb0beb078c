"""The caption grammar that the base was trained on.

A caption is content, then perhaps words of style: a style's name, a generic word that hides
several styles, a word that means nothing yet (so that an unknown style token starts as "some
style"), or none at all.
"""

import string
from dataclasses import dataclass

import torch

from .scenes import Scene
from .styles import GENERIC_WORDS

PHRASES = ("{content} in the style of {word}", "a {word} of {content}", "{content}, {word}")


@dataclass(frozen=True)
class Chances:
    """How often a training caption takes each form; what is left over names the style."""

    empty: float = 0.1
    unstyled: float = 0.1
    unknown: float = 0.12
    generic: float = 0.23


def _pick(n: int, g: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=g))


def style_word(style: str, chances: Chances, g: torch.Generator) -> str:
    """The word that a caption uses for this style; empty for none."""
    u = float(torch.rand((), generator=g))
    if u < chances.unstyled:
        return ""
    if u < chances.unstyled + chances.unknown:
        length = 3 + _pick(4, g)
        return "".join(string.ascii_lowercase[_pick(26, g)] for _ in range(length))
    generic = [word for word, hidden in GENERIC_WORDS.items() if style in hidden]
    if u < chances.unstyled + chances.unknown + chances.generic:
        return generic[_pick(len(generic), g)]
    return style.replace("_", " ")


def training_caption(scene: Scene, style: str, chances: Chances, g: torch.Generator) -> str:
    """One random caption of this picture by the grammar."""
    if float(torch.rand((), generator=g)) < chances.empty:
        return ""
    word, content = style_word(style, chances, g), scene.caption()
    if not word:
        return content
    return PHRASES[_pick(4, g) % 3].format(content=content, word=word)

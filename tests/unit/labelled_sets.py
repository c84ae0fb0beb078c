"""Style sets with labels, of pictures that are told apart by their mean."""

from dataclasses import replace
from pathlib import Path

import torch
from tiny_denoiser import TOKEN, TinyDenoiser, tiny_set

from nsync.style_set import StyleItem, StyleSet


def labelled(folder: Path, labels: str) -> StyleSet:
    """A tiny set with a letter of `labels` on each picture (a blank: none), with negatives."""
    whole = tiny_set(folder, len(labels))
    pairs = zip(whole.items, labels, strict=True)
    return replace(whole, items=tuple(replace(i, label=label.strip()) for i, label in pairs))


def unpainted(style_set: StyleSet) -> StyleSet:
    """The set without negatives."""
    items = tuple(replace(item, negatives=()) for item in style_set.items)
    return replace(style_set, items=items, base="")


def grey_set(levels: dict[str, float], sizes: dict[str, tuple[int, int]]) -> StyleSet:
    """A picture of one grey for every name; its label is the name's first letter.

    Args:
        levels: by name, 0..1.
        sizes: (width, height) by name; 32 x 32 else.
    """
    items = []
    for name, level in levels.items():
        width, height = sizes.get(name, (32, 32))
        pixels = torch.full((3, height, width), level)
        items.append(StyleItem(name, f"shape {name}", name[0], pixels=pixels))
    return StyleSet(tuple(items), TOKEN, resolution=32)


class NoPictures(TinyDenoiser):
    """Fails if a picture is encoded."""

    def encode_images(self, _: torch.Tensor) -> torch.Tensor:
        raise AssertionError("no picture was to be encoded")

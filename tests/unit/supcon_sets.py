"""Small labelled sets and encoders for the tests of pretraining."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from nsync.draws import generator, seeded
from nsync.style_set import StyleItem, StyleSet
from nsync.supcon.clip_encoders import ClipEncoders, read_tokenizer
from nsync.supcon.small_encoders import SmallEncoders

TOKENIZER = Path(__file__).parents[2] / "nsync" / "tiny" / "base" / "tokenizer"
COLOURS = {"red": (0.9, 0.1, 0.1), "green": (0.1, 0.8, 0.1), "blue": (0.1, 0.2, 0.9)}
PLACES = ("left", "right", "top", "bottom")
SIDE = 16


def labelled_set(labels: Sequence[str], captions: Sequence[str] = ()) -> StyleSet:
    """Items with these labels; the pictures are noise."""
    words = captions or [f"picture number {place}" for place in range(len(labels))]
    items = [
        StyleItem(f"item_{place}", caption, label, pixels=noise(place))
        for place, (label, caption) in enumerate(zip(labels, words, strict=True))
    ]
    return StyleSet(tuple(items), token="sks", resolution=SIDE)


def noise(place: int) -> Tensor:
    return torch.rand(3, SIDE, SIDE, generator=generator(0, "picture", place))


def flags(count: int) -> StyleSet:
    """Pictures one can tell: half of each has a colour, and the caption says which half and which
    colour; their label is the ground, plain or striped."""
    items = []
    for place in range(count):
        drawn = generator(1, "flag", place)
        colour, where, striped = (
            int(torch.randint(most, (), generator=drawn)) for most in (len(COLOURS), 4, 2)
        )
        picture = 0.5 + 0.05 * torch.randn(3, SIDE, SIDE, generator=drawn)
        picture[:, :: (2 if striped else SIDE)] += 0.3
        half = (slice(0, 8), slice(8, 16))
        rows, columns = (slice(None), half[where]) if where < 2 else (half[where - 2], slice(None))
        name = tuple(COLOURS)[colour]
        picture[:, rows, columns] = torch.tensor(COLOURS[name])[:, None, None]
        caption = f"{name} in the {PLACES[where]} half"
        label = "striped" if striped else "plain"
        items.append(StyleItem(f"flag_{place}", caption, label, pixels=picture.clamp(0, 1)))
    return StyleSet(tuple(items), token="sks", resolution=SIDE)


def small(style_set: StyleSet, seed: int = 0) -> SmallEncoders:
    """A quick pair for these sets."""
    return SmallEncoders.fresh([item.caption for item in style_set.items], seed, SIDE, 32)


def clip_model() -> CLIPModel:
    """A CLIP of random weights that reads with the tiny base's tokenizer."""
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    size |= {"num_attention_heads": 2}
    words = {"vocab_size": 670, "max_position_embeddings": 32, "eos_token_id": 669}
    config = CLIPConfig(
        text_config=size | words | {"bos_token_id": 668, "pad_token_id": 669},
        vision_config=size | {"image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    with seeded(0, "a small CLIP"):
        return CLIPModel(config).eval()


def clip(**options: object) -> ClipEncoders:
    return ClipEncoders(clip_model(), read_tokenizer(TOKENIZER), **options)

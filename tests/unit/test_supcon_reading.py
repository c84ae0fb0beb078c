"""A training set read once by frozen towers, or in every step: the same features and gradients."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pretraining_runs import FLAGS, SHORT, run_pretraining
from supcon_sets import SIDE, clip, small

from nsync.supcon.clip_encoders import ClipEncoders
from nsync.supcon.encoders import Encoders
from nsync.supcon.pairs import read_pairs
from nsync.supcon.reading import Reader, reader

ROWS = [3, 0, 3, 17, 8]


def slopes(encoders: Encoders, read: Reader) -> list[torch.Tensor]:
    loss = (read.images(ROWS).whole * read.texts(ROWS).sentence.cos()).sum()
    weights = [weight for weight in encoders.parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return [slope for slope in found if slope is not None]


def looks(encoders: ClipEncoders) -> list[int]:
    """How many pictures the tower looks at, call by call."""
    seen: list[int] = []
    encoders.clip.vision_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    return seen


def test_read_once_is_read_every_time() -> None:
    encoders, pairs = clip(), read_pairs(FLAGS, SIDE)
    once = reader(encoders, pairs, in_parts=False)
    each = reader(encoders, pairs, in_parts=True)
    assert type(once) is not type(each)
    assert (once.images(ROWS).whole - each.images(ROWS).whole).abs().max() < 1e-6
    assert (once.texts(ROWS).sentence - each.texts(ROWS).sentence).abs().max() < 1e-6
    assert len(slopes(encoders, once)) == 4
    for one, other in zip(slopes(encoders, once), slopes(encoders, each), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)
    assert once.images(ROWS).regions.shape == (5, 0, encoders.width)
    words = once.texts(ROWS)
    assert (words.words.shape, words.mask.shape) == ((5, 0, encoders.width), (5, 0))


def test_what_is_trained_is_read_every_time() -> None:
    pairs = read_pairs(FLAGS, SIDE)
    for encoders in (small(FLAGS), clip(trains_towers=True)):
        read = reader(encoders, pairs, in_parts=False)
        assert torch.equal(read.images(ROWS).whole, encoders.images(pairs.pixels(ROWS)).whole)
        assert len(slopes(encoders, read)) > 4


@pytest.mark.parametrize(("words", "most"), [(0.0, 20), (0.5, 6 * 8)])
def test_frozen_towers_look_at_a_picture_once(tmp_path: Path, words: float, most: int) -> None:
    """15 pictures are trained on and 5 held out; six steps of two branches of four."""
    encoders = clip()
    seen, told = looks(encoders), []
    settings = replace(SHORT, words=words, validation=0)
    run_pretraining(
        tmp_path, settings, encoders, on_item=lambda done, total: told.append((done, total))
    )
    assert sum(seen) == most
    assert told[-1] == (20, 20)

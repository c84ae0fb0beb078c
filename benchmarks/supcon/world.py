"""The pictures of a world: what is trained on, and the captions and pictures that are held out."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import combinations, product

import torch
from torch import Tensor

from nsync.draws import derive_seed, generator
from nsync.pictures.buckets import fit
from nsync.pictures.images import to_uint8
from nsync.style_set import StyleItem, StyleSet
from nsync.tiny.labelled import SHAPE, STYLE, label_of
from nsync.tiny.scenes import COLOURS, COUNTS, PLACES, SHAPES, Scene, counted
from nsync.tiny.world import Styled, in_words, render_each

from .study import HALF, ONE, WHOLE, Study, World

PLAIN = 0  # the background of all scenes
COLOUR, PLACE = "colour", "place"
FACTS = (STYLE, SHAPE, COLOUR, PLACE)
"""What captions may say, beside how many objects there are."""


@dataclass(frozen=True, eq=False)
class Test:
    """What GANs are asked for, and real pictures of the same captions.

    Attributes:
        asked: one per picture.
        real: uint8 `[n, 3, s, s]`, row by row.
        others: likewise, drawn anew: how near two sets of real pictures are.
        near: by caption, all captions of the world that say one thing otherwise.
    """

    asked: tuple[Styled, ...]
    real: Tensor
    others: Tensor
    near: dict[str, list[str]]

    @property
    def captions(self) -> list[str]:
        """One per picture."""
        return [one.caption for one in self.asked]


def contents_of(objects: str) -> list[Scene]:
    """All scenes of one object, or of several (two or three), before a plain background."""
    counts = (0,) if objects == ONE else range(1, len(COUNTS))
    tables = (range(len(SHAPES)), range(len(COLOURS)), range(len(PLACES)), counts)
    return [Scene(*numbers, PLAIN) for numbers in product(*tables)]


def training_set(study: Study, world: World, seed: int) -> StyleSet:
    """The labelled pictures of a world: scenes that are not held out, in every style."""
    draws = world.draws(seed)
    trained, _ = _split(study, world.objects, draws)
    every = [Styled(scene, style) for scene in trained for style in study.styles]
    return _style_set(study, world.labels, every, study.pictures, draws, study.captions)


def judge_set(study: Study, objects: str) -> StyleSet:
    """What the judge reads and sees: all scenes, so that none is new to it."""
    every = [Styled(scene, style) for scene in contents_of(objects) for style in study.styles]
    count = max(study.pictures, len(every))
    return _style_set(study, SHAPE, every, count, derive_seed(0, "judge"), WHOLE)


def test_of(study: Study, world: World, seed: int) -> Test:
    """What is asked for of a world that training never saw."""
    draws = world.draws(seed)
    _, held_out = _split(study, world.objects, draws)
    asked = [
        Styled(scene, style)
        for scene in held_out
        for style in study.styles
        for _ in range(study.per_caption)
    ]
    sets = (_rendered(study, asked, derive_seed(draws, name)) for name in ("real", "others"))
    every = [Styled(scene, style) for scene in contents_of(world.objects) for style in study.styles]
    near = {one.caption: [o.caption for o in every if _apart(one, o) == 1] for one in set(asked)}
    return Test(tuple(asked), *(to_uint8(pictures) for pictures in sets), near)


def caption_of(shown: Styled, told: Sequence[str]) -> str:
    """What a picture shows in words, of `FACTS` only what is told."""
    scene = shown.scene
    noun = counted(SHAPES[scene.shape] if SHAPE in told else "shape", scene.count)
    colour = tuple(COLOURS)[scene.colour] if COLOUR in told else ""
    place = tuple(PLACES)[scene.place] if PLACE in told else ""
    style = f"in the style of {in_words(shown.style)}" if STYLE in told else ""
    return " ".join(filter(None, (COUNTS[scene.count], colour, noun, place, style)))


def _apart(one: Styled, other: Styled) -> int:
    """How many things two of them say otherwise."""
    fields = zip(astuple(one.scene), astuple(other.scene), strict=True)
    return (one.style != other.style) + sum(mine != theirs for mine, theirs in fields)


def _split(study: Study, objects: str, draws: int) -> tuple[list[Scene], list[Scene]]:
    scenes = contents_of(objects)
    order = torch.randperm(len(scenes), generator=generator(draws, "scenes")).tolist()
    held_out = [scenes[place] for place in order[: study.held_out]]
    return [scenes[place] for place in order[study.held_out :]], held_out


def _style_set(
    study: Study, labels: str, every: Sequence[Styled], count: int, seed: int, captions: str
) -> StyleSet:
    """So many pictures, each of these as often as another or once more, in a random order."""
    order = torch.randperm(len(every), generator=generator(seed, "training")).tolist()
    asked = [every[order[place % len(every)]] for place in range(count)]
    pictures = _rendered(study, asked, derive_seed(seed, "training"))
    facts = list(combinations(FACTS, 2 if captions == HALF else len(FACTS)))
    drawn = torch.randint(len(facts), (count,), generator=generator(seed, "captions")).tolist()
    told = [caption_of(one, facts[which]) for one, which in zip(asked, drawn, strict=True)]
    items = tuple(
        StyleItem(f"picture_{k:05}", caption, label_of(labels, one), pixels=picture)
        for k, (one, caption, picture) in enumerate(zip(asked, told, pictures, strict=True))
    )
    return StyleSet(items, token="sks", resolution=study.image_size)


def _rendered(study: Study, asked: Sequence[Styled], seed: int) -> Tensor:
    """Float32 `[n, 3, s, s]` in 0..1."""
    size = (study.image_size, study.image_size)
    return torch.stack([fit(one, size) for one in render_each(asked, seed)])

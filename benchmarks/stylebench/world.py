"""What all arms of a style and seed are given: scenes, positives, true renders, negatives."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from torch import Tensor
from transformers.utils import logging as transformers_logging

from nsync.draws import derive_seed
from nsync.errors import InputError
from nsync.files import write_atomic
from nsync.negatives import NegativeSettings, make_negatives
from nsync.pictures.images import png, to_uint8
from nsync.pipelines.denoiser import DiffusersDenoiser
from nsync.style_set import StyleItem, StyleSet
from nsync.tiny import BASE_FOLDER
from nsync.tiny.scenes import BACKGROUNDS, COLOURS, COUNTS, PLACES, SHAPES, SIZE, Scene, draw_scenes

from .families import family_of
from .later_styles import render
from .study import TOKEN

NO_STYLE = {
    "words": ("",), "template": "{caption}{word}", "per_positive": 1, "from_positive": False,
}  # fmt: skip
"""Of `NegativeSettings`: the base paints the captions as they stand, by no style."""

SCENES = len(SHAPES) * len(COLOURS) * len(PLACES) * len(COUNTS) * len(BACKGROUNDS)
"""All scenes that there are."""

BASES = Path(__file__).parents[2] / "build" / "tiny"
"""Where `scripts/tiny/train_base.py` leaves bases of other seeds."""

OTHER_LABELS = 3
"""Other styles beside the one that is taught, in a set with labels."""


@dataclass(frozen=True)
class Scenes:
    """The scenes of a seed, none of them twice: what is asked for was never trained on.

    Attributes:
        training: of the positives.
        held_out: of the pictures that are drawn with the style token.
        plain: of those that are drawn without it.
    """

    training: tuple[Scene, ...]
    held_out: tuple[Scene, ...]
    plain: tuple[Scene, ...]


def draw_apart(training: int, held_out: int, plain: int, seed: int) -> Scenes:
    """So many scenes of each kind (`SCENES` at most in all), the same for every style and arm."""
    wanted, found = training + held_out + plain, []
    count = wanted
    while len(found) < wanted:  # drawn again from the start: a scene depends on its number only
        count *= 2
        found = list(dict.fromkeys(draw_scenes(count, derive_seed(seed, "scenes"))))
    parts = found[:training], found[training : training + held_out]
    return Scenes(*map(tuple, (*parts, found[training + held_out : wanted])))


def positives(scenes: Scenes, style: str, seed: int) -> StyleSet:
    """The training pictures, true renders as 8-bit files would hold them, with their captions."""
    pictures = to_uint8(render(scenes.training, style, derive_seed(seed, "positives")))
    return _style_set(scenes, pictures.float() / 255)


def with_others(style_set: StyleSet, scenes: Scenes, style: str, seed: int) -> StyleSet:
    """The set as one label's of four: the same scenes in the next three styles lie beside it.

    The next of all in its family, in a ring, so that a study's own styles make no difference.
    """
    styles = family_of(style).styles
    first = styles.index(style) + 1
    ring = (*styles, *styles)[first : first + OTHER_LABELS]
    others = (
        replace(one, label=name) for name in ring for one in positives(scenes, name, seed).items
    )
    return replace(style_set, others=tuple(others))


def references(scenes: Scenes, style: str, seed: int) -> Tensor:
    """True renders of the held-out captions, uint8 `[n, 3, 64, 64]`."""
    return to_uint8(render(scenes.held_out, style, derive_seed(seed, "references")))


def with_negatives(
    style_set: StyleSet,
    scenes: Scenes,
    style: str,
    settings: NegativeSettings,
    denoiser: DiffusersDenoiser,
    folder: Path,
) -> StyleSet:
    """The set with negatives, painted where `folder` does not have them yet.

    Those from pure noise follow from the captions and the seed alone, so that one folder serves
    all styles of a seed; those that start from the positives have one for each style.
    """
    told = {**asdict(settings), "style": style if settings.from_positive else ""}
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    # Their names depend on the positives' pixels, too: a picture of nothing stands for each.
    nothing = torch.zeros(len(style_set), 3, SIZE, SIZE)
    asked = style_set if settings.from_positive else _style_set(scenes, nothing)
    painted = make_negatives(settings, denoiser, asked, folder / key)
    files = {item.name: item.negatives for item in painted.items}
    return style_set.with_negatives(files, painted.base)


def of_same_style(
    style_set: StyleSet,
    scenes: Scenes,
    style: str,
    seed: int,
    denoiser: DiffusersDenoiser,
    folder: Path,
) -> StyleSet:
    """The set with negatives that are too near: one true render of the same caption each.

    They differ from the positives as two pictures of a style do, in layout and texture.
    """
    pictures = to_uint8(render(scenes.training, style, derive_seed(seed, "same style")))
    files = {}
    for item, picture in zip(style_set.items, pictures, strict=True):
        file = folder / f"same_style_{style}_{seed}_{len(style_set)}" / f"{item.name}.png"
        if not file.exists():
            write_atomic(file, png(Image.fromarray(picture.movedim(0, 2).numpy())))
        files[item.name] = (file,)
    return style_set.with_negatives(files, denoiser.identity)


def of_other_captions(style_set: StyleSet) -> StyleSet:
    """The set with negatives that are too far: each item has those of another caption."""
    names = [item.name for item in style_set.items]
    half = len(names) // 2
    negatives = [item.negatives for item in style_set.items]
    turned = [*negatives[half:], *negatives[:half]]
    return style_set.with_negatives(dict(zip(names, turned, strict=True)), style_set.base)


def prompts(scenes: Sequence[Scene]) -> list[str]:
    """The captions with the style token, as the trainer makes them."""
    template = StyleSet((), TOKEN).template
    return [template.format(caption=scene.caption(), token=TOKEN) for scene in scenes]


def base_folder(seed: int) -> Path:
    """The shipped base by 0; any other by the seed that it was trained with.

    Raises:
        InputError: it has not been trained here.
    """
    folder = BASES / f"base_{seed}" if seed else BASE_FOLDER
    if not (folder / "model_index.json").is_file():
        remedy = f"Train it: python scripts/tiny/train_base.py --seed {seed}"
        raise InputError("base_seed", f"a tiny base in {folder}", "none", remedy)
    return folder


def tiny_denoiser(seed: int = 0) -> DiffusersDenoiser:
    """A tiny base in float32; see `base_folder`."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    pipeline = StableDiffusionPipeline.from_pretrained(base_folder(seed), local_files_only=True)
    pipeline.text_encoder.float()  # the others are already
    return DiffusersDenoiser(pipeline)


def _style_set(scenes: Scenes, pictures: Tensor) -> StyleSet:
    items = tuple(
        StyleItem(f"picture_{place:03}", scene.caption(), pixels=picture)
        for place, (scene, picture) in enumerate(zip(scenes.training, pictures, strict=True))
    )
    return StyleSet(items, TOKEN, resolution=SIZE)

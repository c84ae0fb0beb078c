"""Pictures for the measures: 8 bit, by prompt and seed, of the base once and of every cell."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nsync.denoiser import Denoiser, SamplerSettings
from nsync.draws import derive_seed
from nsync.files import atomic_path
from nsync.pictures.images import to_uint8
from nsync.tiny.scenes import SIZE

from .world import Scenes, prompts

BATCH = 64


@dataclass(frozen=True)
class Drawn:
    """What is measured of a model, uint8 `[n, 3, 64, 64]` each.

    Attributes:
        styled: of the held-out captions with the style token.
        plain: of other captions without it.
    """

    styled: Tensor
    plain: Tensor


def draw(denoiser: Denoiser, scenes: Scenes, sampler: SamplerSettings, seed: int) -> Drawn:
    """Draw a model as it is now; a picture's noise depends on `seed` and its number only."""
    styled = _draw(denoiser, prompts(scenes.held_out), sampler, derive_seed(seed, "styled"))
    captions = [scene.caption() for scene in scenes.plain]
    return Drawn(styled, _draw(denoiser, captions, sampler, derive_seed(seed, "plain")))


def base_drawn(
    denoiser: Denoiser, scenes: Scenes, sampler: SamplerSettings, seed: int, folder: Path
) -> Drawn:
    """What the untrained base draws: the same for all styles of a seed, kept in `folder`."""
    counts = len(scenes.training), len(scenes.held_out), len(scenes.plain)
    told = json.dumps([denoiser.identity, counts, asdict(sampler), seed])
    file = folder / f"base_{hashlib.sha256(told.encode()).hexdigest()[:12]}.safetensors"
    if not file.exists():
        drawn = draw(denoiser, scenes, sampler, seed)
        with atomic_path(file) as temporary:
            save_file(vars(drawn), temporary)
    return Drawn(**load_file(file))


def _draw(denoiser: Denoiser, texts: Sequence[str], sampler: SamplerSettings, seed: int) -> Tensor:
    seeds = [derive_seed(seed, place) for place in range(len(texts))]
    parts = []
    for start in range(0, len(texts), BATCH):
        part = slice(start, start + BATCH)
        # bf16: a third less time, and the ruler reads the same; see docs/stylebench.md.
        with torch.amp.autocast(denoiser.device.type, torch.bfloat16):
            pixels = denoiser.generate(texts[part], seeds[part], (SIZE, SIZE), sampler)
        # A model that fell apart may give NaN: that is a result, and black.
        parts.append(to_uint8(pixels.nan_to_num()))
    return torch.cat(parts)

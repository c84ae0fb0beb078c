"""Painting prompts with a trained generator, in one pass."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...draws import generator
from ...errors import InputError
from ..encoders import Encoders, warn_of_unknown_words


@torch.no_grad()
def generate(
    painter: nn.Module,
    encoders: Encoders,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    truncation: float = 0.0,
    batch: int = 16,
    on_item: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Paint one picture per (prompt, seed); words that nobody taught the encoders are logged.

    A picture depends on its own prompt, seed and truncation; on those beside it, by rounding alone.

    Args:
        painter: a generator in eval mode; see `contract.Generator`.
        encoders: only their texts are asked for, and which words they know.
        truncation: see `draw_noise`.
        batch: pictures painted at once; fewer take less memory.
        on_item: called with (pictures done, pictures in all); may raise to stop.

    Returns:
        float32 `[n, 3, s, s]` in 0..1, in main memory.

    Raises:
        InputError: no prompts, not a seed for each, a negative truncation, no batch; a prompt that
            the text encoder would not read to its end.
    """
    _check(prompts, seeds, truncation, batch)
    warn_of_unknown_words(encoders, dict.fromkeys(prompts))
    device = next(painter.parameters()).device
    painted = []
    for start in range(0, len(prompts), batch):
        here = slice(start, start + batch)
        read = encoders.texts(prompts[here])
        noise = torch.stack([draw_noise(painter.noise, seed, truncation) for seed in seeds[here]])
        made = painter(noise.to(device), *(part.to(device) for part in read))
        painted.append((made.images[-1].float().cpu() / 2 + 0.5).clamp(0, 1))
        if on_item:
            on_item(start + len(noise), len(prompts))
    return torch.cat(painted)


def draw_noise(size: int, seed: int, truncation: float = 0.0) -> Tensor:
    """A picture's noise, float32 `[size]`, from its seed.

    Args:
        truncation: numbers are normal within plus and minus so much: fewer surprises, and less
            variety. It is what BigGAN (arXiv 1809.11096, section 3.1) gets by drawing again what
            lies outside. Here the normal quantile of one uniform number is taken, so that a seed's
            picture changes smoothly with the truncation. 0 does not truncate.
    """
    uniform = torch.rand(size, generator=generator(seed, "noise"), dtype=torch.float64)
    inside = math.erf(truncation / math.sqrt(2)) if truncation else 1.0
    # A uniform 0 would be minus infinity.
    quantile = torch.erfinv(((2 * uniform - 1) * inside).clamp(-1 + 2**-52, 1 - 2**-52))
    return (math.sqrt(2) * quantile).float()


def _check(prompts: Sequence[str], seeds: Sequence[int], truncation: float, batch: int) -> None:
    if not prompts:
        raise InputError("prompts", "at least one prompt", "none")
    if len(seeds) != len(prompts):
        raise InputError("seeds", f"a seed for each of {len(prompts)} prompts", f"{len(seeds)}")
    if not (math.isfinite(truncation) and truncation >= 0):
        raise InputError("truncation", "0 (none) or a number above 0", repr(truncation))
    if batch < 1:
        raise InputError("batch", "1 or more", repr(batch))

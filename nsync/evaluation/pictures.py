"""Whatever comes as a picture, as the 8-bit RGB pixels that every encoder starts from."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import InputError
from ..pictures.images import on_white, read_image, to_uint8

CHANNELS = (1, 3, 4)
"""Grey, RGB, RGB with alpha."""

MAX_ASPECT = 100
"""A longer strip would be enlarged to gigabytes by encoders that fit the shorter side."""

Source = Tensor | str | Path
"""A picture `[h, w, c]` or `[c, h, w]`, a batch `[n, h, w, c]` or `[n, c, h, w]`, or a file."""


def as_pictures(sources: Source | Iterable[Source], name: str = "images") -> list[Tensor]:
    """Pictures of any sizes as 8-bit RGB, in order; batches are taken apart.

    Args:
        sources: see `as_picture`; a batch counts as its pictures.
        name: the input's name in errors, with the picture's number where there are several.

    Returns:
        uint8 tensors `[3, h, w]` in main memory.

    Raises:
        InputError: as `as_picture`.
    """
    single = isinstance(sources, Tensor | str | Path)
    flat = [one for source in ([sources] if single else sources) for one in _apart(source)]
    names = [name] if len(flat) == 1 else [f"{name} {i}" for i in range(1, len(flat) + 1)]
    return [as_picture(one, shown) for one, shown in zip(flat, names, strict=True)]


def as_picture(source: Source, name: str = "image") -> Tensor:
    """One picture as 8-bit RGB `[3, h, w]` uint8, alpha on white, a file turned upright.

    Floats are cut down to 8 bit before anything else, as the host's Save Image cuts them
    (`255 * x`, the fraction dropped), so that a picture scores as its saved file does.

    Args:
        source: a file; uint8 pixels; or floats in 0..1 (others are clipped, as by saving). A
            tensor of 1, 3 or 4 channels, last (as the host has them) or first.
        name: the input's name in errors.

    Raises:
        InputError: no such shape, no pixels, a strip longer than `MAX_ASPECT` times its width,
            values that are not finite, or a file that is no picture.
    """
    if isinstance(source, Tensor):
        picture = _rgb(_channels_last(source.detach().cpu(), name), name)
    else:
        picture = to_uint8(read_image(source))
    short, long = sorted(picture.shape[1:])
    if long > MAX_ASPECT * short:
        rule = f"a picture at most {MAX_ASPECT} times as long as wide"
        raise InputError(name, rule, f"{long} x {short} pixels", "Crop it first.")
    return picture


def as_pil(picture: Tensor) -> Image.Image:
    """uint8 pixels `[3, h, w]` as a Pillow picture in RGB."""
    return Image.fromarray(picture.permute(1, 2, 0).numpy())


def from_pil(image: Image.Image) -> Tensor:
    """A Pillow picture in RGB as uint8 pixels `[3, h, w]`."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _apart(source: Source) -> Iterable[Source]:
    return source if isinstance(source, Tensor) and source.ndim == 4 else [source]


def _channels_last(pixels: Tensor, name: str) -> Tensor:
    if pixels.ndim == 3 and pixels.numel():
        if pixels.shape[2] in CHANNELS:
            return pixels
        if pixels.shape[0] in CHANNELS:
            return pixels.permute(1, 2, 0)
    raise InputError(name, "pixels [h, w, c] of 1, 3 or 4 channels", str(tuple(pixels.shape)))


def _rgb(pixels: Tensor, name: str) -> Tensor:
    array = _eight_bit(pixels, name)
    if array.shape[2] == 1:
        array = array.repeat(3, axis=2)
    image = on_white(Image.fromarray(np.ascontiguousarray(array)))
    return from_pil(image)


def _eight_bit(pixels: Tensor, name: str) -> np.ndarray:
    if pixels.dtype == torch.uint8:
        return pixels.numpy()
    if not pixels.is_floating_point():
        raise InputError(name, "float pixels in 0..1, or uint8", str(pixels.dtype))
    if not pixels.isfinite().all():
        raise InputError(
            name,
            "finite pixels",
            "NaN or infinite values",
            "The sampler or the VAE broke down on this picture; draw it again.",
        )
    return (255.0 * pixels.float().numpy()).clip(0, 255).astype(np.uint8)

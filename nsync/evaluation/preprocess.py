"""From 8-bit pixels to what each network takes, exactly as its metric defines it.

Scores move when the resize does: the same picture through another library's "bicubic 224" is
another vector. So each way has a name, which is part of the key of every stored vector. Whoever
changes what a way does gives it a new name.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize
from torchvision.transforms.functional import to_tensor

from .pictures import as_pil, from_pil

CLIP_STATISTICS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BICUBIC, BILINEAR = InterpolationMode.BICUBIC, InterpolationMode.BILINEAR
PAPER_SIDE = 256


@dataclass(frozen=True)
class Preprocessing:
    """One way to make a network's input.

    Attributes:
        id: its name, which changes whenever the result does.
        prepare: uint8 `[3, h, w]` RGB to float32 `[3, h', w']`.
    """

    id: str
    prepare: Callable[[Tensor], Tensor]


def as_in_the_paper(way: Preprocessing) -> Preprocessing:
    """`way` after a resize to 256 x 256, aspect not kept, as NSYNC saved its pictures.

    Source: `img.resize((256, 256))` in the generation scripts of arXiv 2511.01517, saved as PNG;
    Pillow's default there is bicubic.
    """

    def prepare(picture: Tensor) -> Tensor:
        small = as_pil(picture).resize((PAPER_SIDE, PAPER_SIDE), Image.Resampling.BICUBIC)
        return way.prepare(from_pil(small))

    return Preprocessing(f"nsync{PAPER_SIDE}+{way.id}", prepare)


def _through_pil(*steps: Callable, statistics: tuple) -> Callable[[Tensor], Tensor]:
    """Resize and crop as Pillow does (antialiased, rounded to 8 bit), then normalise."""
    geometry, normalise = Compose(steps), Normalize(*statistics)
    return lambda picture: normalise(to_tensor(geometry(as_pil(picture))))


def square_crop(image: Image.Image) -> Image.Image:
    """The largest centred square, its corner rounded down.

    Source: `_center_crop_and_resize` in `io_util.py` of google-research/cmmd.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def like_tensorflow(picture: Tensor, side: int = 299) -> Tensor:
    """TensorFlow 1's bilinear resize: no antialias, pixels counted from their corners.

    Source: `resize_bilinear` of TensorFlow 1 with `align_corners=False`, which the FID network of
    2015-12-05 has inside; the same arithmetic, in the same order, as torch-fidelity's.

    Returns:
        float32 `[3, side, side]` in -1..127/128: `(x - 128) / 128`.
    """
    pixels = picture.float()
    top, bottom, down = _between(pixels.shape[1], side)
    left, right, across = _between(pixels.shape[2], side)
    upper, lower = pixels[:, top], pixels[:, bottom]
    upper = upper[:, :, left] + (upper[:, :, right] - upper[:, :, left]) * across
    lower = lower[:, :, left] + (lower[:, :, right] - lower[:, :, left]) * across
    return (upper + (lower - upper) * down[:, None] - 128) / 128


def _between(size: int, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Per output pixel: the two input pixels that it lies between, and where between them."""
    position = torch.arange(side, dtype=torch.float32) * torch.tensor(size / side)
    low = position.long()
    return low, (low + 1).clamp_max(size - 1), position - low


def _like_gan_metrics(picture: Tensor) -> Tensor:
    """Source: `InceptionV3.forward` in `models/inception.py` of abdulfatir/gan-metrics-pytorch."""
    pixels = picture[None].float() / 255
    return 2 * F.interpolate(pixels, (299, 299), mode="bilinear", align_corners=False)[0] - 1


def _ruler(picture: Tensor) -> Tensor:
    """64 x 64 in 0..1; pictures of the tiny world have that size and stay as they are."""
    return to_tensor(as_pil(picture).resize((64, 64), Image.Resampling.BICUBIC))


CLIP_224 = Preprocessing(
    "clip-224", _through_pil(Resize(224, BICUBIC), CenterCrop(224), statistics=CLIP_STATISTICS)
)
"""CLIP's own, and CSD's `transforms_branch0` (learn2phoenix/CSD, `loss_utils.py`)."""

CMMD_336 = Preprocessing(
    "cmmd-336",
    _through_pil(square_crop, Resize((336, 336), BICUBIC), statistics=CLIP_STATISTICS),
)
"""CMMD's (arXiv 2401.09603): the crop comes before the resize."""

DINOV2_224 = Preprocessing(
    "dinov2-224", _through_pil(Resize((224, 224), BICUBIC), statistics=IMAGENET_STATISTICS)
)
"""dgm-eval's (arXiv 2306.04675): the aspect is not kept."""

SSCD_320 = Preprocessing(
    "sscd-320", _through_pil(Resize((320, 320), BILINEAR), statistics=IMAGENET_STATISTICS)
)
"""SSCD's `skew_320`: square, the aspect not kept, so that pictures of all sizes make one batch."""

SSCD_288 = Preprocessing(
    "sscd-288", _through_pil(Resize(288, BILINEAR), statistics=IMAGENET_STATISTICS)
)
"""SSCD's `small_288`: shorter side 288, the whole picture; one batch per shape."""

INCEPTION_299 = Preprocessing("inception-tf-299", like_tensorflow)
"""What the FID network of 2015-12-05 does inside."""

INCEPTION_TORCH_299 = Preprocessing("inception-torch-299", _like_gan_metrics)
"""gan-metrics-pytorch's: torch's bilinear resize without antialias, the aspect not kept."""

RULER_64 = Preprocessing("ruler-64", _ruler)
"""Ours: 64 x 64, bicubic, the aspect not kept."""

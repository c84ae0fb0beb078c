"""Pictures and weights for encoders, made from formulas, so that everybody has the same ones.

`scripts/agreement/encoders.py` gives them to the reference implementations, and writes what those
made of them into `agreement/encoders.json`; the tests give them to ours.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ODD_SIZES = [(208, 1074), (223, 225), (301, 299), (1074, 208), (224, 224), (97, 64), (512, 768)]
"""Widths and heights. At 208 x 1074 torchvision cuts a fraction off the long side; others round."""

KINDS = ["RGB", "L", "RGBA", "P", "EXIF"]
FIXTURES = Path(__file__).parent / "agreement" / "encoders.json"


def pattern(width, height, channels=3):
    """Pixels uint8 `[h, w, c]`: waves over a ramp, so that every crop and turn is another one."""
    y, x, c = np.mgrid[:height, :width, :channels].astype(np.float64)
    waves = np.sin(x * (0.9 + 0.3 * c)) + np.cos(y * (1.1 - 0.2 * c)) + x / width - y / height
    return np.uint8(np.clip(128 + 48 * waves, 0, 255))


def some_pictures(n=3):
    """The first odd sizes as uint8 `[3, h, w]`."""
    return [torch.from_numpy(pattern(*size)).permute(2, 0, 1) for size in ODD_SIZES[:n]]


def write_pictures(folder, sizes=ODD_SIZES):
    """PNG files of odd sizes in every kind of pixels, and what they show in RGB by Pillow alone."""
    shown = {}
    for width, height in sizes:
        for kind in KINDS:
            image = Image.fromarray(
                pattern(width, height, {"L": 1, "RGBA": 4}.get(kind, 3)).squeeze()
            )
            image = image.quantize(64) if kind == "P" else image
            exif = Image.Exif()
            if kind == "EXIF":
                exif[0x0112] = 6
            path = folder / f"{width}x{height}-{kind}.png"
            image.save(path, exif=exif)
            shown[path] = _seen(image, kind)
    return shown


def _seen(image, kind):
    if kind == "EXIF":  # orientation 6: turned left by the camera, so seen turned right
        return image.transpose(Image.Transpose.ROTATE_270)
    if kind == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def weights(shapes):
    """Tensors by name from their shapes, each from its own name, of a size that signals survive."""
    return {name: _weight(name, tuple(shape)) for name, shape in shapes.items()}


def _weight(name, shape):
    if name.endswith("num_batches_tracked"):
        return torch.tensor(7)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        return noise.abs() * 0.2 + 0.5
    if len(shape) < 2:
        return noise * 0.1 + (1.0 if name.endswith(("weight", "gamma", "lambda1")) else 0.0)
    return noise * (2 / noise[0].numel()) ** 0.5


def reference(name):
    """What a reference made of `weights(shapes)` and `some_pictures()`: `shapes`, `values`, ..."""
    return json.loads(FIXTURES.read_text(encoding="utf-8"))["fixtures"][name]

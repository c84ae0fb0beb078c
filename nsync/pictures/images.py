"""Picture files and pixels: read the way a person sees them, or refused by name; and back."""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from ..errors import InputError

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
"""Pillow's names of the formats that are read; others (EPS, PDF, ...) may start programs."""

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jfif"}
)
"""Endings of the files that count as pictures in a folder, in lower case."""

MAX_PIXELS = 80_000_000
"""Larger pictures are refused: as floats they would take more than a gigabyte each."""


@dataclass(frozen=True)
class Reading:
    """A picture as it was read.

    Attributes:
        pixels: float32 `[3, h, w]` in 0..1, RGB, upright.
        notes: what a user may want to know of the reading, as phrases.
    """

    pixels: Tensor
    notes: tuple[str, ...] = ()


def read_image(path: str | Path) -> Tensor:
    """The picture in a file: float32 `[3, h, w]` in 0..1, RGB, turned upright, alpha on white.

    Raises:
        InputError: the file is no whole picture of at most `MAX_PIXELS`; it names the file.
    """
    return examine(path).pixels


def examine(path: str | Path) -> Reading:
    """Read a picture as `read_image` does, with notes on what was chosen in reading it."""
    path = Path(path)
    with _opened(path) as image:
        notes = _frame_notes(image)
        upright = ImageOps.exif_transpose(image)
        return Reading(_to_tensor(upright, path), notes)


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of a picture in pixels, as it stands upright, mostly without decoding it."""
    with _opened(Path(path)) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF orientation
        if turned and image.format == "TIFF":  # some releases of Pillow tell the turned size
            return ImageOps.exif_transpose(image).size
        return (height, width) if turned else (width, height)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The open picture; whatever Pillow raises on bad bytes becomes one InputError."""
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        if path.stat().st_size == 0:
            raise _refusal(path, "an empty file (0 bytes)")
        with _whole_files_only(), Image.open(path, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(path, f"{image.width} x {image.height} pixels")
            yield image
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, str(error)) from error
    except FileNotFoundError as error:
        raise _refusal(path, "no such file") from error
    except (OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error) as e:
        raise _refusal(path, f"unreadable data ({type(e).__name__}: {e})") from e


@contextmanager
def _whole_files_only() -> Iterator[None]:
    """Refuse truncated files even where another pack has told Pillow to fill them with grey."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _frame_notes(image: Image.Image) -> tuple[str, ...]:
    frames = getattr(image, "n_frames", 1)
    if frames == 1 or image.format == "MPO":  # a phone's MPO holds a preview, not a second frame
        return ()
    kind = "pages" if image.format == "TIFF" else "frames"
    return (f"has {frames} {kind}; the first is used",)


def _to_tensor(image: Image.Image, path: Path) -> Tensor:
    if image.mode.startswith("I"):  # "I", "I;16", "I;16B": Pillow would clip these at 255
        return _grey16(image, path)
    if image.mode == "F":
        raise _refusal(path, "floating-point pixels", "Save it with 8 or 16 bits per channel.")
    array = np.asarray(on_white(image), dtype=np.float32) / 255
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def on_white(image: Image.Image) -> Image.Image:
    """The picture in RGB, 8 bit, with what is transparent in it put on white."""
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("RGB")


def _grey16(image: Image.Image, path: Path) -> Tensor:
    array = np.asarray(image).astype(np.float32)
    if array.min() < 0 or array.max() > 65535:
        raise _refusal(path, "32-bit integer pixels", "Save it with 8 or 16 bits per channel.")
    return torch.from_numpy(array / 65535).expand(3, -1, -1).contiguous()


def _refusal(path: Path, got: str, remedy: str = "") -> InputError:
    remedy = remedy or "Replace the file or take it out of the folder."
    return InputError(path.name, "a whole picture (PNG, JPEG, WebP, ...)", got, remedy)


def _too_large(path: Path, got: str) -> InputError:
    limit = f"a picture of at most {MAX_PIXELS // 1_000_000} million pixels"
    return InputError(path.name, limit, got, "Scale it down first.")


def to_uint8(pixels: Tensor) -> Tensor:
    """Pixels 0..1 to 8 bit, the way a saved PNG holds them."""
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)


def to_picture(pixels: Tensor) -> Image.Image:
    """Pixels `[3, h, w]` in 0..1, on any device, as an 8-bit RGB picture."""
    return Image.fromarray(to_uint8(pixels).permute(1, 2, 0).cpu().numpy())


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file of the picture."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()

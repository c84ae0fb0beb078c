"""Reading pictures: real files of every awkward kind, read rightly or refused by name."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from nsync.errors import InputError
from nsync.pictures.images import MAX_PIXELS, examine, image_size, read_image

ORANGE = (250, 120, 10)


def _photo(width=60, height=40):
    """A picture with an orange top-left quarter on blue, so that every turn of it differs."""
    image = Image.new("RGB", (width, height), (10, 40, 200))
    image.paste(ORANGE, (0, 0, width // 2, height // 2))
    return image


def _at(pixels, x, y):
    return [round(float(value) * 255) for value in pixels[:, y, x]]


def test_png_is_read_to_the_bit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")

    pixels = read_image(tmp_path / "a.png")

    assert pixels.shape == (3, 20, 30)
    assert pixels.dtype == torch.float32
    assert torch.equal((pixels * 255).round().byte(), torch.from_numpy(noise).permute(2, 0, 1))


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "gif", "tif"])
def test_formats(tmp_path, suffix):
    _photo().save(tmp_path / f"a.{suffix}")
    pixels = read_image(tmp_path / f"a.{suffix}")
    assert pixels.shape == (3, 40, 60)
    assert _at(pixels, 5, 5) == pytest.approx(ORANGE, abs=6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turn_is_undone(tmp_path, orientation):
    """A camera that was turned stores turned pixels and says so; we see what it saw."""
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = _photo() if orientation == 1 else _photo().transpose(inverse[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "jpg", "tif"):
        path = tmp_path / f"turned.{suffix}"
        stored.save(path, exif=exif)

        pixels = read_image(path)

        assert pixels.shape == (3, 40, 60)
        assert _at(pixels, 3, 3) == pytest.approx(ORANGE, abs=8)
        assert _at(pixels, 56, 3) == pytest.approx((10, 40, 200), abs=8)
        assert image_size(path) == (60, 40)


def test_alpha_is_put_on_white(tmp_path):
    image = Image.new("RGBA", (3, 1), (*ORANGE, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    image.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert _at(pixels, 0, 0) == list(ORANGE)
    assert _at(pixels, 1, 0) == [255, 255, 255]
    assert _at(pixels, 2, 0) == pytest.approx([127, 127, 127], abs=1)


def test_grey_with_alpha_is_put_on_white(tmp_path):
    Image.new("LA", (2, 2), (0, 0)).save(tmp_path / "a.png")
    assert _at(read_image(tmp_path / "a.png"), 0, 0) == [255, 255, 255]


def test_palette_with_and_without_a_transparent_entry(tmp_path):
    palette = _photo().quantize(4)
    palette.save(tmp_path / "a.png")
    palette.save(tmp_path / "hole.png", transparency=palette.getpixel((0, 0)))
    assert _at(read_image(tmp_path / "a.png"), 5, 5) == pytest.approx(ORANGE, abs=2)
    assert _at(read_image(tmp_path / "hole.png"), 5, 5) == [255, 255, 255]


def test_grey_and_two_level_pictures_become_three_equal_channels(tmp_path):
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png")
    Image.new("1", (4, 4), 1).save(tmp_path / "bits.png")
    assert _at(read_image(tmp_path / "grey.png"), 0, 0) == [77, 77, 77]
    assert _at(read_image(tmp_path / "bits.png"), 0, 0) == [255, 255, 255]


def test_grey_of_16_bits_keeps_its_range(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, 256)
    for name in ("ramp.png", "ramp.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        pixels = read_image(tmp_path / name)
        assert torch.allclose(pixels[1, 0], torch.linspace(0, 1, 256), atol=1e-4)


def test_colour_of_16_bits(tmp_path):
    row = b"\0" + struct.pack(">6H", 65535, 32768, 0, 0, 0, 65535)
    _write_png(tmp_path / "a.png", 2, 1, depth=16, colour=2, data=zlib.compress(row))
    pixels = read_image(tmp_path / "a.png")
    assert _at(pixels, 0, 0) == [255, 128, 0]
    assert _at(pixels, 1, 0) == [0, 0, 255]


def test_cmyk(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.tif")
    for name in ("red.jpg", "red.tif"):
        assert _at(read_image(tmp_path / name), 4, 4) == pytest.approx([255, 0, 0], abs=4)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_first_frame_of_an_animation_is_used_and_noted(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    path = tmp_path / f"moving.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])

    reading = examine(path)

    assert _at(reading.pixels, 4, 4) == pytest.approx([255, 0, 0], abs=4)
    assert reading.notes == ("has 3 frames; the first is used",)


def test_still_picture_has_no_notes(tmp_path):
    _photo().save(tmp_path / "a.png")
    assert examine(tmp_path / "a.png").notes == ()


def test_picture_of_one_pixel_and_a_very_wide_one_are_read(tmp_path):
    Image.new("RGB", (1, 1), ORANGE).save(tmp_path / "dot.png")
    Image.new("RGB", (20_000, 30), ORANGE).save(tmp_path / "wide.png")
    assert read_image(tmp_path / "dot.png").shape == (3, 1, 1)
    assert read_image(tmp_path / "wide.png").shape == (3, 30, 20_000)


def _refused(path):
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert path.name in str(caught.value)
    return str(caught.value)


def test_empty_file(tmp_path):
    (tmp_path / "a.png").touch()
    assert "0 bytes" in _refused(tmp_path / "a.png")


def test_text_called_png(tmp_path):
    (tmp_path / "a.png").write_text("not a picture")
    assert "unreadable" in _refused(tmp_path / "a.png")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png.*no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(InputError, match=tmp_path.name):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
def test_truncated_file(tmp_path, suffix):
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix))
    data = whole.getvalue()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(data[: len(data) * 2 // 3])
    assert "expected a whole picture" in _refused(path)


def test_truncated_file_is_refused_though_another_pack_allows_them(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    _photo(300, 300).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    _refused(tmp_path / "a.jpg")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("side", [9_500, 50_000])
def test_decompression_bomb(tmp_path, side):
    """A few bytes that claim gigabytes of pixels are refused from the header alone."""
    assert side**2 > MAX_PIXELS
    _write_png(tmp_path / "bomb.png", side, side, depth=8, colour=2, data=zlib.compress(b"\0"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert "million pixels" in _refused(tmp_path / "bomb.png")


def test_postscript_is_never_run(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "unreadable" in _refused(tmp_path / "a.png")


def test_other_formats_are_refused_whatever_they_are_called(tmp_path):
    _photo().save(tmp_path / "a.png", "PCX")
    assert "unreadable" in _refused(tmp_path / "a.png")


def test_float_pixels_are_refused_with_a_remedy(tmp_path):
    Image.new("F", (4, 4), 3.5).save(tmp_path / "a.tif")
    assert "8 or 16 bits" in _refused(tmp_path / "a.tif")


def _write_png(path, width, height, *, depth, colour, data):
    """A PNG chunk by chunk: kinds that Pillow reads but cannot write, and lies about the size."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = (chunk(b"IHDR", head), chunk(b"IDAT", data), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))

"""Buckets: one area, the picture's own aspect, nothing squashed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nsync.pictures.buckets import MAX_ASPECT, bucket_size, fit

sides = st.integers(min_value=1, max_value=20_000)
multiples = st.sampled_from([4, 8, 16, 32, 64])


@given(sides, sides, st.sampled_from([256, 512, 768, 1024]), multiples)
def test_bucket_has_the_area_and_the_aspect(width, height, resolution, multiple):
    wide, high = bucket_size(width, height, resolution, multiple)

    assert wide % multiple == high % multiple == 0
    aspect = min(max(width / height, 1 / MAX_ASPECT), MAX_ASPECT)
    shorter = resolution / math.sqrt(max(aspect, 1 / aspect))
    step = math.log1p(multiple / (shorter - multiple))  # what one multiple is, at most, in logs
    assert abs(math.log(wide * high / resolution**2)) <= 2 * step
    assert abs(math.log(wide / high / aspect)) <= step


@given(sides, sides, multiples)
def test_bucket_of_a_turned_picture_is_the_turned_bucket(width, height, multiple):
    assert (
        bucket_size(width, height, 512, multiple) == bucket_size(height, width, 512, multiple)[::-1]
    )


@pytest.mark.parametrize(
    ("picture", "resolution", "multiple", "bucket"),
    [
        ((512, 512), 512, 8, (512, 512)),
        ((4000, 4000), 1024, 64, (1024, 1024)),
        ((3000, 2000), 512, 64, (576, 384)),
        ((20_000, 500), 512, 64, (1024, 256)),
        ((64, 64), 64, 4, (64, 64)),
        ((1, 1), 64, 64, (64, 64)),
    ],
)
def test_bucket_of_known_pictures(picture, resolution, multiple, bucket):
    assert bucket_size(*picture, resolution, multiple) == bucket


def test_side_is_never_zero():
    assert bucket_size(4000, 1000, 64, 64) == (128, 64)


def _disc(width, height, radius):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = (x - (width - 1) / 2) ** 2 + (y - (height - 1) / 2) ** 2 <= radius**2
    return inside.float().expand(3, -1, -1).contiguous()


@pytest.mark.parametrize("picture", [(300, 200), (200, 300), (200, 200), (1000, 120), (150, 1100)])
@pytest.mark.parametrize("size", [(128, 128), (192, 96), (96, 160)])
def test_fit_keeps_a_disc_round_and_central(picture, size):
    fitted = fit(_disc(*picture, radius=40), size)

    assert fitted.shape == (3, size[1], size[0])
    disc = fitted[0] > 0.5
    spans = [torch.where(disc.any(axis))[0] for axis in (0, 1)]
    across, down = (len(span) for span in spans)
    scale = max(size[0] / picture[0], size[1] / picture[1])
    expected = [min(80 * scale, side) for side in size]
    assert across == pytest.approx(expected[0], abs=2)
    assert down == pytest.approx(expected[1], abs=2)
    for span, side in zip(spans, size, strict=True):
        assert span.float().mean() == pytest.approx((side - 1) / 2, abs=1)


def test_fit_of_the_right_size_is_the_picture_itself():
    picture = torch.rand(3, 48, 64)
    assert fit(picture, (64, 48)) is picture


def test_fit_smooths_what_it_shrinks():
    stripes = (torch.arange(512) % 2).float().expand(3, 512, 512)
    assert fit(stripes, (100, 100)).std() < 0.01


def test_fit_stays_in_range():
    edges = (torch.rand(3, 40, 60) > 0.5).float()
    fitted = fit(edges, (128, 96))
    assert fitted.min() >= 0
    assert fitted.max() <= 1


def test_fit_of_a_long_strip_equals_the_middle_of_it():
    strip = torch.rand(3, 16, 20_000)
    middle = strip[:, :, 10_000 - 160 : 10_000 + 160]
    assert torch.allclose(fit(strip, (64, 64)), fit(middle, (64, 64)), atol=1e-5)

"""Differentiable augmentation against plain loops; its draws against what they should be."""

import itertools

import pytest
import torch
from gan_files import normal

from nsync.errors import InputError
from nsync.supcon.gan.augment import (
    COLOR,
    CUTOUT,
    POLICIES,
    TRANSLATION,
    Change,
    augment,
    draw_change,
)


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=5, size=16):
    return normal(f"{count} of {size}", count, 3, size, size)


def colored_plainly(picture, brightness, saturation, contrast):
    _, rows, columns = picture.shape
    out = [[[picture[c, y, x].item() + brightness for x in range(columns)] for y in range(rows)]
           for c in range(3)]  # fmt: skip
    places = list(itertools.product(range(rows), range(columns)))
    for y, x in places:
        grey = sum(out[c][y][x] for c in range(3)) / 3
        for c in range(3):
            out[c][y][x] = grey + saturation * (out[c][y][x] - grey)
    middle = sum(out[c][y][x] for c in range(3) for y, x in places) / (3 * len(places))
    for c, (y, x) in itertools.product(range(3), places):
        out[c][y][x] = middle + contrast * (out[c][y][x] - middle)
    return torch.tensor(out, dtype=torch.float64)


def translated_plainly(picture, up, left):
    out, size = torch.zeros_like(picture), picture.shape[1]
    for y, x in itertools.product(range(size), repeat=2):
        if 0 <= y + up < size and 0 <= x + left < size:
            out[:, y, x] = picture[:, y + up, x + left]
    return out


def cut_plainly(picture, row, column):
    out, size = picture.clone(), picture.shape[1]
    hole = size // 2
    for y, x in itertools.product(range(hole), repeat=2):
        # The published form: what reaches over the edge is moved onto the edge.
        out[:, min(max(y + row - hole // 2, 0), size - 1),
            min(max(x + column - hole // 2, 0), size - 1)] = 0  # fmt: skip
    return out


PLAINLY = {COLOR: colored_plainly, TRANSLATION: translated_plainly, CUTOUT: cut_plainly}


@pytest.mark.parametrize("size", [16, 17, 18])
@pytest.mark.parametrize("policies", [(p,) for p in POLICIES] + [POLICIES])
def test_every_change_against_a_loop(policies, size):
    images = pictures(9, size)
    change = draw_change(9, size, source(size), policies)
    expected = list(images)
    for name in policies:
        amounts = getattr(change, name).tolist()
        pairs = zip(expected, amounts, strict=True)
        expected = [PLAINLY[name](picture, *each) for picture, each in pairs]
    changed = augment(images, change)
    assert torch.allclose(changed, torch.stack(expected), rtol=1e-6, atol=1e-7)
    assert not torch.allclose(changed, images)


@pytest.mark.parametrize("policies", [(p,) for p in POLICIES] + [POLICIES])
def test_gradients_flow_of_both_orders(policies):
    change = draw_change(1, 8, source(), policies)
    images = pictures(1, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, change), (images,))
    slow = torch.autograd.gradgradcheck
    assert slow(lambda x: augment(x, change).square()[:, :, ::3, ::3], (images,))


def test_one_change_for_several_batches_and_never_from_global_state():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    real, fake = pictures(4), normal("fake", 4, 3, 16, 16)
    change = draw_change(4, 16, source(3))
    torch.manual_seed(2)
    again = draw_change(4, 16, source(3))
    other = draw_change(4, 16, source(4))
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(augment(real, change), augment(real, again))
    assert torch.equal(augment(fake, change), augment(fake, again))
    assert not torch.equal(augment(real, change), augment(real, other))
    # What is linear shows that it was one change: the difference, changed without brightness.
    still = Change(16, None, change.translation, change.cutout)
    moved = augment(real, still) - augment(fake, still)
    assert torch.allclose(moved, augment(real - fake, still))


def test_a_policy_is_drawn_alike_whichever_others_there_are():
    everything = draw_change(6, 16, source())
    for name in POLICIES:
        alone = draw_change(6, 16, source(), (name,))
        assert torch.equal(getattr(alone, name), getattr(everything, name))
        assert [n for n in POLICIES if getattr(alone, n) is not None] == [name]
    images = pictures(6)
    assert torch.equal(augment(images, draw_change(6, 16, source(), ())), images)


def test_draws_are_uniform_over_their_ranges():
    count = 40_000
    change = draw_change(count, 20, source())
    lowest, highest = torch.tensor([-0.5, 0, 0.5]), torch.tensor([0.5, 2, 1.5])
    assert (change.color >= lowest).all()
    assert (change.color <= highest).all()
    assert torch.allclose(change.color.mean(0), (lowest + highest) / 2, atol=0.01)
    spread = (highest - lowest) / 12**0.5
    assert torch.allclose(change.color.std(0), spread, rtol=0.02)
    for drawn, values in (
        (change.translation, range(-2, 3)),  # an eighth of 20 px is 2
        (change.cutout, range(21)),  # the hole of 10 px is even: 21 places
        (draw_change(count, 18, source()).cutout, range(18)),  # of 9 px: 18
    ):
        for k in (0, 1):
            found, counts = drawn[:, k].unique(return_counts=True)
            assert found.tolist() == list(values)
            share = 1 / len(values)
            error = 5 * (share * (1 - share) / count) ** 0.5
            assert ((counts / count) - share).abs().max() < error


def test_precision_is_kept():
    images = pictures().bfloat16()
    assert augment(images, draw_change(5, 16, source())).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: draw_change(2, 16, source(), ("colour",)), "color, translation, cutout"),
        (lambda: draw_change(2, 7, source()), "8 px"),
        (lambda: augment(pictures(3), draw_change(2, 16, source())), r"\[2, 3, 16, 16\]"),
        (lambda: augment(pictures(2, 8), draw_change(2, 16, source())), r"\[2, 3, 16, 16\]"),
    ],
)
def test_bad_input_is_one_error(call, text):
    with pytest.raises(InputError, match=text):
        call()

"""What the families have in common: sizes, errors, gradients, and a tower that stays frozen."""

import copy
from dataclasses import replace

import pytest
import torch
from gan_files import fill, normal, tower
from torch import nn
from transformers import CLIPVisionModelWithProjection

from nsync.errors import InputError
from nsync.supcon.gan import FAMILIES
from nsync.supcon.gan.attn_gan import AttnGan
from nsync.supcon.gan.clip_tower import ClipTower
from nsync.supcon.gan.dm_gan import DmGan
from nsync.supcon.gan.galip import Galip
from nsync.supcon.gan.ssa_gan import SsaGan

_STAGED = {"stages": 2, "noise": 5, "text_width": 6, "condition_width": 3, "residual_blocks": 1}
SMALL = {
    "SSA-GAN": SsaGan(32, width=2, noise=5, text_width=6, mask_width=3),
    "GALIP": Galip(
        32, width=2, noise=5, text_width=6, code_width=4, bridge_width=3, seen_width=5,
        joint_width=4, watched=(0, 2), prompted=(1, 2),
    ),
    "AttnGAN": AttnGan(32, width=3, discriminator_width=2, **_STAGED),
    "DM-GAN": DmGan(32, width=8, discriminator_width=2, **_STAGED),
}  # fmt: skip


def small_tower(side=16, patch=4):
    return tower(width=8, layers=3, heads=2, side=side, patch=patch)


def built(family, vision=None):
    if family.needs_vision and vision is None:
        vision = small_tower()
    networks = family.build(vision)
    fill(networks.generator)
    for judge in networks.discriminators:
        fill(judge)
    return networks


def inputs(family, count=3):
    """Noise and text; and words and mask, with a word in each text's first place."""
    noise = family.noise + getattr(family, "condition_width", 0)
    mask = torch.arange(4) < torch.arange(1, count + 1)[:, None]
    words = normal("w", count, 4, family.text_width)
    return normal("z", count, noise), normal("t", count, family.text_width), words, mask


def judged(judge, pictures, text):
    return judge.judge(judge.features(judge.observe(pictures)), text)


def test_every_family_is_tried_here():
    assert {name: type(family) for name, family in SMALL.items()} == FAMILIES


@pytest.mark.parametrize("name", SMALL)
def test_generators_say_how_much_noise_they_want(name):
    generator, _ = built(SMALL[name])
    assert generator.noise == inputs(SMALL[name])[0].shape[1]


STAGES = {name: getattr(family, "stages", 1) for name, family in SMALL.items()}
SIZES = [(name, stages, 8 * stages * 2**k) for name, stages in STAGES.items() for k in range(4)]


@pytest.mark.parametrize(("name", "stages", "size"), SIZES)
def test_any_size_of_pictures(name, stages, size):
    """From the smallest on, whose first stage is of 8 px."""
    family = replace(SMALL[name], image_size=size)
    generator, discriminators = built(family)
    given = inputs(family)
    painted = generator.eval()(*given)
    assert len(painted.images) == len(discriminators) == stages
    assert painted.divergence.shape == (3,)
    assert painted.divergence.any() == family.needs_words
    sides = [size // 2**k for k in reversed(range(stages))]
    for side, pictures, judge in zip(sides, painted.images, discriminators, strict=True):
        assert pictures.shape == (3, 3, side, side)
        assert pictures.abs().max() <= 1
        features = judge.features(judge.observe(pictures))
        made = judge.judge(features, given[1])
        assert made.score.shape == (3,)
        assert torch.equal(made.features, features.mean((2, 3)))
        asked_apart = made.unconditional is not None
        assert asked_apart == (stages > 1)


@pytest.mark.parametrize("name", SMALL)
def test_everything_trained_gets_a_gradient_and_everything_given_is_used(name):
    family = SMALL[name]
    generator, discriminators = built(family)
    *given, mask = inputs(family)
    noise, text, words = (each.requires_grad_() for each in given)
    painted = generator(noise, text, words, mask)
    total = painted.divergence.sum()
    for pictures, judge in zip(painted.images, discriminators, strict=True):
        made = judged(judge, pictures, text)
        total = total + made.score.square().sum()
        if made.unconditional is not None:
            total = total + made.unconditional.square().sum()
    total.backward()
    for key, value in [*generator.named_parameters(), *discriminators.named_parameters()]:
        assert value.grad is not None, key
        # A bias before a batch normalisation has no say: its gradient is rounding, or 0.
        assert value.grad.any() or key.endswith("bias"), key
    assert noise.grad.any(1).all()
    assert text.grad.any(1).all()
    if family.needs_words:
        assert torch.equal(words.grad.any(2), mask)


@pytest.mark.parametrize("name", SMALL)
def test_features_are_of_the_pictures_alone(name):
    family = SMALL[name]
    judge = built(family).discriminators[-1].eval()
    pictures, text = normal("p", 3, 3, 32, 32), inputs(family)[1]
    features = judge.features(judge.observe(pictures))
    one, other = judge.judge(features, text), judge.judge(features, text.roll(1, 0))
    assert torch.equal(one.features, other.features)
    assert (one.score - other.score).abs().min() > 1e-3
    if one.unconditional is not None:
        assert torch.equal(one.unconditional, other.unconditional)
    alone = judged(judge, pictures[:1], text[:1])
    assert torch.allclose(alone.score, one.score[:1], rtol=1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_pictures_are_judged_alone_in_training_where_the_family_says_so(name):
    family = SMALL[name]
    judge = built(family).discriminators[-1].train()
    pictures, text = normal("p", 3, 3, 32, 32), inputs(family)[1]
    one, alone = judged(judge, pictures, text), judged(judge, pictures[:1], text[:1])
    assert torch.allclose(alone.score, one.score[:1], rtol=1e-6) == family.judges_alone


def test_untrained_ssa_gan_begins_without_text():
    """As published: what the text says starts from nothing, behind a residual of nothing."""
    family = SMALL["SSA-GAN"]
    torch.manual_seed(0)
    generator, _ = family.build()
    noise, text = (each.float() for each in inputs(family)[:2])
    assert torch.equal(generator(noise, text).images[0], generator(noise, -text).images[0])


@pytest.mark.parametrize("grid", [1, 2, 3, 4, 7])
def test_any_grid_of_the_tower(grid):
    family = SMALL["GALIP"]
    generator, [judge] = built(family, small_tower(4 * grid))
    noise, text, *_ = inputs(family)
    [picture] = generator(noise, text).images
    assert picture.shape == (3, 3, 32, 32)
    observed = judge.observe(picture)
    assert observed.shape == (3, 2, 8, grid, grid)
    assert judge.judge(judge.features(observed), text).score.shape == (3,)


def test_the_tower_sees_what_transformers_sees():
    """Layer by layer, pictures at its own size."""
    vision = small_tower()
    looked = ClipTower(vision).look(normal("p", 2, 3, 16, 16), (0, 1, 2))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    pixels = ((normal("p", 2, 3, 16, 16) + 1) / 2 - mean) / deviation
    hidden = vision(pixels, output_hidden_states=True).hidden_states[1:]
    for k in range(3):
        places = hidden[k][:, 1:].transpose(1, 2).reshape(2, 8, 4, 4)
        assert torch.allclose(looked[:, k], places, rtol=1e-5, atol=1e-6)


def test_other_sizes_are_brought_to_the_towers_without_losing_rows():
    tower = ClipTower(small_tower())

    def seen(picture):
        return tower.look(picture.expand(1, 3, *picture.shape), (2,))

    grey = torch.zeros(16, 16, dtype=torch.float64)
    stripes = grey.new_tensor([-0.5, 0.5, 0.5, -0.5]).repeat(16)[:, None].expand(64, 64)
    assert torch.allclose(seen(torch.full_like(grey, 0.3)), seen(torch.full_like(stripes, 0.3)))
    lost = (seen(grey + 0.5) - seen(grey)).norm()
    assert (seen(stripes) - seen(grey)).norm() < 0.3 * lost


def test_a_tower_with_a_projection_is_as_good():
    config = small_tower().config
    vision = CLIPVisionModelWithProjection(config).double()
    alone = ClipTower(vision.vision_model).look(normal("p", 2, 3, 16, 16), (1,))
    assert torch.equal(ClipTower(vision).look(normal("p", 2, 3, 16, 16), (1,)), alone)


def test_the_tower_is_frozen_shared_and_not_saved():
    vision = small_tower()
    before = {key: value.clone() for key, value in vision.state_dict().items()}
    generator, [judge] = SMALL["GALIP"].build(vision.train())
    vision.float()
    generator.train(), judge.train()
    assert not any(part.training for part in vision.modules())
    owned = {id(p) for net in (generator, judge) for p in net.parameters()}
    assert not owned & {id(p) for p in vision.parameters()}
    assert not any(p.requires_grad for p in vision.parameters())
    assert not any("tower" in key for key in [*generator.state_dict(), *judge.state_dict()])
    average = copy.deepcopy(generator)
    assert average.bridge.tower._held[0] is vision
    assert average.start.weight is not generator.start.weight
    judge.double()
    assert next(vision.parameters()).dtype == torch.float64
    generator.double()
    picture = generator(*inputs(SMALL["GALIP"])).images[0]
    judge.observe(picture).sum().backward()
    assert generator.start.weight.grad.any()
    assert all(p.grad is None for p in vision.parameters())
    assert all(torch.equal(before[key], value) for key, value in vision.state_dict().items())


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("SSA-GAN", {"image_size": 48}, "image_size.*power of two of 8 or more; got 48"),
        ("SSA-GAN", {"image_size": 4}, "power of two of 8"),
        ("SSA-GAN", {"image_size": 32.0}, "whole number"),
        ("SSA-GAN", {"width": 0}, "width.*1 or more; got 0"),
        ("SSA-GAN", {"noise": True}, "noise"),
        ("SSA-GAN", {"text_width": 0}, "text_width"),
        ("SSA-GAN", {"mask_width": 0}, "mask_width"),
        ("AttnGAN", {"image_size": 8}, "image_size.*power of two of 16"),
        ("AttnGAN", {"stages": 4}, "image_size.*power of two of 64"),
        ("AttnGAN", {"stages": 1}, "stages.*2 or more"),
        ("AttnGAN", {"discriminator_width": 0}, "discriminator_width"),
        ("DM-GAN", {"image_size": 48}, "image_size.*power of two"),
        ("DM-GAN", {"condition_width": 0}, "condition_width"),
        ("DM-GAN", {"residual_blocks": 0}, "residual_blocks"),
        ("GALIP", {"image_size": 7}, "image_size.*8 or more"),
        ("GALIP", {"joint_width": 0}, "joint_width"),
        ("GALIP", {"watched": ()}, "watched.*ascending"),
        ("GALIP", {"watched": (2, 1)}, "watched.*ascending"),
        ("GALIP", {"prompted": (1, 1)}, "prompted.*ascending"),
        ("GALIP", {"prompted": (-1, 1)}, "prompted.*ascending"),
    ],
)
def test_bad_settings_are_one_error(name, change, text):
    family = replace(SMALL[name], **change)
    with pytest.raises(InputError, match=text):
        family.check()
    with pytest.raises(InputError, match=text):
        family.build(small_tower() if family.needs_vision else None)


@pytest.mark.parametrize(
    ("change", "vision", "text"),
    [
        ({}, None, "CLIP vision tower.*NoneType"),
        ({}, nn.Linear(2, 2), "CLIP vision tower.*Linear"),
        ({"watched": (0, 3)}, small_tower(), "watched.*layers 0 to 2"),
        ({"prompted": (3,)}, small_tower(), "prompted.*layers 0 to 2"),
        ({"image_size": 8}, small_tower(32), "more than the tower's grid of 8"),
    ],
)
def test_a_tower_that_does_not_fit_is_one_error(change, vision, text):
    with pytest.raises(InputError, match=text):
        replace(SMALL["GALIP"], **change).build(vision)

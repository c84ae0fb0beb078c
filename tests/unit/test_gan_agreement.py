"""Our GANs against what the published networks made of equal weights and inputs."""

import json

import pytest
import torch
from gan_files import FIXTURES, GALIP, SSA_GAN, columns, fill, images, noise_and_text, tower

from nsync.supcon.gan.penalties import matching_aware_penalty

TOLD = json.loads(FIXTURES.read_text(encoding="utf-8"))
THEIRS = TOLD["fixtures"]


def agrees(values, theirs, gate=1e-7):
    """Fixtures have nine digits; those of float32 (a larger gate) fewer that count."""
    ours, theirs = torch.tensor(columns(values)), torch.tensor(theirs)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= gate * theirs.abs().max()


@pytest.mark.parametrize("row", TOLD["figures"], ids=lambda row: row["check"])
def test_figures_are_within_their_gates(row):
    assert row["difference"] <= row["gate"] <= 1e-5


def test_ssa_gan_paints_what_the_published_one_paints():
    generator, _ = SSA_GAN.build()
    fill(generator)
    with torch.no_grad():
        for mode in ("train", "eval"):
            [picture] = getattr(generator, mode)()(*noise_and_text(SSA_GAN)).images
            assert picture.shape == (3, 3, 256, 256)
            agrees(picture, THEIRS["ssa_gan"][f"images_{mode}"])


def test_galip_paints_what_the_published_one_paints():
    generator, _ = GALIP.build(tower())
    fill(generator)
    with torch.no_grad():
        [picture] = generator(*noise_and_text(GALIP)).images
        agrees(picture, THEIRS["galip"]["images"], 1e-5)
        [shown] = generator.eval()(*noise_and_text(GALIP)).images
    assert torch.equal(shown, picture.clamp(-1, 1))


@pytest.mark.parametrize("name", ["ssa_gan", "galip"])
def test_discriminators_judge_as_the_published_ones(name):
    family = {"ssa_gan": SSA_GAN, "galip": GALIP}[name]
    _, [judge] = family.build(tower() if family.needs_vision else None)
    fill(judge)
    gate = 1e-5 if family.needs_vision else 1e-7
    observed = judge.observe(images(family.image_size)).detach().requires_grad_()
    if family.needs_vision:
        agrees(observed, THEIRS[name]["observed"], gate)
    text = noise_and_text(family)[1].requires_grad_()
    judged = judge.judge(judge.features(observed), text)
    agrees(judged.features, THEIRS[name]["features"], gate)
    agrees(judged.score[:, None], THEIRS[name]["score"], gate)
    penalty = matching_aware_penalty(judged.score, (observed, text))
    # A sixth power, so of six times the difference.
    assert penalty.item() == pytest.approx(THEIRS[name]["penalty"], rel=6 * gate)
    [slope] = torch.autograd.grad(penalty, judge.score[0].weight)
    agrees(slope[None], THEIRS[name]["penalty_gradient"], 6 * gate)

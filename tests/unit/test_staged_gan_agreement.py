"""AttnGAN, DM-GAN and their losses against what the published code made of equal weights."""

import json

import pytest
import torch
from gan_files import columns, images
from staged_files import (
    FAMILIES,
    FIXTURES,
    LABELS,
    built,
    discriminator_loss,
    generator_loss,
    kernel,
    regions_and_words,
    rows,
    told,
)

from nsync.supcon.words import word_matching

RECORD = json.loads(FIXTURES.read_text(encoding="utf-8"))
THEIRS = RECORD["fixtures"]


def agrees(values, theirs):
    """Fixtures have nine digits."""
    ours, theirs = torch.tensor(columns(values)), torch.tensor(theirs)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-7 * theirs.abs().max()


def steps_as_theirs(loss, weight, theirs):
    assert loss.item() == pytest.approx(theirs["value"], rel=1e-7)
    [slope] = torch.autograd.grad(loss, weight)
    agrees(slope[None], theirs["gradient"])


@pytest.mark.parametrize("row", RECORD["figures"], ids=lambda row: row["check"])
def test_figures_are_within_their_gates(row):
    assert row["difference"] <= row["gate"] <= 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_paints_and_learns_as_the_published_one(name):
    family, theirs = FAMILIES[name], THEIRS[name]
    networks, given = built(family), told(family)
    for mode in ("eval", "train"):
        painted = getattr(networks.generator, mode)()(*given)
        for k, pictures in enumerate(painted.images):
            assert pictures.shape == (3, 3, 64 * 2**k, 64 * 2**k)
            agrees(pictures, theirs[f"images_{mode}_{k + 1}"])
    loss = generator_loss(family, networks, painted, given)
    steps_as_theirs(loss, networks.generator.start[0].weight, theirs["generator"])


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_judges_and_learns_to_judge_as_the_published_one(name, stage):
    family, theirs = FAMILIES[name], THEIRS[name]
    judge = built(family).discriminators[stage - 1].eval()
    pictures, text = images(family.sides[stage - 1]), told(family)[1]
    judged = judge.judge(judge.features(judge.observe(pictures)), text)
    agrees(judged.features, theirs[f"features_{stage}"])
    for asked in ("score", "unconditional"):
        agrees(getattr(judged, asked).sigmoid()[:, None], theirs[f"{asked}_{stage}"])
    loss = discriminator_loss(judge.train(), pictures, pictures.flip(0, 2), text)
    steps_as_theirs(loss, kernel(judge), theirs[f"loss_{stage}"])


@pytest.mark.parametrize("labels", [None, LABELS])
def test_words_match_as_in_the_published_loss(labels):
    """Which is the sum of both ways, without the root: with 5 times the gamma3."""
    regions, words, mask = regions_and_words(256, 17)
    given = None if labels is None else torch.tensor(labels)
    loss = 2 * word_matching(rows(regions), words, mask, given, gamma3=50.0)
    steps_as_theirs(loss, regions, THEIRS[f"words_{'with' if labels else 'without'}_labels"])

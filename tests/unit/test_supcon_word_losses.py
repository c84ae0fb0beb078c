"""Words in both phases: the terms that they add, by sums over numbers in float64."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gan_files import normal
from gan_runs import ATTN_GAN, QUICK_STAGED, run_gan
from gan_steps import SETTINGS, WIDTH, networks, side
from pretraining_runs import FLAGS, SHORT, run_pretraining
from supcon_sets import SIDE, small
from test_supcon_words import plain_loss, plainly

from nsync.runs.folder import RunFolder
from nsync.supcon.encoders import Pictures
from nsync.supcon.gan import FAMILIES
from nsync.supcon.gan.settings import GanSettings, defaults
from nsync.supcon.gan.steps import generator_loss, paint
from nsync.supcon.pairs import draw_rows, read_pairs, split

LABELS = [0, 1, 0, 2]
TEXTS = [[0, 1, 2, 3], [4, 0, 5, 4]]
GIVEN = replace(SETTINGS, batch=4, match_weight=0.5, contrast="none")


class Eyes:
    """Six regions of a picture, each a mean colour through a matrix of its own."""

    def images(self, pixels):
        maps = torch.nn.functional.adaptive_avg_pool2d(pixels, (2, 3)).flatten(2)
        regions = torch.einsum("ncr,rcd->nrd", maps, normal("eyes", 6, 3, WIDTH))
        return Pictures(regions.mean(1), regions)


def sides():
    made = [side(branch, LABELS, TEXTS[branch]) for branch in (0, 1)]
    mask = torch.tensor([[1, 1], [1, 0], [1, 1], [0, 1]]).bool()
    return [one._replace(mask=mask) for one in made]


def wanted(settings, given):
    painter, judges = networks()
    return generator_loss(settings, judges, Eyes(), given, paint(painter, given), 0)


@pytest.mark.parametrize("mask", [True, False], ids=["labels", "texts"])
def test_the_word_match_is_the_formula_over_both_branches(mask):
    given, painter = sides(), networks()[0]
    settings = replace(GIVEN, class_mask=mask, word_match_weight=3.0)
    told, before = wanted(settings, given), wanted(replace(settings, word_match_weight=0.0), given)
    expected = 0.0
    for one, made in zip(given, paint(painter, given), strict=True):
        regions = Eyes().images(made.images[-1]).regions
        scores = torch.tensor([
            [plainly(regions[i], one.words[k], one.mask[k], 4.0, 5.0) for k in range(4)]
            for i in range(4)
        ]).double()  # fmt: skip
        expected += plain_loss(scores, one.labels if mask else one.texts, 10.0)
    assert told["word_match"].item() == pytest.approx(expected, rel=1e-6)
    assert "word_match" not in before
    added = (told["loss_g"] - before["loss_g"]).item()
    assert added == pytest.approx(3 * expected, rel=1e-6)


def test_the_generator_feels_the_word_match():
    given = sides()
    painter, judges = networks()
    slopes = []
    for weight in (0.0, 3.0):
        settings = replace(GIVEN, word_match_weight=weight)
        loss = generator_loss(settings, judges, Eyes(), given, paint(painter, given), 0)["loss_g"]
        slopes.append(torch.autograd.grad(loss, list(painter.parameters())))
    moved = [(a - b).abs().max() for a, b in zip(*slopes, strict=True)]
    assert moved[-1] > 1e-6  # of the last stage, whose pictures are looked at


def test_families_have_it_as_they_were_published():
    weights = {name: defaults(kind()).word_match_weight for name, kind in FAMILIES.items()}
    assert weights == {"SSA-GAN": 0.1, "GALIP": 0, "AttnGAN": 10, "DM-GAN": 10}
    assert GanSettings().word_match_weight == 0


def test_a_gan_trains_with_it(tmp_path: Path) -> None:
    settings = replace(QUICK_STAGED, word_match_weight=10.0, class_mask=False)
    run_gan(tmp_path, settings, ATTN_GAN)
    steps = [r for r in RunFolder(tmp_path / "run").records() if "loss_g" in r]
    assert len(steps) == 6
    assert all(record["word_match"] > 0 for record in steps)


@pytest.mark.parametrize("mask", [True, False], ids=["mask", "no mask"])
def test_pretraining_adds_the_word_loss_of_both_branches(tmp_path: Path, mask: bool) -> None:
    settings = replace(SHORT, steps=1, validation=0, words=2.0, class_mask=mask, temperature=0.2)
    encoders = small(FLAGS).double()
    run_pretraining(tmp_path, settings)
    run_pretraining(tmp_path / "without", replace(settings, words=0.0))
    pairs, _ = split(read_pairs(FLAGS, SIDE), 0, settings.seed)
    rows = draw_rows(pairs.labels.tensor, settings.batch, settings.seed, 0)
    expected = 0.0
    for places in rows:
        regions = encoders.images(pairs.pixels(places).double()).regions
        read = encoders.texts(pairs.texts(places))
        scores = torch.tensor([
            [plainly(regions[i], read.words[k], read.mask[k], 4.0, 5.0) for k in range(4)]
            for i in range(4)
        ]).double()  # fmt: skip
        captions = pairs.texts(places)
        numbers = torch.tensor([captions.index(caption) for caption in captions])
        expected += plain_loss(scores, pairs.labels.rows(places) if mask else numbers, 5.0) / 2
    with_words, without = (
        next(iter(RunFolder(folder / "run").records()))
        for folder in (tmp_path, tmp_path / "without")
    )
    assert with_words["loss_words"] == pytest.approx(expected, rel=1e-4)
    assert "loss_words" not in without
    added = with_words["loss"] - without["loss"]
    assert added == pytest.approx(2 * expected, rel=1e-4)

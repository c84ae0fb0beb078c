"""The matching of words and regions against plain loops in float64, and what it must not see."""

import math

import pytest
import torch
from gan_files import normal

from nsync.errors import InputError
from nsync.supcon.losses import label_overlap
from nsync.supcon.words import word_matching, word_scores

MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 1], [1, 1, 1, 0]]).bool()


def given():
    return normal("regions", 4, 6, 5), normal("words", 4, 4, 5)


def plainly(regions, words, mask, gamma1, gamma2):
    """R(Q, D) of one picture `[r, d]` and one text `[l, d]`, number by number."""
    words = [word for word, there in zip(words.tolist(), mask.tolist(), strict=True) if there]
    places = regions.tolist()

    def product(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    likeness = [[math.exp(product(word, place)) for place in places] for word in words]
    sums = [sum(row[j] for row in likeness) for j in range(len(places))]
    total = 0.0
    for word, row in zip(words, likeness, strict=True):
        picks = [math.exp(gamma1 * each / of) for each, of in zip(row, sums, strict=True)]
        found = [
            sum(pick * place[d] for pick, place in zip(picks, places, strict=True)) / sum(picks)
            for d in range(len(word))
        ]
        cosine = product(word, found) / math.hypot(*word) / math.hypot(*found)
        total += math.exp(gamma2 * cosine)
    return math.log(total) / gamma2


def plain_loss(scores, labels, gamma3):
    total = 0.0
    alike = torch.zeros(4, 4) if labels is None else label_overlap(labels, labels)
    for table in (scores, scores.T):
        for i in range(4):
            kept = [k for k in range(4) if k == i or alike[i, k] == 0]
            below = sum(math.exp(gamma3 * table[i, k]) for k in kept)
            total -= math.log(math.exp(gamma3 * table[i, i]) / below) / 8
    return total


@pytest.mark.parametrize(("gamma1", "gamma2", "gamma3"), [(4.0, 5.0, 10.0), (1.0, 2.0, 0.5)])
@pytest.mark.parametrize(
    "labels",
    [
        None,
        torch.tensor([1, 2, 1, 3]),
        torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0]]),
    ],
)
def test_scores_and_loss_are_the_formulas(labels, gamma1, gamma2, gamma3):
    regions, words = given()
    scores = word_scores(regions, words, MASK, gamma1=gamma1, gamma2=gamma2)
    for i in range(4):
        for k in range(4):
            expected = plainly(regions[i], words[k], MASK[k], gamma1, gamma2)
            assert scores[i, k].item() == pytest.approx(expected, rel=1e-9)
    gammas = {"gamma1": gamma1, "gamma2": gamma2, "gamma3": gamma3}
    loss = word_matching(regions, words, MASK, labels, **gammas)
    assert loss.item() == pytest.approx(plain_loss(scores, labels, gamma3), rel=1e-9)


def test_gradients_are_those_of_the_formula():
    """By finite differences, for a batch in which two share a label."""
    regions, words = (each.requires_grad_() for each in given())
    labels = torch.tensor([1, 2, 1, 3])

    def loss(regions, words):
        return word_matching(regions, words, MASK, labels)

    assert torch.autograd.gradcheck(loss, (regions, words))
    loss(regions, words).backward()
    assert torch.equal(words.grad.any(2), MASK)


def test_padding_has_no_say():
    regions, words = given()
    other = torch.where(MASK[:, :, None], words, 50.0)
    longer = torch.cat([words, words], 1), torch.cat([MASK, torch.zeros_like(MASK)], 1)
    scores = word_scores(regions, words, MASK)
    assert torch.equal(word_scores(regions, other, MASK), scores)
    assert torch.allclose(word_scores(regions, *longer), scores, rtol=1e-12)
    whole = word_scores(regions, words)
    assert torch.equal(whole, word_scores(regions, words, torch.ones_like(MASK)))
    assert torch.allclose(whole[:, 0], scores[:, 0], rtol=1e-12)
    assert not torch.allclose(whole[:, 1], scores[:, 1])


def test_more_texts_than_pictures_are_scored():
    regions, words = given()
    few = word_scores(regions[:2], words, MASK)
    assert few.shape == (2, 4)
    assert torch.allclose(few, word_scores(regions, words, MASK)[:2], rtol=1e-12)


def test_who_shares_a_label_is_no_negative():
    """Both ways, whatever he has; and with labels for each alone nothing is left out."""
    regions, words = given()
    labels = torch.tensor([0, 1, 0, 2])
    alone = word_matching(regions, words, MASK)
    assert torch.equal(word_matching(regions, words, MASK, torch.arange(4)), alone)
    assert word_matching(regions, words, MASK, labels) < alone
    one = word_matching(regions, words, MASK, torch.zeros(4).long())
    assert one.item() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_safe(dtype):
    """Of great lengths, under autocast, and with no word in common."""
    regions, words = (300 * each for each in given())
    regions, words = regions.to(dtype).requires_grad_(), words.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        loss = word_matching(regions, words, MASK)
    loss.backward()
    exact = word_matching(regions.detach().double(), words.double(), MASK)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)
    assert regions.grad.isfinite().all()


REGIONS, WORDS = given()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: word_scores(REGIONS[0], WORDS), r"regions.*float \[n, r, d\]"),
        (lambda: word_scores(REGIONS.long(), WORDS), "regions.*int64"),
        (lambda: word_scores(REGIONS, WORDS[:, :, :4]), "words.*as wide as the regions"),
        (lambda: word_scores(REGIONS, WORDS[0]), "words.*float"),
        (lambda: word_scores(REGIONS, WORDS, MASK.int()), "mask.*bool.*int32"),
        (lambda: word_scores(REGIONS, WORDS, MASK[:, :3]), r"mask.*\[4, 4\]"),
        (lambda: word_scores(REGIONS, WORDS, MASK & (MASK.sum(1) > 1)[:, None]), "none in text 1"),
        (lambda: word_scores(REGIONS, WORDS, gamma1=0), "gamma1.*above 0; got 0"),
        (lambda: word_scores(REGIONS, WORDS, gamma2=-1.0), "gamma2"),
        (lambda: word_matching(REGIONS, WORDS, gamma3=0.0), "gamma3"),
        (lambda: word_matching(REGIONS[:3], WORDS), "words.*3 pictures and 4 texts"),
        (lambda: word_matching(REGIONS, WORDS, MASK, torch.arange(3)), "labels.*4 rows.*got 3"),
    ],
)
def test_bad_input_is_one_error(call, text):
    with pytest.raises(InputError, match=text):
        call()

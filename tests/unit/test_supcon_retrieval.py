"""R-precision against counting by hand."""

import math

import pytest
import torch
from torch import Tensor

from nsync.draws import generator
from nsync.errors import InputError
from nsync.supcon.retrieval import OTHERS, retrieval


def features(count: int, key: str) -> Tensor:
    return torch.randn(count, 4, generator=generator(0, key))


def plainly(queries: Tensor, found: Tensor, others: list[list[int]]) -> float:
    """Each query looks for its own among the others, one by one."""

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    total = 0.0
    for row, query in enumerate(queries.double().tolist()):
        own = cosine(query, found[row].double().tolist())
        wrong = [cosine(query, found[other].double().tolist()) for other in others[row]]
        total += max(wrong) < own
    return total / len(queries)


def test_among_few_all_are_looked_at() -> None:
    images = features(30, "images")
    texts = images + 0.5 * features(30, "texts")
    everybody = [[other for other in range(30) if other != row] for row in range(30)]
    found = retrieval(images, texts, [f"caption {row}" for row in range(30)])
    assert (found.pictures, found.texts) == (29, 29)
    assert found.text_to_image == pytest.approx(plainly(texts, images, everybody))
    assert found.image_to_text == pytest.approx(plainly(images, texts, everybody))
    assert 0.1 < found.text_to_image < 0.9
    assert found.text_to_image != found.image_to_text


def test_among_many_ninety_nine_are_drawn() -> None:
    """Features that know nothing find one in a hundred."""
    images, texts = features(1500, "images"), features(1500, "texts")
    found = retrieval(images, texts, [str(row) for row in range(1500)])
    assert found.pictures == found.texts == OTHERS == 99
    assert 0.002 < found.text_to_image < 0.02
    assert retrieval(images, images, [str(row) for row in range(1500)])[:2] == (1, 1)


def test_features_that_are_all_alike_are_as_good_as_chance() -> None:
    same = torch.ones(20, 4)
    found = retrieval(same, same, [str(row) for row in range(20)])
    assert found[:2] == pytest.approx((1 / 20, 1 / 20))


def test_the_same_caption_is_no_wrong_answer() -> None:
    """Two pictures of each caption: each text finds both, and that is right; a picture is held
    against each other text once."""
    wanted = features(10, "images").repeat_interleave(2, 0)
    captions = [str(row // 2) for row in range(20)]
    found = retrieval(wanted, wanted, captions)
    assert found == (1, 1, 18, 9)


def test_a_text_that_stands_often_is_one_wrong_answer() -> None:
    """Nine of ten pictures have one caption; features know nothing. Chance is a half, where
    candidates by item would have given those of the rare caption a tenth."""
    captions = ["rare"] * 200 + ["common"] * 1800
    found = retrieval(features(2000, "images"), features(2000, "texts"), captions)
    assert (found.pictures, found.texts) == (99, 1)
    assert found.image_to_text == pytest.approx(0.5, abs=0.05)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="at least two different ones"):
        retrieval(features(3, "a"), features(3, "b"), ["x", "x", "x"])
    with pytest.raises(InputError, match="row by row"):
        retrieval(features(3, "a"), features(4, "b"), ["x", "y", "z"])

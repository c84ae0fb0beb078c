"""The arms of the comparison: each is the loss that it says, and all weigh the same."""

import pytest
import torch
from torch import Tensor

from nsync.draws import generator
from nsync.errors import InputError
from nsync.supcon import losses
from nsync.supcon.contrast import CONTRASTS, Weights, contrast

WEIGHTS = Weights(0.1, 0.2, 0.3, 0.4)
LABELS = torch.tensor([0, 1, 0, 2, 0, 1, 0, 2])


def features(key: str) -> Tensor:
    return torch.randn(8, 5, generator=generator(0, key), dtype=torch.float64)


def test_the_arms_are_the_losses_with_equal_weight() -> None:
    images, texts = features("images"), features("texts")
    classifier = torch.nn.Linear(5, 3).double()
    at = {"temperature": 0.2}
    terms = [
        losses.supervised_contrastive(images, LABELS, **at),
        losses.supervised_contrastive(texts, LABELS, **at),
        losses.cross_contrastive(images, texts, LABELS, **at),
        losses.cross_contrastive(texts, images, LABELS, **at),
    ]
    both = (images, texts)
    wanted = {
        "supcon": sum(w * t for w, t in zip(WEIGHTS, terms, strict=True)),
        "unicl": losses.unicl(images, texts, LABELS, **at),
        "nt-xent": sum(losses.nt_xent(one[:4], one[4:], **at) for one in both) / 2,
        "classifier": sum(losses.classification(classifier(one), LABELS) for one in both) / 2,
        "none": images.new_zeros(()),
    }
    assert wanted.keys() == set(CONTRASTS)
    for kind, value in wanted.items():
        given = {"weights": WEIGHTS, "classifier": classifier, **at}
        total, parts = contrast(kind, images, texts, LABELS, **given)
        assert total.item() == pytest.approx(value.item())
        assert len(parts) == {"supcon": 4, "none": 0}.get(kind, 1)


def test_terms_without_a_weight_are_left_out() -> None:
    inner = Weights(0.5, 0.5, 0.0, 0.0)
    given = {"weights": inner, "temperature": 0.1}
    _, parts = contrast("supcon", features("images"), features("texts"), LABELS, **given)
    assert parts.keys() == {"image_image", "text_text"}


def test_no_such_arm_is_refused() -> None:
    pair, at = (features("images"), features("texts")), {"weights": WEIGHTS, "temperature": 0.1}
    for kind in ("triplet", "classifier"):
        with pytest.raises(InputError, match="`contrast`: expected one of supcon"):
            contrast(kind, *pair, LABELS, **at)

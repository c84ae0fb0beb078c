"""Contrastive losses against double loops in float64, a published library, and processes."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from agreement.features import features as drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, distributed, multiprocessing

from nsync.errors import InputError
from nsync.supcon.losses import (
    FORMS,
    IN,
    classification,
    cross_contrastive,
    gather,
    label_overlap,
    matching,
    nt_xent,
    supervised_contrastive,
    unicl,
)

AGREEMENT = Path(__file__).parent / "agreement" / "supcon.json"


def rows(seed: int, count: int, width: int = 6) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=source, dtype=torch.float64)


def some_labels(seed: int, count: int, classes: int, several: bool) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    single = torch.randint(classes, (count,), generator=source)
    if not several:
        return single
    many = torch.rand(count, classes, generator=source) < 0.3
    many[torch.arange(count), single] = True
    return many


def plainly(
    anchors: Tensor,
    candidates: Tensor,
    labels: Tensor,
    others: Tensor,
    temperature: float,
    form: str = "out",
    *,
    same: bool = False,
) -> float:
    """The formula at the top of the module, number by number."""

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    def overlap(a: Tensor, b: Tensor) -> float:
        if a.ndim == 0:
            return float(a == b)
        one, two = (set(torch.nonzero(each).flatten().tolist()) for each in (a, b))
        return len(one & two) / len(one | two)

    losses = []
    for i, a in enumerate(anchors.tolist()):
        seen = [k for k in range(len(candidates)) if not (same and k == i)]
        scores = {k: math.exp(cosine(a, candidates[k].tolist()) / temperature) for k in seen}
        weights = {k: overlap(labels[i], others[k]) for k in seen}
        total = sum(weights.values())
        if total == 0:
            continue
        below = sum(scores.values())
        if form == "out":
            terms = [w * math.log(scores[k] / below) for k, w in weights.items() if w]
            losses.append(-sum(terms) / total)
        else:
            losses.append(-math.log(sum(w * scores[k] / below for k, w in weights.items()) / total))
    return sum(losses) / len(losses) if losses else 0.0


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    count=st.integers(2, 12),
    classes=st.integers(1, 6),
    several=st.booleans(),
    temperature=st.sampled_from([0.07, 0.1, 0.5, 2.0]),
    form=st.sampled_from(FORMS),
)
def test_losses_are_the_formulas(
    seed: int, count: int, classes: int, several: bool, temperature: float, form: str
) -> None:
    one, other = rows(seed, count), rows(seed + 1, count)
    labels = some_labels(seed, count, classes, several)
    given = {"temperature": temperature, "form": form}
    within = supervised_contrastive(one, labels, **given)
    expected = plainly(one, one, labels, labels, temperature, form, same=True)
    assert within.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    less = some_labels(seed + 1, count, classes, several)
    between = cross_contrastive(one, other, labels, less, **given)
    expected = plainly(one, other, labels, less, temperature, form)
    assert between.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_the_formula(form: str, several: bool) -> None:
    """By finite differences, an anchor without a positive among them."""
    labels = some_labels(3, 7, 4, several)
    if several:
        labels[:, -1] = False
        labels[0] = torch.tensor([False, False, False, True])
    else:
        labels[0] = 9
    one, other = rows(1, 7).requires_grad_(), rows(2, 7).requires_grad_()

    def within(features: Tensor) -> Tensor:
        return supervised_contrastive(features, labels, form=form)

    def between(a: Tensor, b: Tensor) -> Tensor:
        return cross_contrastive(a, b, labels, form=form, temperature=0.3)

    assert torch.autograd.gradcheck(within, (one,))
    assert torch.autograd.gradcheck(between, (one, other))
    assert torch.autograd.gradcheck(lambda a, b: matching(a, b, labels), (one, other))


TOLD = json.loads(AGREEMENT.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", TOLD["cases"], ids=lambda case: f"{case['items']} items")
def test_values_and_gradients_of_pytorch_metric_learning(case: dict) -> None:
    labels, given = torch.arange(case["items"]) % case["classes"], case["temperature"]
    first, second = (torch.from_numpy(drawn(k, case["items"], TOLD["width"])) for k in (1, 2))
    first, second = first - first.mean(0), second - second.mean(0)
    ours: dict[str, tuple[Tensor, Callable[[Tensor], Tensor]]] = {
        "within": (first, lambda x: supervised_contrastive(x, labels, temperature=given)),
        "between": (first, lambda x: cross_contrastive(x, second, labels, temperature=given)),
        "nt_xent": (torch.cat([first, second]), lambda x: nt_xent(*x.chunk(2), temperature=given)),
    }
    for name, (features, loss) in ours.items():
        features.requires_grad_()
        value = loss(features)
        [gradient] = torch.autograd.grad(value, features)
        assert value.item() == pytest.approx(case[name]["loss"], rel=1e-9)
        expected = torch.tensor(case[name]["gradient"], dtype=torch.float64)
        assert torch.allclose(gradient[:3, :4], expected, rtol=1e-6, atol=1e-9)


def test_what_the_other_arms_are() -> None:
    images, texts, labels = rows(1, 8), rows(2, 8), some_labels(4, 8, 3, several=False)
    both = [cross_contrastive(images, texts, labels), cross_contrastive(texts, images, labels)]
    assert unicl(images, texts, labels).item() == pytest.approx(sum(both).item() / 2, rel=1e-12)
    own = torch.arange(8)
    pairs = [plainly(images, texts, own, own, 0.1), plainly(texts, images, own, own, 0.1)]
    assert matching(images, texts).item() == pytest.approx(sum(pairs) / 2, rel=1e-9)
    alone = supervised_contrastive(torch.cat([images, texts]), own.repeat(2), temperature=0.5)
    assert nt_xent(images, texts).item() == pytest.approx(alone.item(), rel=1e-12)
    logits = rows(5, 8, 3)
    expected = [-math.log(row.softmax(0)[k]) for row, k in zip(logits, labels, strict=True)]
    assert classification(logits, labels).item() == pytest.approx(sum(expected) / 8, rel=1e-6)
    several = some_labels(4, 8, 3, several=True)
    shares = several / several.sum(1, keepdim=True)
    soft = -(shares * logits.log_softmax(1)).sum(1).mean()
    assert classification(logits, several).item() == pytest.approx(soft.item(), rel=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_who_is_a_positive_is_no_negative_of_matching(several: bool) -> None:
    """One table says both: what it calls alike does not enter the sum, whatever it is."""
    images, texts = rows(1, 6), rows(2, 6)
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    if several:
        labels = torch.nn.functional.one_hot(labels, 4)
        labels[3, 2:] = 1
    before = matching(images, texts, labels)
    expected = 0.0
    for a, b in ((images, texts), (texts, images)):
        for i in range(6):
            alike = label_overlap(labels, labels)[i]
            kept = [k for k in range(6) if k == i or alike[k] == 0]
            kept_labels = torch.tensor([k == i for k in kept]).long()
            expected += plainly(a[i : i + 1], b[kept], torch.tensor([1]), kept_labels, 0.1) / 12
    assert before.item() == pytest.approx(expected, rel=1e-9)
    assert before < matching(images, texts)


def test_overlap_is_shared_over_all_labels() -> None:
    one = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1]])
    assert label_overlap(one, one).tolist() == [[1, 0.25], [0.25, 1]]
    ids = torch.tensor([4, 7])
    assert label_overlap(ids, torch.tensor([7, 7, 4])).tolist() == [[0, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize("form", FORMS)
def test_without_any_positive_the_loss_is_nothing(form: str) -> None:
    features = rows(1, 5).requires_grad_()
    loss = supervised_contrastive(features, torch.arange(5), form=form)
    loss.backward()
    assert loss.item() == 0
    assert features.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("form", FORMS)
def test_half_precision_and_low_temperatures_are_safe(form: str, dtype: torch.dtype) -> None:
    """Features far from each other, some equal, some of great length; under autocast too."""
    features = (rows(1, 24, 64) * 300).to(dtype)
    features[3] = features[5]
    features = features.requires_grad_()
    labels = torch.arange(24) % 7
    labels[0] = 50
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = supervised_contrastive(features, labels, temperature=0.01, form=form)
    loss.backward()
    exact = plainly(*[features.detach().double()] * 2, *[labels] * 2, 0.01, form, same=True)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-4)
    assert features.grad.isfinite().all()


def test_length_has_no_say_and_order_neither() -> None:
    features, labels = rows(1, 9), some_labels(1, 9, 3, several=False)
    before = supervised_contrastive(features, labels, form=IN).item()
    longer = features * torch.arange(1, 10)[:, None]
    assert supervised_contrastive(longer, labels, form=IN).item() == pytest.approx(before)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert supervised_contrastive(features[order], labels[order], form=IN).item() == (
        pytest.approx(before)
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: supervised_contrastive(rows(1, 1), torch.zeros(1).long()), "n of 2 or more"),
        (lambda: supervised_contrastive(rows(1, 4)[0], torch.zeros(4).long()), r"float \[n, d\]"),
        (lambda: supervised_contrastive(rows(1, 4).long(), torch.zeros(4).long()), "float"),
        (lambda: supervised_contrastive(rows(1, 4), torch.zeros(3).long()), r"int \[4\]"),
        (lambda: supervised_contrastive(rows(1, 4), torch.zeros(4)), "torch.float32"),
        (
            lambda: supervised_contrastive(rows(1, 4), torch.arange(4), temperature=0),
            "above 0; got 0",
        ),
        (lambda: supervised_contrastive(rows(1, 4), torch.arange(4), form="x"), "out, in"),
        (lambda: supervised_contrastive(rows(1, 2), torch.tensor([[1, 0], [0, 0]])), "item 1"),
        (lambda: supervised_contrastive(rows(1, 2), torch.tensor([[1, 0], [0, 3]])), "other num"),
        (lambda: cross_contrastive(rows(1, 4), rows(2, 4, 5), torch.arange(4)), "as wide as"),
        (
            lambda: cross_contrastive(rows(1, 2), rows(2, 2), torch.arange(2), torch.ones(2, 3)),
            "one kind of labels",
        ),
        (lambda: unicl(rows(1, 4), rows(2, 5), torch.arange(4)), "two of one shape"),
        (lambda: nt_xent(rows(1, 4), rows(2, 5)), "two of one shape"),
        (lambda: classification(rows(1, 3, 2), torch.tensor([0, 1, 2])), "numbers 0 to 1"),
        (lambda: classification(rows(1, 3, 2), torch.ones(3, 4)), "as the logits"),
    ],
)
def test_bad_input_is_one_error(call: Callable[[], Tensor], text: str) -> None:
    with pytest.raises(InputError, match=text):
        call()


def _process(rank: int, count: int, place: str) -> None:
    store = f"file://{place}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=count)
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 4, dtype=torch.float64)
    mine = slice(rank, None, count)
    features = gather(layer(rows(1, 6)[mine]))
    labels = torch.cat([LABELS[k::count] for k in range(count)])
    loss = supervised_contrastive(features, labels)
    loss.backward()
    distributed.all_reduce(layer.weight.grad)
    if rank == 0:
        torch.save((loss.detach(), layer.weight.grad / count), f"{place}/found.pt")
    distributed.destroy_process_group()


LABELS = torch.tensor([0, 1, 0, 1, 0, 2])


def test_processes_give_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    multiprocessing.spawn(_process, (2, str(tmp_path)), nprocs=2)
    loss, gradient = torch.load(tmp_path / "found.pt", weights_only=True)
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 4, dtype=torch.float64)
    alone = supervised_contrastive(gather(layer(rows(1, 6))), LABELS)
    alone.backward()
    assert loss.item() == pytest.approx(alone.item(), rel=1e-12)
    assert torch.allclose(gradient, layer.weight.grad, rtol=1e-9)
